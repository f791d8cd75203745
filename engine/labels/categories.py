"""Names of classes beside a GeoTIFF of labels, for the programs that open it.

    NAME.tif.aux.xml   GDAL's: category names, and a raster attribute table with colours
    NAME.qml           QGIS's: a legend of names and colours

GDAL keeps neither inside a TIFF. Both programs write into these files too (statistics, a style that
somebody made), so the journal has no checksum of them, and a style that is not ours is left alone.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

from alps.engine.base.atomic import remove, write_text
from alps.engine.base.records import BadRecordError, read_small
from alps.engine.naming.names import ShownClasses

OURS = "ALPS writes this style anew; save changes under another name"
# Columns of the attribute table: name, type and usage by GDAL's numbers (GDALRATFieldType: 0 is
# integer, 2 text; GDALRATFieldUsage: 5 is a value, 2 a name, 6 to 8 red, green and blue).
BESIDE = (".tif.aux.xml", ".qml")  # endings of these files
COLUMNS = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))


def write(label_map: Path, shown: ShownClasses | None) -> None:
    """Write what is beside a label map; None: nobody named classes, and older names go.

    Nothing is written beside a PNG, which has no place on a map.
    """
    if label_map.suffix != ".tif":
        return
    gdal, qgis = label_map.with_name(f"{label_map.name}.aux.xml"), label_map.with_suffix(".qml")
    if shown is not None:
        write_text(gdal, _text(_attributes(shown)))
    elif _holds(gdal, "<CategoryNames>"):
        remove(gdal)
    if not qgis.exists() or _holds(qgis, OURS):
        if shown is not None:
            write_text(qgis, _text(_style(shown)))
        else:
            remove(qgis)


def _holds(path: Path, words: str) -> bool:
    try:
        return words.encode() in read_small(path)
    except (OSError, BadRecordError):
        return False


def _attributes(shown: ShownClasses) -> ET.Element:
    """A PAM file as GDAL writes it, for the only band."""
    root = ET.Element("PAMDataset")
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    names = ET.SubElement(band, "CategoryNames")
    used = dict(_used(shown))
    for value in range(len(shown.values)):  # the first is of value 0, so none may be left out
        ET.SubElement(names, "Category").text = used.get(value, "")
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(COLUMNS):
        column = ET.SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", str(kind)), ("Usage", str(usage))):
            ET.SubElement(column, tag).text = text
    for index, (value, name) in enumerate(used.items()):
        row = ET.SubElement(table, "Row", index=str(index))
        for text in (str(value), name, *map(str, shown.colours[value].tolist())):
            ET.SubElement(row, "F").text = text
    return root


def _style(shown: ShownClasses) -> ET.Element:
    """A layer's style as QGIS 3 writes it, the renderer alone."""
    root = ET.Element("qgis", version="3.22", styleCategories="Symbology")
    root.append(ET.Comment(OURS))
    renderer = ET.SubElement(
        ET.SubElement(root, "pipe"),
        "rasterrenderer",
        type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor="",
    )  # fmt: skip
    palette = ET.SubElement(renderer, "colorPalette")
    for value, name in _used(shown):
        red, green, blue = shown.colours[value].tolist()
        colour = f"#{red:02x}{green:02x}{blue:02x}"
        ET.SubElement(
            palette, "paletteEntry", value=str(value), color=colour, alpha="255", label=name
        )
    return root


def _used(shown: ShownClasses) -> list[tuple[int, str]]:
    """Value and name of each class that label maps can show."""
    own = [n for n, value in enumerate(shown.values.tolist()) if value == n]
    return [(value, shown.names[value]) for value in own]


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
