"""Wrong changes of engine/images: windows, pixels, and what is valid of them."""

from alps.bench.proofs.mutants import Mutant, changes_of

RASTER = ("tests/engine/images/test_raster.py",)
SOURCES = ("tests/engine/images/test_sources.py",)
WINDOWS = ("tests/engine/images/test_windows.py",)
WRITER = ("tests/engine/labels/test_label_writer.py",)
VALIDITY = ("tests/engine/images/test_validity.py",)
ORIENTATION = ("tests/engine/images/test_orientation.py",)
PLACES = ("tests/engine/images/test_places.py",)
STRETCHES = ("tests/engine/images/test_stretches.py",)
PATCHES = ("tests/engine/labels/test_patches.py",)

MUTANTS = [
    Mutant(
        "engine/images/raster.py",
        old="inside = 0 <= window.x < right <= self.width and",
        new="inside = 0 <= window.x < right and",
        tests=RASTER,
        why="a window may reach beyond the right edge",
    ),
    Mutant(
        "engine/images/raster.py",
        old="valid.any(axis=0)",
        new="valid.all(axis=0)",
        tests=RASTER,
        why="one missing band of three makes a pixel invalid",
    ),
    Mutant(
        "engine/images/raster.py",
        old="valid[0] & (colours[..., 3] > 0)",
        new="valid[0]",
        tests=RASTER,
        why="transparent colours of a palette are valid",
    ),
    Mutant(
        "engine/images/raster.py",
        old="self._alpha = next((band for band in alpha if band not in self._bands), None)",
        new="self._alpha = next(iter(alpha), None)",
        tests=RASTER,
        why="alpha that was asked for as a colour masks pixels",
    ),
    Mutant(
        "engine/images/raster.py",
        old="            valid &= np.isfinite(pixels)\n",
        new="            valid &= ~np.isnan(pixels)\n",
        tests=RASTER,
        why="infinite pixels are valid",
    ),
    Mutant(
        "engine/images/facts/bands.py",
        old='BandChoice(tuple(opaque[:3]), "the first three", (Doubt(',
        new='BandChoice(tuple(opaque[-3:]), "the first three", (Doubt(',
        tests=RASTER,
        why="the last three bands instead of the first",
    ),
    Mutant(
        "engine/images/raster.py",
        old="* 255 // (2**self._bits - 1)",
        new="* 255 // 2**self._bits",
        tests=RASTER,
        why="white of a one-bit image is grey",
    ),
    Mutant(
        "engine/images/raster.py",
        old="            if valid.any(axis=1).all():\n",
        new="            if valid.any():\n",
        tests=RASTER,
        why="a band without data in the patches gets no stretch",
    ),
    Mutant(
        "engine/images/raster.py",
        old="if scene.width * scene.height > SAMPLE_WHOLE_BELOW and not has_overviews:",
        new="if False:",
        tests=RASTER,
        why="every block of a huge file is decoded for its stretch",
    ),
    Mutant(
        "engine/images/facts/bands.py",
        old="if not all(1 <= band <= count for band in bands):",
        new="if not all(1 <= band <= count + 1 for band in bands):",
        tests=RASTER,
        why="a band one beyond the last passes the check",
    ),
    Mutant(
        "engine/images/gdal.py",
        old='    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",\n',
        new="",
        tests=RASTER,
        why="a truncated JPEG gives grey pixels",
    ),
    Mutant(
        "engine/images/sources.py",
        old="if real in visited or is_run or _inside(Path(folder), exclude):",
        new="if real in visited or is_run:",
        tests=SOURCES,
        why="OUT inside SRC is searched",
    ),
    Mutant(
        "engine/images/sources.py",
        old='sorted(name for name in subfolders if not name.startswith("."))',
        new="sorted(subfolders)",
        tests=SOURCES,
        why="hidden folders are searched",
    ),
    Mutant(
        "engine/images/sources.py",
        old="if label.casefold() in twice or label.casefold() in folders:",
        new="if label.casefold() in twice:",
        tests=SOURCES,
        why="a label map takes the name that another needs as a folder",
    ),
    Mutant(
        "engine/images/sources.py",
        old="    found = set(iter_sources(src, exclude=exclude))\n",
        new="    found = list(iter_sources(src, exclude=exclude))\n",
        tests=SOURCES,
        why="a file named twice is two sources",
    ),
    Mutant(
        "engine/images/sources.py",
        old='encoding="utf-8-sig"',
        new='encoding="utf-8"',
        tests=SOURCES,
        why="a byte order mark becomes part of the first path of a list",
    ),
    Mutant(
        "engine/images/windows.py",
        old="edges.append((start + length + next_start) // 2)",
        new="edges.append((start + length + next_start) // 2 + 1)",
        tests=WINDOWS,
        why="cores' inner edges are one pixel off",
    ),
    Mutant(
        "engine/images/windows.py",
        old="else -(-(size - overlap) // (tile - overlap))",
        new="else -(-size // (tile - overlap))",
        tests=WINDOWS,
        why="a window more than is needed",
    ),
    Mutant(
        "engine/settings.py",
        old="if not 0 <= overlap < tile / 2:",
        new="if not 0 <= overlap <= tile / 2:",
        tests=WINDOWS,
        why="an overlap of half a tile passes",
    ),
    *changes_of(
        "engine/images/tiff.py",
        WRITER,
        (
            "if zlib.crc32(rows.data) != expected:",
            "if not len(rows):",
            "rows are counted, not compared, when they are read back",
        ),
        (
            "blockxsize=TILE, blockysize=TILE,",
            "blockxsize=TILE // 2, blockysize=TILE // 2,",
            "tiles are not as high as strips",
        ),
    ),
    *changes_of(
        "engine/images/georeference.py",
        WRITER,
        (
            "return cls(gcps_crs, None, tuple(gcps), reader.rpcs)",
            "return cls(reader.crs, None, tuple(gcps), reader.rpcs)",
            "control points lose their reference system",
        ),
    ),
    *changes_of(
        "engine/images/georeference.py",
        PATCHES,
        (
            "return area * metres**2",
            "return area * metres",
            "square feet are taken for a fraction of what they are",
        ),
        (
            "return area * METRES_A_DEGREE**2 * math.cos(latitude)",
            "return area * METRES_A_DEGREE**2",
            "degrees are as wide everywhere as on the equator",
        ),
    ),
    *changes_of(
        "engine/images/facts/validity.py",
        VALIDITY,
        (
            "if not above.any() or above.sum() <= MASK_VALUES:",
            "if True:",
            "infrared that is called alpha is a mask",
        ),
        (
            "counts[above].max() >= FEATHERED * counts[above].sum()",
            "False",
            "a mosaic with soft edges has no mask",
        ),
        (
            "_is_convention(value) and gap > spread * CONVENTION_APART",
            "_is_convention(value)",
            "depths of -9999 among others are no data",
        ),
        (
            'return "nodata" if _is_convention(value) else ""',
            'return ""',
            "a tile of nothing but fill is labelled",
        ),
        (
            "alone = at == 0 and value < 0 <= rest[0]",
            "alone = False and value < 0 <= rest[0]",
            "fill below zero that is no convention is data",
        ),
        (
            "value in ends and len(rest) >= MANY",
            "value in ends",
            "a mask of two values has one that is left out",
        ),
        ("return (reached > 0) & ~empty", "return empty & ~empty", "frayed edges are data"),
        ("allowed = (near | empty)", "allowed = (near | ~near | empty)", "nodata grows by a block"),
    ),
    *changes_of(
        "engine/images/facts/orientation.py",
        ORIENTATION,
        (
            "if self.code in (2, 3, 7, 8):  # stored columns",
            "if self.code in (2, 3, 6, 7):  # stored columns",
            "windows of photographs that lie on their side are others",
        ),
        (
            "(self.height, self.width) if self.code >= 5",
            "(self.height, self.width) if self.code > 5",
            "a transposed photograph keeps its size",
        ),
    ),
    *changes_of(
        "engine/images/facts/bands.py",
        PLACES,
        ("(?! edge)", "", "red edge is taken for red"),
        ("(?<!infra )", "", "near infra-red is taken for red"),
        (
            "if by_name is not None and by_name != by_meaning:",
            "if False:",
            "descriptions count for nothing",
        ),
    ),
    *changes_of(
        "engine/images/stretching.py",
        STRETCHES,
        (
            "if values.size and _is_narrow(values, black, white) and _is_noise(",
            "if False and _is_noise(",
            "noise is magnified",
        ),
        (
            "float(np.median(ratios)) > NOISE",
            "float(np.median(ratios)) > 0",
            "a narrow range of surfaces is flattened",
        ),
        (
            "return values[~is_value(values, fills.all)] if fills.all else values",
            "return values",
            "fill sets the limits that pieces share",
        ),
    ),
    *changes_of(
        "engine/images/reading.py",
        STRETCHES,
        ("place.name)", "place.suffix)", "files of other names share a stretch"),
        (
            'return f"{place.parent}/{name}"',
            "return name",
            "folders share a stretch",
        ),
        ('{header.place} {size}"', '{header.place}"', "pixels of other sizes share a stretch"),
    ),
    *changes_of(
        "engine/images/sources.py",
        PLACES,
        ("is_tiff = placed or", "is_tiff =", "a place of JPEG and PNG is lost"),
        (
            "or name.lower().endswith(BESIDE)",
            "or name.lower().endswith(HEADER)",
            "what lies beside an image is taken for one",
        ),
    ),
    *changes_of(
        "engine/images/tiff.py",
        PLACES,
        ("if place.rpcs is not None:", "if False:", "RPCs are lost"),
    ),
]
