"""Wrong changes of engine/datasets: what an instance is, and what each format says of it."""

from alps.bench.proofs.mutants import changes_of

INSTANCES = ("tests/engine/datasets/test_instances.py",)
EXPORT = ("tests/engine/datasets/test_export.py",)
COCO = ("tests/engine/datasets/test_coco.py",)
FOLDERS = ("tests/engine/datasets/test_folders.py",)
TOOLS = ("tests/engine/datasets/test_annotation_tools.py",)

MUTANTS = [
    *changes_of(
        "engine/datasets/instances.py",
        INSTANCES,
        (
            "heads = first % height == 0",
            "heads = np.zeros(len(first), bool)",
            "a patch goes on from the foot of a column to the top of the next",
        ),
        (
            "heads[1:] = self.first[1:] != end[:-1]",
            "pass",
            "codes have runs of no zeros between columns that are full",
        ),
        (
            'end, first[some] + height, side="right"',
            'end, first[some] + height, side="left"',
            "pixels that touch by a corner are one patch",
        ),
    ),
    *changes_of(
        "engine/datasets/draft.py",
        EXPORT,
        (
            "self._file.truncate(size)",
            "pass",
            "what came after the last note stays, and comes twice",
        ),
        (
            "if last is not None and last.of == self.done.of and self._holds(last):",
            "if last is not None and self._holds(last):",
            "an export with other options goes on with this one's files",
        ),
        ("and self._holds(last):", "and True:", "what was noted and is lost counts as written"),
        (
            "    if not (target / ABOUT).is_file():\n",
            "    if not overwrite and not (target / ABOUT).is_file():\n",
            "--overwrite replaces a folder that is none of ours",
        ),
    ),
    *changes_of(
        "engine/datasets/images.py",
        EXPORT,
        (
            "        if len(unknown):\n",
            "        if False:\n",
            "classes that nobody counted are exported",
        ),
    ),
    *changes_of(
        "engine/datasets/images.py",
        COCO,
        (
            'return "/".join(parts[-len(PurePosixPath(source).parts) :])',
            "return source",
            "names are those of tables, in which a line break is written out",
        ),
    ),
    *changes_of(
        "engine/datasets/images.py",
        FOLDERS,
        (
            "        if now != (image.width, image.height):\n",
            "        if False:\n",
            "an image that is another one by now gets its label map",
        ),
        (
            "        if self._stems_are_unique:\n",
            "        if True:\n",
            "a.png and a.tif have one mask",
        ),
    ),
    *changes_of(
        "engine/datasets/coco.py",
        COCO,
        ("category_id=value + 1,", "category_id=value,", "categories count from 0 in annotations"),
        (
            "image_id=image.index + 1,",
            "image_id=image.index,",
            "annotations are of the image before",
        ),
    ),
    *changes_of(
        "engine/datasets/yolo.py",
        FOLDERS,
        ("WITHIN = 0.25", "WITHIN = 0.0", "points fall on the pixel before"),
        (
            'stem = _IMAGES.sub(r"images\\1_", image.stem)',
            "stem = image.stem",
            "labels of a folder called images are not found",
        ),
        ("    if letter.isprintable():\n", "    if True:\n", "YAML refuses what a name holds"),
    ),
    *changes_of(
        "engine/datasets/polygons.py",
        FOLDERS,
        ("holes.get(index, [])", "[]", "holes are filled"),
    ),
    *changes_of(
        "engine/datasets/mmseg.py",
        FOLDERS,
        (
            "writer.write_rows(y, self._numbers[strip])",
            "writer.write_rows(y, strip)",
            "masks have the label map's values, with gaps",
        ),
    ),
    *changes_of(
        "engine/datasets/labelstudio.py",
        TOOLS,
        ("words = CHANNELS * np.add", "words = np.add", "a pixel is one word, not four"),
        (
            "np.searchsorted(1 << SIZE_BITS, pieces)",
            'np.searchsorted(1 << SIZE_BITS, pieces, "right")',
            "runs of 65,536 words have no size that counts so far",
        ),
        ("quote(image.name)", "image.name", "blanks and # end an address"),
    ),
    *changes_of(
        "engine/datasets/cvat.py",
        TOOLS,
        ("[[bool(flat[0])], ", "[[False], ", "masks that begin with a pixel are turned inside out"),
        ('_NOT_XML.sub("\\ufffd", text)', "text", "a name of a file breaks the XML"),
    ),
]
