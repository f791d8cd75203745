"""Files of a training that lie or are damaged: seen before anything is learnt or told from them."""

import json
import shutil
from dataclasses import replace

import pytest
import teaching
import torch
from hostile import JUNK, survives, with_others, without_keys
from teaching import CPU, QUICK, SHORT

from alps.engine.base.errors import AlpsError, ModelError, RunFolderError, SourceError
from alps.trainer.benchmarks import prepare as preparing
from alps.trainer.data import arrays
from alps.trainer.data.cache import build_cache
from alps.trainer.data.decode import DecodeRequest
from alps.trainer.data.find import find_data
from alps.trainer.data.settings import DataSettings
from alps.trainer.segmentation.config_file import refuse_huge
from alps.trainer.segmentation.evaluate import evaluate
from alps.trainer.segmentation.folder import TrainingFolder
from alps.trainer.segmentation.models import open_model, start_from
from alps.trainer.segmentation.run import _known_result, finetune
from alps.trainer.tiny.pool import PoolSettings, _items_made

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Images, and a finished training on them."""
    home = tmp_path_factory.mktemp("made")
    teaching.save_data(home / "data")
    settings = replace(SHORT, train=replace(QUICK, steps=2))
    result = finetune(home / "data", home / "out", settings, CPU)
    shutil.copytree(home / "out", home / "kept")
    return home, settings, result


@pytest.fixture
def again(made):
    """OUT as it was, and the command given once more."""
    home, settings, _ = made
    shutil.rmtree(home / "out")
    shutil.copytree(home / "kept", home / "out")
    arrays.mapped.cache_clear()
    return home / "out", lambda: finetune(home / "data", home / "out", settings, CPU)


def test_a_finished_training_is_as_it_was(again, made):
    out, command = again
    assert command() == made[2] and json.loads((out / "training.json").read_text())["sum"]


@pytest.mark.parametrize("junk", JUNK)
def test_a_record_that_is_none_is_named(again, junk):
    out, command = again
    (out / "training.json").write_bytes(JUNK[junk])
    with pytest.raises(RunFolderError, match=r"cannot read .*training\.json: .*; put back a copy"):
        command()


def test_no_flipped_bit_of_a_record_tells_another_result(again, made):
    folder = TrainingFolder(again[0])
    path = folder.run_json
    whole = path.read_bytes()
    for at in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 7
        path.write_bytes(changed)
        assert not survives(lambda: _known_result(folder), path) or (
            _known_result(folder) == made[2]
        )


def test_a_record_without_checksum_is_checked_all_the_same(again):
    """One of an older version, or of somebody who wants something."""
    folder = TrainingFolder(again[0])
    path = folder.run_json
    content = {k: v for k, v in json.loads(path.read_text()).items() if k != "sum"}
    result = content["result"]
    scores = [{"scores": json.loads(text)} for _, text in without_keys(result["scores"])]
    scores += [{"scores": json.loads(text)} for _, text in with_others(result["scores"])]
    changed = [json.loads(text) for _, text in [*without_keys(result), *with_others(result)]]
    for other in [*changed, *(result | values for values in scores)]:
        path.write_text(json.dumps(content | {"result": other}))
        survives(lambda: _known_result(folder), path)
    for key in ("result", "config_hash", "settings"):
        for _, text in with_others({key: content[key]}):
            path.write_text(json.dumps(content | json.loads(text)))
            survives(lambda: (_known_result(folder), folder.refuse_other({"a": 1})), folder.root)


@pytest.mark.parametrize("kind", ["pixels", "labels"])
def test_a_flipped_bit_in_the_cache_is_not_learnt_from(again, kind):
    out, command = again
    path = next((out / "cache").rglob(f"*.{kind}.npy"))
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"{path.name} is damaged: .*; remove the folder .*anew"):
        command()
    shutil.rmtree(path.parent)
    command()


def test_an_index_that_lies_is_named(tmp_path):
    data, settings = teaching.save_data(tmp_path / "data", ("a1", "c1")), DataSettings(test="c*")
    request = DecodeRequest(find_data(data, settings), settings, 32)

    def decoded():
        return build_cache(request, tmp_path / "cache")

    path = decoded().root / "index.json"
    records = json.loads(path.read_text())
    for content in JUNK.values():
        path.write_bytes(content)
        assert not survives(decoded, path)
    for _, text in [*without_keys(records[0]["pair"]), *with_others(records[0]["pair"])]:
        path.write_text(json.dumps([{"pair": json.loads(text), "problems": []}, *records[1:]]))
        survives(decoded, path.parent)
    stem = records[0] | {"pair": records[0]["pair"] | {"stem": "../../../etc/passwd"}}
    path.write_text(json.dumps([stem]))
    with pytest.raises(SourceError, match=r"index\.json: .*stem"):
        decoded()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_model_that_changed_is_not_measured_nor_begun_with(again, made, name):
    out, _ = again
    path = out / "model" / name
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    for use in (
        lambda: evaluate(made[0] / "data", out, made[1], device="cpu"),
        lambda: open_model(out / "model"),
        lambda: start_from(str(out), None, ("a", "b"), 0, keep="encoder"),
    ):
        with pytest.raises(ModelError, match=rf"model/{name} is damaged: .*give the command"):
            use()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"num_labels": 10**9}, "num_labels is 1000000000, at most 65535"),
        ({"id2label": {str(n): "x" for n in range(70_000)}}, "id2label names no classes"),
        ({"depths": [10**6, 2, 2, 2]}, "depths is 1000000, at most 512"),
        ({"num_encoder_blocks": 10**5}, "num_encoder_blocks is 100000"),
        ({"hidden_sizes": [2**40] * 4}, "hidden_sizes is"),
        ({"backbone_config": {"a": [{"depths": [9999]}]}}, "depths is 9999"),
        ({"hidden_sizes": [2**20] * 4}, "of a network of [0-9]{10,} parameters"),
        ({"hidden_sizes": "wide"}, "cannot use the checkpoint"),
    ],
)
def test_a_config_of_no_network_is_refused(again, changes, why):
    out, _ = again
    shutil.move(out / "model", out / "other")
    path = out / "other" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=why) as caught:
        open_model(out / "other")
    assert "\n" not in str(caught.value)


def test_a_config_that_is_none_is_refused(tmp_path):
    path = tmp_path / "config.json"
    refuse_huge(path)  # a name on the hub has none here
    for content in JUNK.values():
        path.write_bytes(content)
        survives(lambda: refuse_huge(path), path)


def test_a_description_of_labels_that_lies_is_named(tmp_path):
    teaching.save_data(tmp_path)
    path = tmp_path / "dataset.json"
    content = {"classes": ["a", "b"], "palette": [[1, 2, 3], [4, 5, 6]], "ignore": [255]}
    content |= {"threshold": 3.5, "nodata": True, "values": [0, 1], "left_out": ["a"]}
    for junk in JUNK.values():
        path.write_bytes(junk)
        assert not survives(lambda: find_data(tmp_path, DataSettings()), path)
    for _, text in [*without_keys(content), *with_others(content)]:
        path.write_bytes(text)
        try:
            find_data(tmp_path, DataSettings())
        except AlpsError as error:
            assert "\n" not in str(error)


def test_a_note_of_crops_that_lies_is_named(tmp_path):
    benchmark = preparing.BENCHMARKS["loveda"]
    path = tmp_path / "prepared.json"
    preparing._open_out(tmp_path, benchmark)
    for junk in JUNK.values():
        path.write_bytes(junk)
        with pytest.raises(RunFolderError, match=r"prepared\.json"):
            preparing._open_out(tmp_path, benchmark)


def test_damaged_lines_of_finished_crops_are_cut_again(tmp_path):
    journal = tmp_path / "prepared.jsonl"
    good = {"image": "train/a", "split": "train", "crops": 3}
    lines = [json.dumps(good), *map(json.dumps, ([], {"image": 3}, good | {"crops": -1}))]
    journal.write_bytes(b"\n".join([*JUNK.values(), *(line.encode() for line in lines)]))
    assert list(preparing._finished(journal)) == ["train/a"]


def test_a_pool_that_lies_is_named(tmp_path):
    path = tmp_path / "made.json"
    for content in [*JUNK.values(), b'{"items": -1, "settings": {}}', b'{"items": 3}']:
        path.write_bytes(content)
        assert not survives(lambda: _items_made(path, PoolSettings()), path)


def test_weights_are_only_ever_tensors(again):
    """A checkpoint that would run code is refused, as a damaged one is."""
    out, command = again
    record = out / "training.json"
    content = {k: v for k, v in json.loads(record.read_text()).items() if k != "sum"}
    del content["result"]
    record.write_text(json.dumps(content))
    torch.save({"step": 1, "model": print}, out / "checkpoint.pt")
    assert not survives(command, out / "checkpoint.pt")
