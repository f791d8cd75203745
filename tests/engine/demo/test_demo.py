"""The demo: scenes of its own, labelled and scored, and nothing of others overwritten."""

import numpy as np
import pytest
from PIL import Image

from alps.engine.base.errors import RunFolderError
from alps.engine.demo import run as demo
from alps.engine.demo.scenes import CLASS_NAMES
from alps.engine.run_folder.folder import RunFolder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(demo, "SCENE_SIDE", 128)
    monkeypatch.setattr(demo, "CLUSTERS", 3)


def scenes(folder):
    return [path.read_bytes() for path in sorted((folder / "images").iterdir())]


def test_seeds_share_no_scene_and_one_seed_is_the_same_again(tmp_path):
    for name, seed in (("a", 0), ("b", 4), ("again", 0)):  # one scale in four is the same
        demo.make_archive(tmp_path / name, 5, seed)
    first, second = scenes(tmp_path / "a"), scenes(tmp_path / "b")
    assert len({*first, *second}) == 10 and first == scenes(tmp_path / "again")


def test_truth_lies_beside_every_image(tmp_path):
    demo.make_archive(tmp_path, 2, 0)
    names = [sorted(p.name for p in (tmp_path / f).iterdir()) for f in ("images", "truth")]
    assert names[0] == names[1] and len(names[0]) == 2
    for name in names[0]:
        with Image.open(tmp_path / "truth" / name) as truth:
            assert truth.size == (128, 128) and np.asarray(truth).max() < len(CLASS_NAMES)


def test_it_labels_scores_and_goes_on(tmp_path, speck):
    def run():
        return demo.run_demo(tmp_path / "out", scenes=2, seed=0, model=str(speck), device="cpu")

    found = run()
    assert found.summary.sources == found.quality.images == 2
    assert found.quality.classes[0].name == CLASS_NAMES[found.quality.classes[0].value]
    folder = RunFolder(tmp_path / "out" / "run")
    assert folder.read_run()["quality"] == found.quality.as_dict()
    page = folder.root / "report" / "index.html"
    assert "Mean IoU" in page.read_text()
    assert run().quality == found.quality


def test_other_scenes_need_another_folder(tmp_path):
    demo._claim(tmp_path / "out", {"scenes": 2, "seed": 0})
    demo._claim(tmp_path / "out", {"scenes": 2, "seed": 0})
    with pytest.raises(RunFolderError, match="other scenes"):
        demo._claim(tmp_path / "out", {"scenes": 2, "seed": 1})
