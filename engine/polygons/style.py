"""How QGIS shows the polygons: a colour a class, in the table that it reads from GeoPackages."""

import datetime
import xml.etree.ElementTree as ElementTree
from xml.etree.ElementTree import Element, SubElement

import pyarrow as pa

from alps.engine.base.errors import printable

Legend = tuple[tuple[int, str, tuple[int, int, int]], ...]  # class, name, colour

GEOMETRY_COLUMN = "geom"  # as GDAL calls it in a GeoPackage
VERSION = "3.22.0"  # of QGIS, the oldest that is known to read this
MOST_LETTERS = 200  # of a name in a legend
OUTLINE = {"outline_style": "no"}


def style_table(layer: str, legend: Legend) -> pa.Table:
    """One row of ``layer_styles``, as QGIS makes it: the layer's own style."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return pa.table(
        {
            "f_table_catalog": [""],
            "f_table_schema": [""],
            "f_table_name": [layer],
            "f_geometry_column": [GEOMETRY_COLUMN],
            "styleName": ["classes"],
            "styleQML": [qml(legend)],
            "styleSLD": [""],
            "useAsDefault": pa.array([True]),
            "description": ["A colour a class"],
            "owner": [""],
            "ui": pa.array([None], pa.string()),
            "update_time": pa.array([now], pa.timestamp("ms", "UTC")),
        }
    )


def qml(legend: Legend) -> str:
    """A style of QGIS: features by the values of their column ``class``."""
    root = Element("qgis", version=VERSION, styleCategories="Symbology")
    renderer = SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr="class", forceraster="0",
        symbollevels="0", enableorderby="0",
    )  # fmt: skip
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for number, (value, name, colour) in enumerate(legend):
        SubElement(
            categories, "category", value=str(value), type="integer", symbol=str(number),
            label=shown(name), render="true",
        )  # fmt: skip
        symbol = SubElement(
            symbols, "symbol", name=str(number), type="fill", alpha="1", clip_to_extent="1",
            force_rhr="0",
        )  # fmt: skip
        fill = SubElement(
            symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
        )
        options = SubElement(fill, "Option", type="Map")
        rgba = ",".join(map(str, (*colour, 255)))
        for key, text in ({"color": rgba, "style": "solid"} | OUTLINE).items():
            SubElement(options, "Option", name=key, type="QString", value=text)
    SubElement(renderer, "rotation")
    SubElement(renderer, "sizescale")
    text = ElementTree.tostring(root, encoding="unicode")
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{text}\n"


def shown(name: str) -> str:
    """A name as a legend can show it: on one line, no longer than one, with what XML may hold."""
    text = printable(name)
    text = "".join(c if c not in "\ufffe\uffff" else "?" for c in text)
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"
