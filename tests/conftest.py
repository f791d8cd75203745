"""Fixtures shared by all tests: rasters of every kind, and the real data where it is at hand."""

import gc
import itertools
import os
import shutil
import signal
import stat
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import rasterio
from hypothesis import settings
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

# Where several processes share the tests (`make test`), PyTorch has one thread in each of them, and
# in what they start: there are no more CPUs than processes.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a GPU the CUDA kernels run in Numba's simulator, which must be asked for before numba is
# imported; nothing above does.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")

# Shells start what goes on in the background with Ctrl-C ignored, nohup with hang-ups. Tests, and
# the commands that they start, are as in a terminal.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)

# The same examples on each run, and no verdict that depends on how busy the machine is.
settings.register_profile("alps", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("alps")


@pytest.hookimpl(tryfirst=True)  # before what is marked so is left out
def pytest_collection_modifyitems(items):
    """An export takes a dozen seconds, so whatever needs one is slow; files with much come first.

    So no process is still at a long file when the others have none left.
    """
    cost = Counter()
    for item in items:
        is_dear = item.get_closest_marker("dear") is not None
        if is_dear or "exported_speck" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
        cost[item.path] += 3.0 if item.get_closest_marker("slow") else 0.2  # seconds, some
    items.sort(key=lambda item: -cost[item.path])


def pytest_collection_finish():
    """What is there by now, PyTorch and all tests, stays: Python need not look for its garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks():
    """Syncing a file only asks whether it is open.

    A small run syncs a hundred times, and waits for the disk each time; but no test cuts the power,
    and whatever else ends a process leaves what it wrote. ``disk_calls`` sees what is synced, and
    when.
    """
    with mock.patch("os.fsync", os.fstat):
        yield


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real images beside the repository, read only."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs real images in ../shared/data, which are not part of the repository")
    return folder


@dataclass(frozen=True)
class MadeRaster:
    path: Path
    pixels: np.ndarray  # (B, H, W), as stored, alpha not counted
    valid: np.ndarray  # (H, W) bool, what a reader should find


@pytest.fixture
def make_raster(tmp_path):
    """A function that writes a GeoTIFF of 60 x 40 pixels whose left 7 columns hold no data.

    missing: none (then those columns hold ordinary pixels), value, nan, alpha or mask.
    """

    def make(dtype="uint8", bands=3, missing="none", crs=None, width=60, height=40, **options):
        rng = np.random.default_rng(3)
        pixels = rng.integers(1, 120, (bands, height, width))
        if np.dtype(dtype).kind == "f":
            pixels = pixels / 7 - 5.5  # never 0, which is nodata below
        elif np.dtype(dtype).itemsize > 1:
            pixels = pixels * 90 + 1000
        pixels = pixels.astype(dtype)
        valid = np.ones((height, width), bool)
        profile = {"driver": "GTiff", "width": width, "height": height, "dtype": dtype, **options}
        if missing != "none":
            valid[:, :7] = False
        if missing == "value":
            profile["nodata"] = 0
            pixels[:, ~valid] = 0
        if missing == "nan":
            pixels[:, ~valid] = np.nan
        if crs:
            profile |= {"crs": crs, "transform": from_origin(500_000, 4_000_000, 0.5, 0.5)}
        path = tmp_path / f"{dtype}-{bands}-{missing}-{len(list(tmp_path.iterdir()))}.tif"
        alpha = missing == "alpha"
        environment = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)
        with environment, rasterio.open(path, "w", count=bands + alpha, **profile) as file:
            for band in range(bands):
                file.write(pixels[band], band + 1)
            if alpha:
                colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
                first = colours if bands == 3 else [ColorInterp.gray] * bands
                file.colorinterp = [*first, ColorInterp.alpha]
                file.write((valid * np.iinfo(dtype).max).astype(dtype), bands + 1)
            if missing == "mask":
                file.write_mask(valid)
        return MadeRaster(path, pixels, valid)

    return make


@pytest.fixture(scope="module")
def one_thread():
    """PyTorch on one thread: sums come out the same on every machine, and tests share its CPUs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def without_reports(request, monkeypatch):
    """Runs write no report, which takes small ones as long as all else.

    Except in tests that are marked to look at it.
    """
    if request.node.get_closest_marker("report") is None:
        monkeypatch.setattr("alps.engine.stages.label.build_report", lambda root: root)


@pytest.fixture
def restored_signals():
    """For a test that listens to signals: handlers are the process's, and are put back."""
    from alps.engine.base import stopping

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    stopping._now = None
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def speck(tmp_path_factory):
    """The checkpoint of a tiny random SAM that takes milliseconds a tile."""
    from speck import save_speck

    return save_speck(tmp_path_factory.mktemp("model") / "speck.safetensors")


@pytest.fixture(scope="session")
def exported_speck(speck, tmp_path_factory):
    """The ONNX graphs of that SAM as `alps export` writes them; not to be changed.

    Where several processes share the tests, one of them exports for all.
    """
    from filelock import FileLock

    from alps.engine.runtimes.artefact import open_artefact
    from alps.export.job import export_model
    from alps.export.settings import ExportSettings

    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "onnx-fp32"
    with FileLock(out.with_name("onnx-fp32.lock")):
        if out.exists():  # whole: it appears so
            return open_artefact(out)
        return export_model(speck, out, ExportSettings(verify_tiles=2), say=lambda text: None)


@pytest.fixture(scope="session")
def saved_archive(tmp_path_factory):
    """A folder of five small images in two folders, PNG, JPEG and GeoTIFF; not to be changed."""
    from small_runs import save_archive

    return save_archive(tmp_path_factory.mktemp("saved") / "archive")


@pytest.fixture
def archive(saved_archive, tmp_path):
    """A copy of it."""
    return shutil.copytree(saved_archive, tmp_path / "archive")


@pytest.fixture
def scene_sources(tmp_path):
    """Two small generated scenes, as sources."""
    from PIL import Image

    from alps.engine.demo.scenes import SceneSettings, make_scene
    from alps.engine.images.sources import find_sources

    (tmp_path / "images").mkdir()
    for seed in (1, 2):
        image = make_scene(seed, SceneSettings(size=160)).image
        Image.fromarray(image).save(tmp_path / "images" / f"{seed}.png")
    return find_sources(tmp_path / "images")


@pytest.fixture
def disk_calls(monkeypatch):
    """What is synced and renamed, in order: (what, size of a file that is synced, else None)."""
    made = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        status = os.fstat(handle)
        made.append(("fsync", None if stat.S_ISDIR(status.st_mode) else status.st_size))
        fsync(handle)

    def renamed(source, target):
        made.append(("replace", None))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    return made


@pytest.fixture
def to_gpu():
    """A function that puts a NumPy array on the GPU, or into the simulator's."""
    from numba import cuda

    return cuda.to_device


@pytest.fixture
def small_blocks(monkeypatch):
    """Fewer threads of k-means to simulate: each is one of Python's. A GPU keeps its own."""
    from numba import config

    from alps.kernels.kmeans import gpu as on_gpu

    if config.ENABLE_CUDASIM:
        sizes = {"TILE": 16, "THREADS": 32, "SHARES": 2, "PARTS": 4, "ROWS": 48}
        for name, value in sizes.items():
            monkeypatch.setattr(on_gpu, name, value)


@pytest.fixture
def stopped_after():
    """A context manager in which so many renames succeed; the next one raises KeyboardInterrupt."""
    real = os.replace

    @contextmanager
    def stopping(renames):
        left = itertools.count(renames, -1)

        def replace(source, target):
            if next(left) <= 0:
                raise KeyboardInterrupt
            real(source, target)

        with mock.patch("alps.engine.base.atomic.os.replace", replace):
            yield

    return stopping
