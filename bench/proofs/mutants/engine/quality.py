"""Wrong changes of engine/quality: the measures of label maps."""

from alps.bench.proofs.mutants import Mutant

QUALITY = ("tests/engine/quality/test_quality.py", "tests/engine/quality/test_quality_splits.py")

MUTANTS = [
    Mutant(
        "engine/quality/measure.py",
        old="union = total + mapped.sum(axis=0) - hits",
        new="union = total + mapped.sum(axis=0)",
        tests=QUALITY,
        why="the intersection is in the union twice",
    ),
    Mutant(
        "engine/quality/measure.py",
        old="np.where(total > 0, hits / np.maximum(union, 1), np.nan)",
        new="np.where(union > 0, hits / np.maximum(union, 1), np.nan)",
        tests=QUALITY,
        why="classes that the scored images do not have enter the mean",
    ),
    Mutant(
        "engine/quality/measure.py",
        old="if index != part)",
        new="if index >= 0)",
        tests=QUALITY,
        why="a fold's mapping is learnt on its own images too",
    ),
    Mutant(
        "engine/quality/measure.py",
        old="accuracy=float(np.trace(mapped) / pixels),",
        new="accuracy=float(np.trace(mapped) / max(labelled, 1)),",
        tests=QUALITY,
        why="accuracy leaves unlabelled pixels out",
    ),
    Mutant(
        "engine/quality/boundaries.py",
        old="halo = math.ceil(tolerance) + 1",
        new="halo = math.ceil(tolerance)",
        tests=QUALITY,
        why="a strip sees a row too few of its neighbours",
    ),
    Mutant(
        "engine/quality/boundaries.py",
        old="labels_near=int((ours & near_theirs)[rows].sum()),",
        new="labels_near=int((ours & near_theirs).sum()),",
        tests=QUALITY,
        why="pixels of a strip's halo are counted twice",
    ),
    Mutant(
        "engine/quality/truth.py",
        old='if rules.believes_header and file.driver == "GTiff" and file.nodata is not None:',
        new="if rules.believes_header and file.nodata is not None:",
        tests=QUALITY,
        why="a transparent PNG index is left out though it is a class",
    ),
    Mutant(
        "engine/quality/truth.py",
        old="values = (values > rules.threshold).astype(np.uint8)",
        new="values = (values >= rules.threshold).astype(np.uint8)",
        tests=QUALITY,
        why="values on the threshold are class 1",
    ),
    Mutant(
        "engine/quality/truth.py",
        old="if len(found) == 1 and len(rivals) == 1:",
        new="if len(found) == 1:",
        tests=QUALITY,
        why="two label maps share a truth file",
    ),
]
