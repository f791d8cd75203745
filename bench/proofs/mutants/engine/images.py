"""Wrong changes of engine/images: windows, pixels, and what is valid of them."""

from alps.bench.proofs.mutants import Mutant, changes_of

RASTER = ("tests/engine/images/test_raster.py",)
SOURCES = ("tests/engine/images/test_sources.py",)
WINDOWS = ("tests/engine/images/test_windows.py",)
WRITER = ("tests/engine/labels/test_label_writer.py",)
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
        old="if uses[label.casefold()] > 1 or label.casefold() in folders",
        new="if uses[label.casefold()] > 1",
        tests=SOURCES,
        why="a label map takes the name that another needs as a folder",
    ),
    Mutant(
        "engine/images/sources.py",
        old="    unique = sorted({_absolute(path) for path in paths})\n",
        new="    unique = sorted(_absolute(path) for path in paths)\n",
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
        old="count = -(-(size - overlap) // (tile - overlap))",
        new="count = -(-size // (tile - overlap))",
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
            "if len(rows) != height:",
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
]
