"""Items of STAC as catalogues of aerial images have them, made of files."""

import json
import os

import rasterio
from rasterio.warp import transform_bounds

COLOURS = ("red", "green", "blue", "nir")


def item_of(path, base, *, version="1.0.0", collection="naip", **changes):
    """The item of an image, with an href relative to the folder ``base``; changes: of its keys."""
    with rasterio.open(path) as file:
        place, count, nodata = file.profile, file.count, file.nodata
        west, south, east, north = (
            transform_bounds(file.crs, "EPSG:4326", *file.bounds) if file.crs else (0, 0, 1, 1)
        )
    corners = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    names = COLOURS[:count]
    asset = {
        "href": os.path.relpath(path, base),
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "title": "RGBIR COG tile",
    }
    properties = {
        "datetime": "2012-07-31T16:00:00Z",
        "gsd": 1.0,
        "proj:shape": [place["height"], place["width"]],
        "proj:transform": list(place["transform"])[:6],
    }
    code = place["crs"].to_epsg() if place["crs"] else None
    if version == "1.0.0":
        properties["proj:epsg"] = code
        asset["eo:bands"] = [{"name": name.title(), "common_name": name} for name in names]
        asset["raster:bands"] = [{"nodata": nodata, "data_type": place["dtype"]} for _ in names]
    else:
        properties["proj:code"] = f"EPSG:{code}" if code else None
        asset["bands"] = [
            {"name": name.title(), "eo:common_name": name, "nodata": nodata} for name in names
        ]
    thumbnail = {"href": "none.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
    item = {
        "type": "Feature",
        "stac_version": version,
        "id": path.stem,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "bbox": [west, south, east, north],
        "properties": properties,
        "links": [],
        "assets": {"thumbnail": thumbnail, "image": asset},
    }
    return item | changes


def collection_of(items, path, **more):
    """Write a collection of items, as the answer of a search is saved."""
    content = {"type": "FeatureCollection", "features": list(items), "links": [], **more}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
