"""Wrong changes of engine/stac and of what catalogues say: items in, items out."""

from alps.bench.proofs.mutants import changes_of

SPLIT = ("tests/engine/stac/test_split.py",)
ITEMS = ("tests/engine/stac/test_items.py",)
ARCHIVE = ("tests/engine/stac/test_archive.py",)
FOOTPRINT = ("tests/engine/stac/test_footprint.py",)
RUN = ("tests/engine/stages/test_stac.py",)
OUT = ("tests/engine/datasets/test_stac.py",)

MUTANTS = [
    *changes_of(
        "engine/stac/split.py",
        SPLIT,
        (
            "            if text == b'\"':  # its end is not there yet\n",
            "            if not text:\n",
            "a text that goes on in the next piece of the file ends here",
        ),
        (
            'text == b"[" and self._key == _FEATURES',
            'text == b"[" and _FEATURES',
            "any list is taken for the features",
        ),
        ("            self._refuse_large()\n", "", "an item may fill the memory"),
    ),
    *changes_of(
        "engine/stac/hrefs.py",
        ITEMS,
        ("    access.check(document, Reference(name))\n", "", "hrefs may lead anywhere"),
        (
            "is_relative_to(os.path.realpath(root))",
            'is_relative_to("/")',
            "documents are read all over the machine",
        ),
    ),
    *changes_of(
        "engine/stac/assets.py",
        ITEMS,
        ("if len(fitting) == 1:", "if fitting:", "one of several assets is taken by chance"),
        (
            '        ("role visual", [',
            '        ("role visual", [] and [',
            "an image for looking at is never taken",
        ),
    ),
    *changes_of(
        "engine/stac/said.py",
        ITEMS,
        (
            "if not _AUTHORITY.fullmatch(code):",
            "if not code:",
            "a file or an address is handed on as a CRS",
        ),
        ("else when.astimezone(UTC)", "else when", "a time keeps its zone, and has another day"),
        (
            "(bottom - top) / height, top)",
            "(top - bottom) / height, top)",
            "an image with a bbox is upside down",
        ),
    ),
    *changes_of(
        "engine/stac/item.py",
        ITEMS,
        (
            "item.assets[key].get(name, item.properties.get(name))",
            "item.properties.get(name, item.assets[key].get(name))",
            "what all assets have outranks the asset's own",
        ),
        ("list(line[0]) != list(line[-1])", "False", "an open ring is a geometry"),
    ),
    *changes_of(
        "engine/stac/documents.py",
        ARCHIVE,
        ("        if real in seen:", "        if False:", "catalogues in a circle never end"),
        (
            '            if path == first:\n                raise\n',
            "            raise\n",
            "a document that is gone ends the run",
        ),
    ),
    *changes_of(
        "engine/stac/archive.py",
        ARCHIVE,
        (
            "if (first.collection, first.id) == (said.collection, said.id):",
            "if False:",
            "an item that comes twice is wrong",
        ),
        (
            "name, number = _told_apart(",
            "return\n            name, number = _told_apart(",
            "of two items of one name one is lost",
        ),
    ),
    *changes_of(
        "engine/images/facts/said.py",
        ARCHIVE,
        (
            "low, high = (low, middle) if paths[middle].as_py() >= text else (middle + 1, high)",
            "low, high = (low, middle) if paths[middle].as_py() > text else (middle + 1, high)",
            "the image after it is found",
        ),
        (
            "number = self._group_of(text)",
            "number = min(self._group_of(text), 0)",
            "only the first row group is looked into",
        ),
    ),
    *changes_of(
        "engine/images/raster.py",
        RUN,
        (
            "        self._said.refuse_size(self.path, dataset.width, dataset.height)\n",
            "",
            "a file of another size than its item says is labelled",
        ),
        (
            "valid[index] &= ~is_value(pixels[index], [empty])",
            "pass",
            "nodata that the item alone knows is labelled",
        ),
        (
            "            transform = rasterio.Affine(*self._said.transform)\n",
            "            pass\n",
            "a place that the item alone knows is lost",
        ),
    ),
    *changes_of(
        "engine/images/facts/bands.py",
        RUN,
        (
            "    if by_name is None and len(said) <= dataset.count:",
            "    if False:",
            "bands that the item alone names are not believed",
        ),
    ),
    *changes_of(
        "engine/run_folder/items.py",
        RUN,
        (
            "    refuse_damaged(folder.items)\n",
            "",
            "a damaged table of what items said is read",
        ),
    ),
    *changes_of(
        "engine/stac/footprint.py",
        FOOTPRINT,
        ("    if area < 0:\n        points.reverse()\n", "", "outlines run clockwise"),
        ("        ring = _to_pole(ring, turns * TURN)\n", "        pass\n", "a pole lies outside"),
        (
            "pieces.append(_rounded(_clipped(ring, HALF, HALF + TURN), TURN))",
            "pass",
            "what lies beyond 180 degrees is cut off",
        ),
        (
            "bbox = (min(x for x, _ in rings[0]), south, max(x for x, _ in rings[1]), north)",
            "bbox = (-180.0, south, 180.0, north)",
            "an image across 180 degrees is around the Earth",
        ),
    ),
    *changes_of(
        "engine/stac/label_item.py",
        (*FOOTPRINT, *OUT),
        ('    if "--" in stem or ', "    if ", "two label maps have one id"),
        ('"color_hint": v.colour.upper()', '"color_hint": v.colour', "colours are as nobody reads"),
        ("SHA256 + file.sha256", "file.sha256", "a checksum does not say of which kind it is"),
        (
            "own = [v for v in values if counts is None or counts.get(v.value)]",
            "own = list(values)",
            "an item lists classes that its map has not",
        ),
    ),
    *changes_of(
        "engine/datasets/catalogues/kept.py",
        OUT,
        (
            "    if run.get(MARK) == now and target.is_dir():",
            "    if target.is_dir():",
            "items keep names that classes have no more",
        ),
    ),
]  # fmt: skip
