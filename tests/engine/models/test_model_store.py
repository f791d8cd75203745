"""Model names, where their files are, and ``alps models``."""

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from misbehaving_server import serving

from alps.engine.base.errors import FetchError, ModelError
from alps.engine.cli import models as model_commands
from alps.engine.cli.models import models
from alps.engine.models import download
from alps.engine.models import registry as model_store
from alps.engine.models.registry import (
    MODELS,
    find_model,
    model_file,
    model_folder,
)

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Stand a package with two tensors in `tiny` in for the installed one."""
    monkeypatch.setattr(model_store, "files", lambda package: tmp_path / "package")
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F16", "shape": [1000, 50], "data_offsets": [0, 100_000]},
        "b": {"dtype": "F16", "shape": [], "data_offsets": [100_000, 100_002]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "package" / "weights" / "tiny.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(100_002))
    return path


@pytest.fixture
def server():
    with serving(CONTENT) as server:
        yield server


def run(*arguments):
    return CliRunner().invoke(models, arguments, catch_exceptions=False)


# --- the registry


def test_official_entries_agree_with_the_official_names():
    sam2 = [f"sam2.1_hiera_{size}" for size in ("tiny", "small", "base_plus", "large")]
    assert list(MODELS) == ["tiny", "vit_b", "vit_l", "vit_h", *sam2]
    for name, entry in MODELS.items():
        assert entry.name == name
        if name == "tiny":
            assert entry.is_shipped
            continue
        assert entry.url.endswith("/" + entry.filename)
        if name in sam2:  # no sum of these is published
            assert (entry.filename, entry.sha256) == (f"{name}.pt", None)
            continue
        assert entry.filename.startswith(f"sam_{name}_")
        assert model_commands.SHA256.fullmatch(entry.sha256)
        # float32 values and a little for names and structure
        assert 0 < entry.size_bytes - 4 * entry.parameters < 500_000


# --- where files are


def test_the_model_folder_follows_alps_home_then_the_cache(home, monkeypatch, tmp_path):
    assert model_folder() == home / "models"
    monkeypatch.delenv("ALPS_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert model_folder() == tmp_path / "cache" / "alps" / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model_folder() == tmp_path / ".cache" / "alps" / "models"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert model_folder() == tmp_path / "Library" / "Caches" / "alps" / "models"


def test_no_home_folder_at_all(monkeypatch):
    def no_home():
        raise RuntimeError

    monkeypatch.delenv("ALPS_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ModelError, match="set ALPS_HOME"):
        model_folder()


def test_a_relative_alps_home_stays_the_same_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPS_HOME", "here")
    assert model_folder() == tmp_path / "here" / "models"


def test_tiny_is_in_the_package(shipped):
    assert find_model("tiny") == shipped


def test_tiny_that_is_missing(shipped):
    shipped.unlink()
    with pytest.raises(ModelError, match=r"tiny: .*tiny\.safetensors is missing.*install ALPS"):
        find_model("tiny")


def test_fetched_and_not_fetched(home):
    with pytest.raises(ModelError, match="run `alps models fetch vit_b`"):
        find_model("vit_b")
    path = model_file(MODELS["vit_b"])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert find_model("vit_b") == path == home / "models" / "sam_vit_b_01ec64.pth"


def test_paths(tmp_path, monkeypatch):
    own = tmp_path / "own.pth"
    own.write_bytes(b"")
    assert find_model(own) == find_model(str(own)) == own
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_model("~/own.pth") == own
    with pytest.raises(ModelError, match="a folder; name the checkpoint file in it"):
        find_model(tmp_path)


def test_a_name_means_the_model_even_beside_a_file_of_that_name(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_bytes(b"")
    assert find_model("tiny") == shipped
    assert find_model("./tiny") == Path("tiny")
    assert find_model(Path("tiny")) == Path("tiny")


def test_neither_name_nor_file():
    with pytest.raises(ModelError, match=r"Models: tiny, vit_b, .*\. Did you mean vit_b"):
        find_model("vit-b")
    with pytest.raises(ModelError) as caught:
        find_model("weights/mine.pth")
    assert "Did you mean" not in str(caught.value)


# --- alps models


def test_the_list(shipped, home):
    (home / "models").mkdir(parents=True)
    (home / "models" / "sam_vit_l_0b3195.pth").write_bytes(b"short")
    with (home / "models" / "sam_vit_b_01ec64.pth").open("wb") as file:
        file.truncate(375_042_383)  # sparse
    result = run()
    lines = {line.split()[0]: " ".join(line.split()) for line in result.output.splitlines()[:5]}
    assert result.exit_code == 0
    assert lines["NAME"] == "NAME PARAMETERS SIZE LICENCE WHERE"
    assert lines["tiny"] == f"tiny 0.1 M 100.2 kB Apache-2.0 shipped: {shipped}"
    b_path = home / "models" / "sam_vit_b_01ec64.pth"
    assert lines["vit_b"] == f"vit_b 93.7 M 375.0 MB Apache-2.0 {b_path}"
    assert lines["vit_l"].endswith("(5 bytes, not the official 1249524607; fetch verifies it)")
    assert lines["vit_h"] == "vit_h 641.1 M 2.6 GB Apache-2.0 not fetched"


@pytest.mark.parametrize(
    "content", [b"", b"no safetensors at all", bytes(100), b"\x02" + bytes(7) + b"[]"]
)
def test_a_damaged_tiny_does_not_stop_the_list(shipped, content):
    shipped.write_bytes(content)
    result = run()
    assert result.exit_code == 0
    assert "missing or damaged; install ALPS again" in result.output


def test_fetch_from_a_mirror_then_verify(server, home):
    arguments = ("fetch", "vit_b", "--url", server.url, "--sha256", SHA256.upper())
    path = home / "models" / "sam_vit_b_01ec64.pth"
    result = run(*arguments)
    assert result.exit_code == 0
    assert f"vit_b fetched; SHA-256 verified: {path}" in result.output
    assert path.read_bytes() == CONTENT
    assert find_model("vit_b") == path
    result = run(*arguments)
    assert f"vit_b is there already; SHA-256 verified: {path}" in result.output
    assert len(server.requests) == 1


def test_fetch_into_another_folder(server, tmp_path, home):
    folder = tmp_path / "elsewhere"
    result = run("fetch", "vit_l", "--url", server.url, "--sha256", SHA256, "--to", str(folder))
    path = folder / "sam_vit_l_0b3195.pth"
    assert f"Use it with --model {path}" in result.output
    assert path.read_bytes() == CONTENT
    assert not home.exists()


def test_the_official_sum_is_expected_of_a_mirror(server):
    with pytest.raises(FetchError, match="announces 7000 bytes, but the file has 375042383"):
        run("fetch", "vit_b", "--url", server.url)


def test_the_official_address_is_asked(monkeypatch, home):
    asked = []

    def fetch(url, target, sha256, *, size_bytes, policy, check):
        asked.append((url, target, sha256, size_bytes))
        raise FetchError

    monkeypatch.setattr(download, "fetch", fetch)
    for name in ("vit_b", "vit_l", "vit_h"):
        with pytest.raises(FetchError):
            run("fetch", name)
    entries = [MODELS[name] for name in ("vit_b", "vit_l", "vit_h")]
    assert asked == [(e.url, model_file(e), e.sha256, e.size_bytes) for e in entries]


def test_tiny_needs_no_fetching(shipped):
    result = run("fetch", "tiny")
    assert result.output == f"tiny comes with ALPS, nothing to fetch: {shipped}\n"
    assert run("fetch", "tiny", "--url", "http://127.0.0.1/").exit_code == 2


@pytest.mark.parametrize("arguments", [("vit_b", "--sha256", "12ab"), ("vit_x",), ()])
def test_wrong_usage(arguments):
    assert run("fetch", *arguments).exit_code == 2


def test_no_torch_is_imported():
    code = "import sys, alps.engine.cli.models; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
