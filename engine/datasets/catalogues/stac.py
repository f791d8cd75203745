"""STAC: a static collection, and an item for each label map, beside which the maps may stay.

    collection.json    items/ID.json

Where there are more items than one document should link to, catalogues stand between:

    collection.json    part-00000/catalog.json    part-00000/ID.json, 1000 in each part
"""

import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import rasterio

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import SourceError
from alps.engine.datasets.draft import Done, Draft
from alps.engine.datasets.images import LabelledImage, LabelledRun
from alps.engine.datasets.settings import LOCAL_FILES, ExportSettings
from alps.engine.images.dates import date_of
from alps.engine.images.gdal import GDAL_OPTIONS, open_dataset
from alps.engine.images.georeference import Georeference
from alps.engine.run_folder.painted import PaintedLine, last_lines
from alps.engine.run_folder.run_record import PREDICT
from alps.engine.stac.label_item import (
    ASSET,
    CLASSIFICATION,
    EVER,
    GEOJSON,
    JSON,
    ROLES,
    VERSION,
    Labelled,
    MapFile,
    bounds_joined,
    classes_of,
    id_of,
    item_of,
    label_values,
)

COLLECTION = "collection.json"
PART_LINKS = 1000  # items that one document links to
ENTRIES = ".entries"  # a line an item; what the collection says is made of them
WORLD = (-180.0, -90.0, 180.0, 90.0)
TIFF_NAMES = (".tif", ".tiff")


class StacFormat:
    """Writes an item for each label map; hrefs lead from DIR to the run's own files."""

    def __init__(self, run: LabelledRun, draft: Draft, settings: ExportSettings) -> None:
        self._run, self._draft = run, draft
        self._values = label_values((c.value, c.name, c.hex[1:]) for c in run.categories.items)
        self._painted = _Painted(run)
        self._prefix = None if settings.url == LOCAL_FILES else settings.url
        started = str(run.run.get("started", ""))[:4]
        self._latest = int(started) if started.isdigit() else datetime.now().year + 1
        self._has_parts = len(run) > PART_LINKS

    def add(self, image: LabelledImage, number: int) -> int:
        """An image's item; it has one label map."""
        path = self._run.folder.label(image.label)
        file, place = self._file(path, image, number)
        line = self._painted.line_of(image.index)
        labelled = Labelled(
            file, place, image.name, self._run.said(image), self._date(image), _counts(line)
        )
        name, catalogue = self._names(image.label, number)
        links = [
            _link("root", name, COLLECTION),
            _link("parent", name, catalogue),
            _link("collection", name, COLLECTION),
        ]
        item = item_of(labelled, self._values, self._about(), links)
        item["collection"] = self._id
        write_text(self._draft.path(name), _text(item))
        times = item["properties"]
        entry = {
            "name": name,
            "id": item["id"],
            "bbox": item.get("bbox"),
            "begin": times.get("start_datetime") or times["datetime"],
            "end": times.get("end_datetime") or times["datetime"],
        }
        self._draft.stream(ENTRIES).add(json.dumps(entry))
        return 1

    def finish(self, done: Done) -> None:
        """The collection, and catalogues between it and the items where these are many."""
        self._draft.stream(ENTRIES).sync()
        kind, begin, end, bbox = "child" if self._has_parts else "item", "", "", None
        links, waiting, part = [_link("root", COLLECTION, COLLECTION)], list[dict](), 0
        for entry in self._entries():
            bbox = bounds_joined(bbox, entry["bbox"])
            if entry["begin"] != EVER[0]:
                begin = min(filter(None, (begin, entry["begin"])))
                end = max(end, entry["end"])
            if kind == "item":
                links.append(_item_link(COLLECTION, entry))
                continue
            waiting.append(entry)
            if len(waiting) == PART_LINKS:
                links.append(self._write_part(part, waiting))
                waiting, part = [], part + 1
        if waiting:
            links.append(self._write_part(part, waiting))
        content = {
            "type": "Collection",
            "stac_version": VERSION,
            "stac_extensions": [CLASSIFICATION],
            "id": self._id,
            "title": "Label maps",
            "description": self._about(),
            "license": "other",
            "keywords": ["labels", "segmentation"],
            "extent": {
                "spatial": {"bbox": [list(bbox or WORLD)]},
                "temporal": {"interval": [[begin or EVER[0], end or EVER[1]]]},
            },
            "item_assets": {
                ASSET: {
                    "title": "Label map",
                    "roles": ROLES,
                    "classification:classes": classes_of(
                        self._values, self._run.categories.unlabelled
                    ),
                }
            },
            "links": links,
        }
        write_text(self._draft.path(COLLECTION), _text(content))

    @property
    def _id(self) -> str:
        return f"alps-{self._run.run.get('config_hash', 'labels')}"

    def _about(self) -> str:
        """How the labels came to be."""
        model = self._run.run.get("model", {}).get("name", "a model")
        if self._run.run.get("kind") == PREDICT:
            return f"Label maps, predicted by {model} with ALPS."
        return (
            f"Label maps without human annotation: masks of SAM ({model}), clustered over the "
            "archive and painted by ALPS."
        )

    def _names(self, label: str, number: int) -> tuple[str, str]:
        """Where the item of a label map goes, and the document that links to it."""
        catalogue = _part_name(number) if self._has_parts else COLLECTION
        folder = PurePosixPath(catalogue).parent.name or "items"
        return f"{folder}/{id_of(label)}.json", catalogue

    def _file(self, path: Path, image: LabelledImage, number: int) -> tuple[MapFile, Georeference]:
        try:
            with rasterio.Env(**GDAL_OPTIONS), open_dataset(path) as file:
                size, dtype, place = (
                    (file.width, file.height),
                    file.dtypes[0],
                    Georeference.of(file),
                )
        except SourceError as error:
            raise self._run.folder.damaged(path, str(error)) from error
        line = self._painted.line_of(image.index)
        sums = line.files[0] if line and line.files else None
        return (
            MapFile(
                image.label, self._href(path, image.label, number), size, dtype,
                self._run.categories.unlabelled,
                sums.bytes if sums else None, sums.sha256 if sums else "",
            ),
            place,
        )  # fmt: skip

    def _href(self, path: Path, label: str, number: int) -> str:
        if self._prefix is not None:
            return self._prefix + quote(label)
        item = self._draft.target / self._names(label, number)[0]
        return Path(os.path.relpath(path.absolute(), item.parent)).as_posix()

    def _date(self, image: LabelledImage) -> int:
        is_tiff = image.file is not None and image.suffix.lower() in TIFF_NAMES
        return date_of(image.name, image.path, self._latest, None, is_tiff)

    def _entries(self) -> Iterator[dict[str, Any]]:
        with open(self._draft.path(ENTRIES), encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def _write_part(self, part: int, entries: list[dict]) -> dict[str, str]:
        name = _part_name(part * PART_LINKS)
        links = [_link("root", name, COLLECTION), _link("parent", name, COLLECTION)]
        first, last = entries[0]["id"], entries[-1]["id"]
        content = {
            "type": "Catalog",
            "stac_version": VERSION,
            "id": f"{self._id}-{part:05d}",
            "description": f"Label maps from {first} to {last}",
            "links": links + [_item_link(name, entry) for entry in entries],
        }
        write_text(self._draft.path(name), _text(content))
        return _link("child", COLLECTION, name)


class _Painted:
    """Lines of the journal of painted sources; their order is nearly that of the plan."""

    def __init__(self, run: LabelledRun) -> None:
        self._lines = last_lines(run.folder.painted)
        self._known: dict[int, PaintedLine | None] = {}

    def line_of(self, index: int) -> PaintedLine | None:
        """That of a source; asked for in the order of the plan, and again right after."""
        for known in [one for one in self._known if one < index]:
            del self._known[known]
        while index not in self._known:
            line = next(self._lines, None)
            if line is None:
                self._known[index] = None
            elif line.source_index >= index:
                self._known[line.source_index] = line
        return self._known[index]


def _counts(line: PaintedLine | None) -> dict[int, int] | None:
    if line is None or not line.pixels:
        return None
    return {value: count for value, count in enumerate(line.pixels[:-1]) if count}


def _part_name(number: int) -> str:
    return f"part-{number // PART_LINKS:05d}/catalog.json"


def _item_link(owner: str, entry: Mapping[str, Any]) -> dict[str, str]:
    return _link("item", owner, entry["name"], GEOJSON) | {"title": entry["id"]}


def _link(rel: str, owner: str, name: str, kind: str = JSON) -> dict[str, str]:
    """A link from one document below DIR to another."""
    href = os.path.relpath(name, PurePosixPath(owner).parent)
    # As programs take it, which look for files by it: %20 would be looked for too.
    return {"rel": rel, "href": href if href.startswith("../") else f"./{href}", "type": kind}


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
