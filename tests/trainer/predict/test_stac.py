"""Predictions over STAC: by what items say, and with items of their own."""

import json

import pytest
from predicting import NAMES
from stac_items import collection_of, item_of
from stac_rules import invalid

from alps.engine.run_folder.folder import RunFolder
from alps.engine.settings import SourceSettings
from alps.trainer.predict.job import predict_archive

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports")


def labels_of(out):
    return {path.name: path.read_bytes() for path in (out / "labels").rglob("*.tif")}


def test_predictions_over_stac(scenes, tmp_path, options):
    paths = sorted(scenes.rglob("*.tif"))
    items = [item_of(path, scenes) for path in paths]
    for item in items:
        item["assets"]["image"]["eo:bands"] = [{"common_name": n} for n in ("blue", "green", "red")]
        item["assets"]["image"]["href"] = str(scenes / item["assets"]["image"]["href"])
    src = collection_of(items, tmp_path / "items.json")
    allowed = SourceSettings(allow_vrt_outside=True)
    predict_archive(src, tmp_path / "out", source=allowed, options=options)
    plain = SourceSettings(bands=(3, 2, 1))
    predict_archive(scenes, tmp_path / "plain", source=plain, options=options)
    found, there = labels_of(tmp_path / "out"), labels_of(tmp_path / "plain")
    assert found == {name: there[name] for name in found} and len(found) == len(paths) > 0
    (tmp_path / "schemas").mkdir()
    stac = RunFolder(tmp_path / "out").root / "stac"
    assert invalid(stac / "collection.json", tmp_path / "schemas") == ([], 1 + len(paths))
    item = json.loads(next((stac / "items").iterdir()).read_text())
    assert "predicted by" in item["properties"]["label:description"]
    assert set(item["properties"]["label:classes"][0]["classes"]) <= set(NAMES)
