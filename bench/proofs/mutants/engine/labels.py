"""Wrong changes of engine/labels: what is painted, how it is written and noted."""

from alps.bench.proofs.mutants import Mutant, changes_of

PAINT = ("tests/engine/labels/test_paint.py",)
JOURNAL = ("tests/engine/labels/test_journal.py",)
WRITER = ("tests/engine/labels/test_label_writer.py",)
ONE_PASS = "tests/engine/stages/test_one_pass.py"
PALETTE = ("tests/engine/labels/test_palette.py",)
AGREEMENT = ("tests/engine/labels/test_agreement.py",)
PATCHES = ("tests/engine/labels/test_patches.py",)
OPTION = "tests/engine/cli/test_option_effects.py::test_an_option_has_its_effect"

VERIFY = "tests/engine/stages/test_verify.py"

MUTANTS = [
    Mutant(
        "engine/labels/journal.py",
        old="        except OSError:\n            return False\n",
        new="        except OSError:\n            return True\n",
        tests=(f"{ONE_PASS}::test_a_label_map_that_was_deleted_is_made_again",),
        why="a label map that was deleted is not made again",
    ),
    Mutant(
        "engine/labels/journal.py",
        old="if line.of == self._fingerprint and self._stands(line, written):",
        new="if self._stands(line, written):",
        tests=PAINT + JOURNAL,
        why="label maps of other clusters count as done",
    ),
    Mutant(
        "engine/base/lines.py",
        old='if file.read(1) != b"\\n":',
        new="if False:",
        tests=JOURNAL,
        why="a line is joined to the torn one of a killed run",
    ),
    Mutant(
        "engine/labels/journal.py",
        old="if self.done[line.source_index][0] == number:",
        new="if self.done[line.source_index][0] != UNKNOWN:",
        tests=PAINT + JOURNAL,
        why="what was painted twice is counted twice",
    ),
    Mutant(
        "engine/base/lines.py",
        old="    file.flush()\n",
        new="",
        tests=JOURNAL,
        why="a killed run forgets what it painted",
    ),
    Mutant(
        "engine/labels/journal.py",
        old="return sizes == known[: len(sizes)]",
        new="return True",
        tests=(f"{VERIFY}::test_a_restart_makes_results_again",),
        why="a label map that was emptied counts as done",
    ),
    Mutant(
        "engine/stages/label.py",
        old="stand = _clusters_stand(folder, settings.clusters)",
        new="stand = True",
        tests=(f"{VERIFY}::test_clusters_that_are_damaged_are_fitted_again",),
        why="junk in clusters.npz counts as clustered",
    ),
    Mutant(
        "engine/stages/verify.py",
        old="if file_sha256(path) != one.sha256:",
        new="if False:",
        tests=(f"{VERIFY}::test_a_flipped_bit_is_named_removed_and_made_again",),
        why="verifying looks at sizes alone",
    ),
    Mutant(
        "engine/run_folder/sums.py",
        old="if file_sha256(path) != known.sha256:",
        new="if False:",
        tests=("tests/engine/run_folder/test_sums.py",),
        why="a flipped bit in a table is read over",
    ),
    Mutant(
        "engine/base/lines.py",
        old="if found and _digest(found[1]) != found[2].decode():",
        new="if False:",
        tests=("tests/engine/base/test_lines.py",),
        why="a flipped digit in a journal is taken as it is",
    ),
    Mutant(
        "engine/labels/writer.py",
        old="return np.dtype(np.uint8 if classes <= UNLABELLED else np.uint16)",
        new="return np.dtype(np.uint8 if classes < UNLABELLED else np.uint16)",
        tests=WRITER,
        why="255 classes take 16 bits",
    ),
    Mutant(
        "engine/labels/writer.py",
        old="            publish(self._part, self.path)\n",
        new="            self._part.replace(self.path)\n",
        tests=WRITER,
        why="a label map gets its name before its bytes are on the disk",
    ),
    Mutant(
        "engine/labels/writer.py",
        old='samples = rows.astype(rows.dtype.newbyteorder(">")).view(np.uint8)',
        new="samples = rows.view(np.uint8)",
        tests=WRITER,
        why="16-bit PNGs have their bytes swapped",
    ),
    Mutant(
        "engine/labels/palette.py",
        old="colours = _colours(FEW if classes <= FEW else None)",
        new="colours = _colours(FEW if classes <= FEW else None)[::-1][-classes:]",
        tests=PALETTE,
        why="a class changes its colour when classes are added",
    ),
    *changes_of(
        "engine/labels/paint.py",
        PAINT,
        (
            '"margin") < self._settings.min_margin]',
            '"margin") <= self._settings.min_margin]',
            "a region that is just sure enough is left out",
        ),
        (
            "with open_regions(path, (first.source_width, first.source_height)) as raster:",
            "with open_regions(path) as raster:",
            "a raster of another size is painted",
        ),
        (
            "np.where(classes < 0, -1, objects)",
            "objects",
            "objects are shown where no class is",
        ),
        (
            "with whole_tiff(path, raster.size, NOWHERE, kind, raster.place) as writer:",
            "with whole_tiff(path, raster.size, NOWHERE, kind, type(raster.place)()) as writer:",
            "object maps lie nowhere on Earth",
        ),
        (
            "kind = np.dtype(np.uint32)",
            "kind = np.dtype(np.int32)",
            "object maps are signed",
        ),
        (
            "pixels - counted.pixels.sum()",
            "-counted.pixels.sum()",
            "pixels without data are counted below nothing",
        ),
        (
            "        if self._group is None or self._group[0] != group:\n",
            "        if self._group is None:\n",
            "sources are painted with the tables of the first group",
        ),
        (
            "np.bincount(some, minlength=self._clusters + 1)[:-1]",
            "np.bincount(some, size, self._clusters + 1)[:-1].astype(int)",
            "regions are counted by their pixels",
        ),
        (
            "            start += len(size)\n",
            "",
            "later regions are counted as the first",
        ),
    ),
    Mutant(
        "engine/labels/paint.py",
        old="        if self._settings.agreement > 0:\n",
        new="        if self._settings.agreement < 0:\n",
        tests=(f"{OPTION}[paint-agreement]",),
        why="--agreement does nothing",
    ),
    Mutant(
        "engine/labels/agreement.py",
        old="has_say = (classes >= 0) & (size >= LEAST_PIXELS)",
        new="has_say = (classes >= 0) & (size > 0)",
        tests=PAINT,
        why="details have a say in what neighbours are",
    ),
    *changes_of(
        "engine/labels/agreement.py",
        AGREEMENT,
        (
            "chosen = (ratio <= 1) & (ratio <= best[a])",
            "chosen = (ratio <= best[a])",
            "neighbours agree whatever it costs",
        ),
        (
            "(ratio <= best[a]) & (ratio <= best[b])",
            "(ratio <= best[a])",
            "a patch is taken by a neighbour that it has a better one than",
        ),
        (
            "        np.minimum.at(best, a, ratio)\n",
            "        np.minimum.at(best, a, np.where(classes[a] == classes[b], np.inf, ratio))\n",
            "a patch that touches one of its class goes on",
        ),
        (
            "np.exp(-(excess + apart / 2) / FADES)",
            "np.exp(-excess / FADES)",
            "patches of unlike colour agree",
        ),
        (
            "outer[:, 1] / outer[:, 0] - usual, 0)",
            "outer[:, 1] / outer[:, 0], 0)",
            "the grain of a surface passes for a border",
        ),
        (
            "        self.inner[pairs[within, 0]] += self.outer[within]\n",
            "",
            "a border that went is forgotten",
        ),
        (
            "keeps_first[some] = second < first",
            "keeps_first[some] = second > first",
            "the dearer class stays",
        ),
        (
            "/ patches.area[mover]",
            "/ patches.area[np.where(keeps_first[some], a, b)]",
            "what a change costs is shared by the pixels that do not change",
        ),
        (
            "        weight = area[:, None]\n",
            "        weight = np.ones_like(area[:, None])\n",
            "small regions count as much as large ones",
        ),
        (
            "        classes[first] = np.where(keeps, classes[first], classes[second])\n",
            "",
            "the class of the first patch always stays",
        ),
        (
            "    return classes[into]\n",
            "    return classes\n",
            "patches that became one early lose their class",
        ),
        (
            "        free = ~np.isin(second, first)\n",
            "        free = np.ones(len(second), bool)\n",
            "a chain of equals is joined in one round",
        ),
    ),
    *changes_of(
        "engine/labels/patches.py",
        PATCHES,
        (
            "(size[patch[some]] < least) & (classes[some] >= 0)",
            "(size[patch[some]] <= least) & (classes[some] >= 0)",
            "a patch of just the minimum mapping unit is joined",
        ),
        (
            "strength = length * np.exp(-contrast / ALIKE)",
            "strength = length",
            "a patch joins the longest border, however different",
        ),
        (
            "strength = length * np.exp(-contrast / ALIKE)",
            "strength = np.exp(-contrast / ALIKE)",
            "a patch joins the faintest border, however short",
        ),
        (
            "        for here, there in ((a, b), (b, a)):\n",
            "        for here, there in ((a, b),):\n",
            "a patch joins only neighbours of a higher number",
        ),
        (
            "self._small[here] & (self._classes[there] >= 0) & (p != q)",
            "self._small[here] & (p != q)",
            "a patch joins what has no class",
        ),
        (
            "        while rounds >= SINGLE_STEPS and (",
            "        while rounds < 0 and (",
            "long chains of small patches take as many rounds",
        ),
        (
            "        if not len(goes):\n",
            "        if not len(goes) or rounds == SINGLE_STEPS:\n",
            "patches that are still small after many rounds lose their class",
        ),
        (
            "return max(math.ceil(number / area), 0)",
            "return max(round(number / area), 0)",
            "patches a little below the unit stay",
        ),
        (
            "order = np.lexsort((q, -total, p))",
            "order = np.lexsort((-total, q, p))",
            "a patch joins the lowest neighbour",
        ),
    ),
]
