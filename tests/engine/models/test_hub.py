"""Models of a Hugging Face hub, against a stand-in on loopback."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from hub_server import COMMIT, serving_hub
from stock_sam import SMALL

from alps.engine.base.errors import ModelError
from alps.engine.models.checkpoints import save_sam
from alps.engine.models.convert import convert_model
from alps.engine.models.hub import parse_hub_name
from alps.engine.models.load import load_model
from alps.engine.models.registry import find_model
from alps.engine.sam import ModelDefaults, Sam

TEMPLATE = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model, and the library as it is with HF_ENDPOINT and HF_HOME set."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + TEMPLATE)
        torch.manual_seed(0)
        model = Sam(replace(SMALL, relative_positions=False))
        save_sam(model, tmp_path / "a.safetensors", ModelDefaults(points_per_side=8))
        convert_model(tmp_path / "a.safetensors", tmp_path / "made")
        server.add("some/sam", tmp_path / "made")
        yield server


def test_a_model_is_fetched_once_and_works_offline(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    network, info = load_model("hf:some/sam", "cpu")
    assert (info.name, info.defaults.points_per_side) == ("hf:some/sam", 8)
    plain, of_folder = load_model(str(tmp_path / "made"), "cpu")
    assert info.sha256 == of_folder.sha256
    state = plain.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    fetched = [path for method, path, _ in hub.asked if method == "GET" and "resolve" in path]
    assert sorted(path.rpartition("/")[2] for path in fetched) == [
        "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip
    hub.asked.clear()
    assert find_model("hf:some/sam").name == COMMIT
    assert find_model(f"hf:some/sam@{COMMIT}").name == COMMIT
    assert not any(method == "GET" for method, _, _ in hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert load_model("hf:some/sam", "cpu")[1].sha256 == info.sha256
    assert not hub.asked


def test_shards_and_a_file_in_a_repository(hub, tmp_path):
    files = hub.repositories["some/sam"]
    weights = files.pop("model.safetensors")
    shard = "model-00001-of-00001.safetensors"
    index = {"weight_map": {"a": shard}}
    files |= {shard: weights, "model.safetensors.index.json": json.dumps(index).encode()}
    assert load_model("hf:some/sam", "cpu")[1].parameters > 0
    hub.repositories["some/mobile"] = {
        "deep/x.safetensors": (tmp_path / "a.safetensors").read_bytes()
    }
    assert load_model("hf:some/mobile/deep/x.safetensors", "cpu")[1].defaults.points_per_side == 8
    with pytest.raises(ModelError, match=r"no config\.json.*hf:some/mobile/deep/x\.safetensors"):
        find_model("hf:some/mobile")
    with pytest.raises(ModelError, match=r"no file y\.pth.*hf:some/mobile/deep/x\.safetensors"):
        find_model("hf:some/mobile/y.pth")


def test_gated_models_want_a_token(hub, monkeypatch):
    hub.gated.add("some/sam")
    with pytest.raises(ModelError, match=r"consent.*HF_TOKEN"):
        find_model("hf:some/sam")
    monkeypatch.setenv("HF_TOKEN", "good")
    assert find_model("hf:some/sam").name == COMMIT
    assert {token for _, path, token in hub.asked if "resolve" in path} == {None, "Bearer good"}


def test_what_the_hub_says_no_to_is_told_in_one_line(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    hub.repositories["some/bert"] = {"config.json": b'{"model_type": "bert"}'}
    hub.repositories["some/odd"] = {"config.json": b"["}
    hub.repositories["some/bare"] = {"config.json": b'{"model_type": "sam"}'}

    def refusal(name):
        with pytest.raises(ModelError) as caught:
            find_model(name)
        text = str(caught.value)
        assert ("\n" not in text and name.partition("@")[0] in text) or "config.json" in text
        return text

    assert "'bert'" in refusal("hf:some/bert")
    assert not any("safetensors" in path for _, path, _ in hub.asked)
    assert "JSON object" in refusal("hf:some/odd")
    assert "has no weights" in refusal("hf:some/bare")
    assert "no such model" in refusal("hf:some/none")
    assert "no such revision" in refusal("hf:some/sam@other")
    assert "write hf:owner/name" in refusal("hf:sam")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal("hf:some/sam")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between tries
    nowhere = "http://127.0.0.1:1"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + TEMPLATE)
    assert "cannot be asked" in refusal("hf:some/sam")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "alps-engine[hub]" in refusal("hf:some/sam")


def test_names_are_taken_apart():
    name = parse_hub_name("hf:owner/na.me-1/deep/file.pth@v1/x")
    assert (name.repository, name.file, name.revision) == ("owner/na.me-1", "deep/file.pth", "v1/x")
    assert str(name) == "hf:owner/na.me-1/deep/file.pth@v1/x"
