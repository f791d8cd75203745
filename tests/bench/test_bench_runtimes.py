"""What `alps bench runtimes` compares."""

import json

import pytest
from PIL import Image

from alps.bench.everything import sides
from alps.bench.everything.compare import prepared
from alps.bench.everything.options import EverythingOptions
from alps.bench.everything.runtimes import compare_runtimes, rows
from alps.engine.base.errors import SettingsError
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.kernels.base.threads import set_threads

pytestmark = pytest.mark.slow  # all that is compared is exported first


@pytest.fixture(autouse=True)
def all_threads_again():
    yield
    set_threads(None)  # a row sets its own


@pytest.fixture
def setup(tmp_path, speck):
    path = tmp_path / "scene.png"
    Image.fromarray(make_scene(4, SceneSettings(size=128)).image).save(path)
    options = EverythingOptions(model=str(speck), points_per_side=4, threads=1)
    with prepared([str(path)], options, say=lambda text: None) as setup:
        yield setup


def test_each_runtime_and_precision_that_works_here_is_a_row(setup, exported_speck, tmp_path):
    jobs = rows(setup, ["fp32", "fp16", "bf16", "int8"], exported_speck.folder)
    assert [job.label for job in jobs] == [
        "torch fp32", "onnxruntime fp32", "onnxruntime+torch fp32", "torch fp16", "torch bf16",
    ]  # fmt: skip
    assert [job.label for job in rows(setup, ["fp32"], tmp_path)] == ["torch fp32"]
    with pytest.raises(SettingsError, match="--precisions fp8: give fp32,fp16,bf16,int8"):
        compare_runtimes([], EverythingOptions(), ["fp8"])


def test_a_row_runs_its_runtime(setup, exported_speck, monkeypatch):
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    first, second, third, *_ = rows(setup, ["fp32"], exported_speck.folder)
    results = [sides.run(job) for job in (first, second, third)]
    assert all(result.tiles and result.tiles[0].prompted == 16 for result in results)
    counts = [result.tiles[0].counts for result in results]
    assert len(counts[0]) == len(counts[1]) == len(counts[2]) > 0
    assert json.dumps(results[1].to_dict())
