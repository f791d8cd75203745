"""Validates STAC without a network: by stac-validator, core schemas out of pystac.

The extensions' own schemas are not part of this repository. What their specifications ask for is
written down here, field by field; the tables of label 1.0.1, classification 2.0.0, projection 2.0.0
and file 2.1.0 are what it follows.
"""

import json

import pytest

from alps.engine.stac.label_item import CLASSIFICATION, FILE, LABEL, PROJECTION

TEXT, NUMBERS = {"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "number"}}
NO_OTHERS = {"additionalProperties": False}


def _of_assets(fields):
    return {"type": "object", "additionalProperties": fields}


def _fields(prefix, required=(), **known):
    """An object whose keys with a prefix are these and no others."""
    properties = {f"{prefix}:{name}": rule for name, rule in known.items()}
    names = "|".join(known)
    return {
        "type": "object",
        "required": [f"{prefix}:{name}" for name in required],
        "properties": properties,
        "patternProperties": {f"^{prefix}:(?!({names})$)": False},
    }


CLASS = {
    "type": "object",
    "required": ["value", "name"],
    "properties": {
        "value": {"type": "integer"},
        "name": {"type": "string", "pattern": "^[0-9A-Za-z_-]+$"},
        "title": {"type": "string"},
        "description": {"type": "string"},
        "color_hint": {"type": "string", "pattern": "^[0-9A-F]{6}$"},
        "nodata": {"type": "boolean"},
    },
    **NO_OTHERS,
}
CLASSES = _fields(
    "classification", classes={"type": "array", "minItems": 1, "uniqueItems": True, "items": CLASS}
)
# Of rasters: they have no properties, and classes belong to none.
LABELS = _fields(
    "label", ("properties", "description", "type", "classes"),
    properties={"type": "null"},
    type={"const": "raster"},
    description=TEXT,
    tasks={"type": "array", "items": TEXT},
    methods={"type": "array", "items": TEXT},
    classes={"type": "array", "minItems": 1, "items": {
        "type": "object", "required": ["name", "classes"],
        "properties": {"name": {"type": "null"}, "classes": {"type": "array", "items": TEXT}},
        **NO_OTHERS,
    }},
    overviews={"type": "array", "items": {
        "type": "object",
        "properties": {"counts": {"type": "array", "items": {
            "type": "object", "required": ["name", "count"],
            "properties": {"name": TEXT, "count": {"type": "integer", "minimum": 0}}, **NO_OTHERS,
        }}},
        **NO_OTHERS,
    }},
)  # fmt: skip
PLACE = _fields(
    "proj", ("code",),
    code={"type": ["string", "null"], "pattern": "^[A-Z]+:[0-9A-Za-z]+$"},
    wkt2=TEXT,
    shape={"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer"}},
    transform=NUMBERS | {"minItems": 6, "maxItems": 6},
)  # fmt: skip
SUMS = _fields(
    "file",
    size={"type": "integer", "minimum": 0},
    checksum={"type": "string", "pattern": "^1220[0-9a-f]{64}$"},
)
RULES = {
    LABEL: {"properties": {"properties": LABELS, "links": {"type": "array"}}},
    CLASSIFICATION: {"properties": {
        "properties": CLASSES, "assets": _of_assets(CLASSES), "item_assets": _of_assets(CLASSES),
    }},
    PROJECTION: {"properties": {"properties": PLACE}},
    FILE: {"properties": {"assets": _of_assets(SUMS)}},
}  # fmt: skip


def invalid(document, folder):
    """What stac-validator finds wrong in a document and all that it links to, and their number.

    folder: for the schemas.
    """
    cache = pytest.importorskip("pystac.validation.local_validator", reason="needs pystac")
    validate = pytest.importorskip("stac_validator.validate", reason="needs stac-valid")
    schemas = {**cache.get_local_schema_cache(), **RULES}
    places = {}
    for number, (address, schema) in enumerate(schemas.items()):
        path = folder / f"{number}.json"
        path.write_text(json.dumps(schema))
        places[address] = str(path)
    stac = validate.StacValidate(str(document), recursive=True, schema_map=places)
    stac.trace_recursion = True  # else it keeps what is wrong to itself, or what is right
    stac.run()
    return [one for one in stac.message if not one["valid_stac"]], len(stac.message)
