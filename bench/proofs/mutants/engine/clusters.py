"""Wrong changes of engine/clusters: vectors, centroids and their file."""

from alps.bench.proofs.mutants import Mutant, changes_of

CLUSTERING = ("tests/engine/clusters/test_clustering.py",)
FEATURES = ("tests/engine/clusters/test_features.py",)
CUML = ("tests/engine/clusters/test_cuml.py",)
POSITION = ("tests/engine/clusters/test_position.py",)

MUTANTS = [
    Mutant(
        "engine/clusters/features.py",
        old="scale[:, :width] = np.where(lengths > 0, lengths, 1)",
        new="scale[:, :width] = np.maximum(lengths, 1)",
        tests=FEATURES,
        why="only long embeddings are scaled",
    ),
    Mutant(
        "engine/clusters/features.py",
        old="weight = settings.colour_weight * np.repeat([1, WITHIN], 3)",
        new="weight = settings.colour_weight * np.tile([1, WITHIN], 3)",
        tests=FEATURES,
        why="weights of means and deviations are mixed up",
    ),
    Mutant(
        "engine/clusters/features.py",
        old='order = np.argsort(-variance, kind="stable")[:components]',
        new='order = np.argsort(variance, kind="stable")[:components]',
        tests=FEATURES,
        why="the least components are kept",
    ),
    Mutant(
        "engine/clusters/features.py",
        old="            **axes,\n",
        new="",
        tests=FEATURES + CLUSTERING,
        why="the axes are not kept",
    ),
    Mutant(
        "engine/clusters/file.py",
        old="                digest.update(name.encode() + np.asarray(values).tobytes())\n",
        new="                digest.update(name.encode())\n",
        tests=("tests/engine/clusters/test_cluster_file.py",),
        why="the digest of clusters leaves the features' values out",
    ),
    Mutant(
        "engine/clusters/file.py",
        old='if then["model"]["sha256"] != model["sha256"]:',
        new='if then["model"]["name"] != model["name"]:',
        tests=("tests/engine/clusters/test_cluster_file.py",),
        why="another model of the same name is taken",
    ),
    Mutant(
        "engine/clusters/file.py",
        old='DECIDING = {"source": ("tile", "bands"), "segment": ("precision", "superpixels")}',
        new='DECIDING = {"source": ("tile",), "segment": ("precision", "superpixels")}',
        tests=("tests/engine/clusters/test_cluster_file.py",),
        why="clusters of other bands are taken",
    ),
    Mutant(
        "engine/clusters/file.py",
        old='("precision", "superpixels")',
        new='("superpixels",)',
        tests=("tests/engine/clusters/test_cluster_file.py",),
        why="clusters of another precision are taken",
    ),
    Mutant(
        "engine/clusters/fit.py",
        old="return np.where(found.second > 0, 1 - ratio, 0).astype(np.float32)",
        new="return np.where(found.second > 0, np.round(1 - ratio), 0).astype(np.float32)",
        tests=CLUSTERING,
        why="margins are 0 or 1",
    ),
    Mutant(
        "engine/clusters/fit.py",
        old="ratio = np.sqrt(found.nearest / found.second)",
        new="ratio = found.nearest / found.second",
        tests=CLUSTERING,
        why="margins are of squared distances",
    ),
    Mutant(
        "engine/clusters/fit.py",
        old="        self._mass *= 1 - count / memory\n",
        new="",
        tests=CLUSTERING,
        why="a centroid never forgets",
    ),
    Mutant(
        "engine/clusters/fit.py",
        old="self._inertia / self._weight if self._weight else 0.0",
        new="self._inertia",
        tests=CLUSTERING,
        why="inertia is a sum, not a mean",
    ),
    Mutant(
        "engine/clusters/fit.py",
        old="        self._move(self._received == 0)\n",
        new="",
        tests=CLUSTERING,
        why="centroids that receive nothing stay where they are",
    ),
    Mutant(
        "engine/clusters/fit.py",
        old="    if total < clusters:\n",
        new="    if total <= clusters:\n",
        tests=CLUSTERING,
        why="as many clusters as segments are refused",
    ),
    Mutant(
        "engine/clusters/fit.py",
        old="vectors.take(np.sort(rng.choice(vectors.count, rows, replace=False)))",
        new="vectors.take(np.arange(rows))",
        tests=CLUSTERING + CUML,
        why="the sample is the first vectors of the archive",
    ),
    Mutant(
        "engine/clusters/seeding.py",
        old="drawn = _draw(distance * own, trials, rng)",
        new="drawn = _draw(own, trials, rng)",
        tests=CLUSTERING,
        why="first centroids are drawn without regard to distance",
    ),
    Mutant(
        "engine/clusters/seeding.py",
        old="    chances = distance * weights\n",
        new="    chances = distance\n",
        tests=CLUSTERING,
        why="weights have no say in where centroids move",
    ),
    Mutant(
        "engine/clusters/seeding.py",
        old="best = int((reached @ own).argmin())",
        new="best = int((reached @ own).argmax())",
        tests=CLUSTERING,
        why="of candidates the worst is taken",
    ),
    Mutant(
        "engine/clusters/position.py",
        old="np.clip(np.sqrt(total / SEGMENTS_PER_TERM), 1, MOST_FREQUENCIES)",
        new="np.clip(total / SEGMENTS_PER_TERM, 1, MOST_FREQUENCIES)",
        tests=("tests/engine/clusters/test_position.py",),
        why="few segments get many frequencies",
    ),
    Mutant(
        "engine/clusters/cuml.py",
        old="random_state=settings.seed % (1 << 31),",
        new="random_state=0,",
        tests=CUML,
        why="the seed does not reach cuML",
    ),
    Mutant(
        "engine/clusters/cuml.py",
        old="model.fit(sample, sample_weight=weights.astype(np.float32))",
        new="model.fit(sample)",
        tests=CUML,
        why="weights do not reach cuML",
    ),
    *changes_of(
        "engine/clusters/features.py",
        FEATURES,
        (
            "weight = means.pixels / (means.pixels + SETTLED_PIXELS)",
            "weight = np.ones(len(means.pixels))",
            "a small source loses all that its segments share",
        ),
        (
            "shared = shared - means.basis[:, terms(round(len(solution) ** 0.5))] @ solution",
            "shared = shared * 1.0",
            "what place predicts is taken away twice",
        ),
        (
            "effect = self._position.solve() if settings.remove_position and known else None",
            "effect = self._position.solve() if known else None",
            "--no-remove-position does nothing",
        ),
        (
            "entries = np.repeat(self.starts[rows] - starts[:-1], length)",
            "entries = np.repeat(self.starts[rows], length)",
            "rows that are taken get the entries of others",
        ),
        (
            "basis = basis + area @ cosine_basis(",
            "basis = basis + np.ones_like(area) @ cosine_basis(",
            "small segments' places count as much as large ones'",
        ),
        (
            "        self._position.add(segments.embedding, segments.place, segments.area)\n",
            "        self._position.add(segments.embedding, segments.place)\n",
            "small segments count as much as large ones",
        ),
    ),
    *changes_of(
        "engine/clusters/features.py",
        (f"{CLUSTERING[0]}::test_an_embedding_that_is_no_number_is_named",),
        (
            "    unusable = ~np.isfinite(values).all(1)\n",
            "    unusable = np.isnan(values).any(1)\n",
            "an infinite embedding passes",
        ),
    ),
    *changes_of(
        "engine/clusters/position.py",
        FEATURES,
        (
            "(square - cross - cross.T + solution.T @ gram @ solution)",
            "(square - cross - cross.T)",
            "the covariance without the effect lacks its last term",
        ),
        (
            "self._gram = self._gram + basis.T @ (basis * weights[:, None])",
            "self._gram = self._gram + basis.T @ basis",
            "weights are on one side of the fit",
        ),
    ),
    *changes_of(
        "engine/clusters/region_data.py",
        CLUSTERING,
        (
            "own = rows[low:high] - start",
            "own = rows[low:high] - rows[low]",
            "rows of a later piece are those of another",
        ),
        (
            "self.weights[start : start + len(vectors)] = weights",
            "self.weights[start : start + len(vectors)] = 1",
            "regions weigh alike",
        ),
        (
            "whole = held if index == order[-1] else held // rows * rows",
            "whole = held // rows * rows",
            "the rest of the last pool is never seen",
        ),
        (
            "start = (int(index) - before) * PIECE_ROWS",
            "start = int(index) * PIECE_ROWS % max(file.count, 1)",
            "pieces of later files are others",
        ),
        (
            "rest = pool.taken(mixed[whole:])",
            "rest = pool.taken(mixed[:0])",
            "what does not fill a batch is lost",
        ),
    ),
    *changes_of(
        "engine/clusters/region_reader.py",
        FEATURES,
        (
            "before[which] + segments",
            "before[0] + entries",
            "regions blend segments of the first tile",
        ),
        (
            "max(column[0].as_py() for column in sides.columns)",
            "min(column[0].as_py() for column in sides.columns)",
            "places are measured by the shorter side",
        ),
        (
            "for tile in self._plan.rows_of_source(source_index))",
            "for tile in range(self._plan.rows_of_source(source_index).stop))",
            "a source shares what the sources before it show",
        ),
    ),
    *changes_of(
        "engine/clusters/vectors.py",
        ("tests/engine/clusters/test_vectors.py",),
        (
            "np.exp(contrast.astype(np.float64) / -FADES)",
            "np.exp(contrast.astype(np.float64) / FADES)",
            "a neighbour counts the more the less it is alike",
        ),
        ("weight = length * np.exp", "weight = np.exp", "a border of a pixel counts as a long one"),
        (
            "Touching(start + region, start + other,",
            "Touching(region, other,",
            "borders of a later source are the first one's",
        ),
        (
            "total / np.maximum(length, 1)",
            "total",
            "the longer its borders the more a region takes up",
        ),
        (
            "seen_through / (seen_through + np.float32(HALF))",
            "(seen_through > 0)",
            "a region that is clear on all sides takes up as much as any",
        ),
        ("        self._first += done\n", "", "rows that follow are taken for those let go of"),
        (
            "features.scaled(vectors[some])",
            "vectors[some]",
            "mixed embeddings are short",
        ),
    ),
    *changes_of(
        "engine/clusters/assign.py",
        CLUSTERING,
        (
            "AssignGroups(folder.root, model, settings.weight_by_area)",
            "AssignGroups(folder.root, model)",
            "inertia counts regions alike",
        ),
        (
            "            counted.append(Counted.of(found))\n",
            "            counted = counted or [Counted.of(found)]\n",
            "of each group only the first rows are counted",
        ),
    ),
]
