"""Runtimes: one protocol and one set of tests for all, what they refuse, and which is chosen."""

import json
import shutil
import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import alps.engine.runtimes.choose as choose_module
from alps.engine.base.errors import ArtefactError, RunFolderError, SettingsError
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.checkpoints import load_sam
from alps.engine.models.registry import artefact_folder
from alps.engine.runtimes.artefact import DECODER, ENCODER, open_artefact
from alps.engine.runtimes.batching import capacity_of, fit_capacity, in_batches
from alps.engine.runtimes.choose import Model, choose, open_runtime
from alps.engine.runtimes.onnxruntime import (
    OnnxRuntime,
    check_provider,
    onnxruntime_module,
    providers_for,
)
from alps.engine.runtimes.protocol import Capacity, Runtime, TwoRuntimes
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.runtimes.tensorrt import TensorRTRuntime, check_engines
from alps.engine.sam import SamConfig
from alps.engine.settings import ClusterSettings, RunSettings, SegmentSettings


@pytest.fixture(scope="module")
def model(speck):
    return load_sam(speck)


@pytest.fixture
def streams(monkeypatch):
    """PyTorch's streams where there is no GPU; what waits for what, in order."""
    happened = []

    class Stream:
        def __init__(self, device=None, number=7):
            self.device, self.cuda_stream = torch.device("cuda:1"), number

        def wait_stream(self, other):
            happened.append(f"{self.cuda_stream} waits for {other.cuda_stream}")

    monkeypatch.setattr("torch.cuda.Stream", Stream)
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: Stream(number=0))
    monkeypatch.setattr("torch.cuda.device", lambda device: nullcontext())
    monkeypatch.setattr(
        "torch.Tensor.record_stream", lambda self, stream: happened.append("recorded")
    )
    return happened


class StandInContext:
    """A TensorRT context as far as it is used, with ONNX Runtime doing the work."""

    def __init__(self, path, most):
        ort = onnxruntime_module()
        self.session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.most, self.shapes, self.addresses = most, {}, {}
        self.refuses, self.memory, self.runs = "", None, 0

    def set_device_memory(self, memory, size):
        self.memory = memory, size

    def set_input_shape(self, name, shape):
        assert self.most is None or "points" not in name or shape[0] <= self.most
        self.shapes[name] = shape
        return self.refuses != "shape"

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return self.refuses != "address"

    def execute_async_v3(self, stream):
        assert stream == 7  # not the default one
        self.runs += 1
        binding = self.session.io_binding()
        for port in self.session.get_inputs():
            shape = self.shapes[port.name]
            binding.bind_input(port.name, "cpu", 0, np.float32, shape, self.addresses[port.name])
        count = next((shape[0] for shape in self.shapes.values()), 1)
        for name in ("points", "image_tokens", "pixels"):
            count = self.shapes.get(name, [count])[0]
        for port in self.session.get_outputs():
            shape = [axis if isinstance(axis, int) else count for axis in port.shape]
            binding.bind_output(port.name, "cpu", 0, np.float32, shape, self.addresses[port.name])
        self.session.run_with_iobinding(binding)
        return self.refuses != "run"


class StandInTensorRT:
    """The module; an engine's file is the graph, and each wants more memory than the last."""

    __name__, __version__ = "tensorrt", "11.4"
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")

    def __init__(self, folder, most):
        self.folder, self.most, self.wanted, self.contexts = folder, most, [], {}
        self.opens, self.prepares = True, True

    def Logger(self, severity):
        return severity

    Logger.ERROR = "error"

    def Runtime(self, logger):
        return SimpleNamespace(deserialize_cuda_engine=self._engine)

    def _engine(self, plan):
        path = next(p for p in self.folder.glob("*.onnx") if p.read_bytes() == plan)
        self.wanted.append(1000 * (len(self.wanted) + 1))

        def context(strategy):
            assert strategy == "user managed"
            self.contexts[path.stem] = StandInContext(path, self.most)
            return self.contexts[path.stem] if self.prepares else None

        engine = SimpleNamespace(
            device_memory_size_v2=self.wanted[-1], create_execution_context=context
        )
        return engine if self.opens else None


def engines(artefact, monkeypatch, most=3, module=None):
    """A runtime of engines, whose builder, GPU and driver are stand-ins."""
    module = module or StandInTensorRT(artefact.folder, most)
    monkeypatch.setattr("alps.engine.runtimes.tensorrt.tensorrt_module", lambda name: module)
    monkeypatch.setattr("alps.engine.runtimes.tensorrt.gpu_capability", lambda device: "9.0")
    graphs = {}
    for part, stored in artefact.manifest.graphs.items():
        axes = {p.shape[0] for p in stored.inputs if isinstance(p.shape[0], str)}
        graphs[part] = replace(stored, at_most=dict.fromkeys(axes, most))
    made = replace(
        artefact.manifest,
        kind="tensorrt",
        builder="tensorrt",
        compute_capability="9.0",
        versions={"tensorrt": "11.4"},
        graphs=graphs,
    )
    return TensorRTRuntime(replace(artefact, manifest=made), "cpu")


RUNTIMES = ("torch plain", "torch absorbed", "torch", "onnxruntime", "two", "tensorrt stand-in")


@pytest.fixture(params=RUNTIMES)
def runtime(request, model, exported_speck, monkeypatch, streams):
    sam, info = model
    if request.param.startswith("torch"):
        return TorchRuntime(sam, decoder=request.param.partition(" ")[2] or "auto")
    if request.param == "onnxruntime":
        return OnnxRuntime(exported_speck)
    if request.param == "two":
        found = open_runtime(Model(sam, info, "fp32", exported_speck.folder), "onnxruntime+torch")
        assert isinstance(found, TwoRuntimes) and set(found.encoder.graphs) == set(ENCODER)
        return found
    return engines(exported_speck, monkeypatch)


@pytest.fixture(scope="module")
def truth(model):
    """Embeddings of three images and points, by the network as it was trained."""
    sam, _ = model
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(3, 3, 128, 128, generator=generator)
    points = torch.rand(11, 2, generator=generator) * 128
    plain = TorchRuntime(sam, decoder="plain")
    return SimpleNamespace(pixels=pixels, points=points, plain=plain, at=plain.encode(pixels))


def all_masks(runtime, embedding, points, threshold=0.0, at_once=64):
    parts = list(runtime.decode(embedding, points, threshold, at_once))
    return [
        torch.cat([getattr(part, name) for part in parts])
        for name in ("logits", "predicted_iou", "point_index")
    ]


def close(found, expected, relative=2e-4):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert (found - expected).abs().max() < relative * expected.abs().max()


def test_it_is_a_runtime(runtime):
    assert isinstance(runtime, Runtime) and runtime.capacity.images == 1
    assert runtime.config.image_size == 128


def test_embeddings_of_any_number_of_images(runtime, truth):
    for count in (1, 3):
        close(runtime.encode(truth.pixels[:count]), truth.at[:count])


def test_masks_scores_and_points(runtime, truth):
    expected = all_masks(truth.plain, truth.at[0], truth.points)
    found = all_masks(runtime, truth.at[0], truth.points)
    for mine, theirs in zip(found[:2], expected[:2], strict=True):
        close(mine, theirs, 2e-3)
    assert torch.equal(found[2], expected[2]) and found[2].dtype == torch.int64


def test_only_masks_past_the_threshold_are_returned(runtime, truth):
    everything = all_masks(truth.plain, truth.at[1], truth.points)
    ordered = everything[1].sort().values
    gap = (ordered[1:] - ordered[:-1])[5:-5].argmax() + 5
    threshold = float((ordered[gap] + ordered[gap + 1]) / 2)
    passed = everything[1] > threshold
    found = all_masks(runtime, truth.at[1], truth.points, threshold)
    assert 0 < len(found[0]) < len(passed)
    assert torch.equal(found[2], everything[2][passed])
    close(found[0], everything[0][passed], 2e-3)


def test_batches_of_points_change_nothing(runtime, truth):
    whole = all_masks(runtime, truth.at[2], truth.points)
    parts = list(runtime.decode(truth.at[2], truth.points, 0.0, 4))
    assert [len(part.point_index) for part in parts] == [12, 12, 9]
    for index, name in enumerate(("logits", "predicted_iou", "point_index")):
        joined = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(joined, whole[index], rtol=1e-3, atol=1e-3)


def test_none_may_pass(runtime, truth):
    logits, iou, index = all_masks(runtime, truth.at[0], truth.points, 1e9)
    assert logits.shape == (0, 32, 32) and iou.shape == index.shape == (0,)


def test_everything_mode_finds_the_same_masks(runtime, model):
    image = make_scene(1, SceneSettings(size=128)).image
    settings = {
        "points_per_side": 6,
        "pred_iou_thresh": 0.0,
        "stability_score_thresh": 0.0,
        "box_nms_thresh": 0.95,
    }
    expected = MaskGenerator(model[0], **settings).segment(image)
    found = MaskGenerator(runtime, **settings).segment(image)
    assert len(found) == len(expected) > 3
    np.testing.assert_allclose(found.area, expected.area, atol=5)


# --- what exports refuse


def changed_copy(artefact, folder, **values):
    """An artefact with another manifest."""
    shutil.copytree(artefact.folder, folder)
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def test_files_that_changed_are_refused(exported_speck, tmp_path):
    artefact = open_artefact(changed_copy(exported_speck, tmp_path / "a"))
    with (tmp_path / "a" / "share.onnx").open("r+b") as file:
        file.seek(200)
        file.write(b"x")
    OnnxRuntime(artefact, parts=("encoder",))  # is as it was
    with pytest.raises(ArtefactError, match=r"share\.onnx: changed or cut short.*alps export"):
        OnnxRuntime(artefact)
    (tmp_path / "a" / "masks.onnx").unlink()
    with pytest.raises(ArtefactError, match=r"masks\.onnx: cannot be read"):
        OnnxRuntime(artefact, parts=("masks",))


VOUCHED = {"name": "encoder.onnx", "bytes": 3, "sha256": "0" * 64}
PORT = {"name": "x", "dtype": "float32", "shape": ["B", 3]}
GRAPH = {"file": "encoder.onnx", "inputs": [PORT], "outputs": [PORT], "at_most": {}}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"files": []}, "vouches for no file encoder.onnx"),
        ({"files": [VOUCHED]}, r"vouches for no file share\.onnx"),
        ({"files": "all"}, r"at \$\.files"),
        ({"files": [VOUCHED | {"bytes": -1}]}, r"at \$\.files\[0\]\.bytes"),
        ({"files": [VOUCHED | {"sha256": "none"}]}, r"at \$\.files\[0\]\.sha256"),
        ({"files": [VOUCHED | {"name": "../weights"}]}, "vouches for no file ../weights"),
        ({"graphs": {"encoder": GRAPH | {"file": "/etc/passwd"}}}, "no file /etc/passwd"),
        ({"graphs": {"encoder": GRAPH | {"inputs": [PORT | {"dtype": "load"}]}}}, "dtype"),
        ({"graphs": {"encoder": GRAPH | {"inputs": [PORT | {"shape": [-1]}]}}}, "shape"),
        ({"graphs": {"encoder": GRAPH | {"at_most": {"B": 0}}}}, "at_most"),
        ({"graphs": []}, r"at \$\.graphs"),
        ({"config": {"image_size": "large"}}, r"at \$\.image_size"),
        ({"config": {"moons": 3}}, "moons"),
        ({"pixel_std": [1, 2]}, "pixel_std has no value"),
        ({"pixel_std": [1, 2, 0]}, "pixel_std is not above 0"),
        ({"opset": "20"}, r"at \$\.opset"),
    ],
)
def test_a_manifest_that_lies_is_refused(exported_speck, tmp_path, values, why):
    folder = changed_copy(exported_speck, tmp_path / "a", **values)
    with pytest.raises(ArtefactError, match=rf"manifest\.json: not written .*{why}") as caught:
        open_artefact(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 9000, '{"format": NaN}', "\xff"])
def test_a_manifest_that_is_none_is_refused(exported_speck, tmp_path, text):
    folder = changed_copy(exported_speck, tmp_path / "a")
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtefactError, match=r"manifest\.json: not written by this version"):
        open_artefact(folder)


def test_dimensions_other_than_the_models_are_refused(exported_speck, tmp_path, model):
    config = dict(exported_speck.manifest.config) | {"image_size": 1 << 19}
    folder = changed_copy(exported_speck, tmp_path / "a", config=config)
    with pytest.raises(ArtefactError, match="other dimensions than speck has"):
        open_artefact(folder, model[1])


def test_weights_that_nobody_vouches_for_are_refused(exported_speck, tmp_path):
    folder = changed_copy(exported_speck, tmp_path / "a")
    (folder / "share.onnx.data").write_bytes(b"others")
    with pytest.raises(ArtefactError, match=r"share\.onnx\.data: the manifest does not vouch"):
        OnnxRuntime(open_artefact(folder))


def test_another_model_version_or_kind_is_refused(exported_speck, tmp_path, model):
    _, info = model
    other = changed_copy(exported_speck, tmp_path / "other", sha256="0" * 64)
    with pytest.raises(ArtefactError, match="rebuild it: alps export speck"):
        open_artefact(other, info)
    old = changed_copy(exported_speck, tmp_path / "old", format=0)
    with pytest.raises(ArtefactError, match="of format 0, this version reads 1; rebuild it"):
        open_artefact(old, info)
    newer = changed_copy(exported_speck, tmp_path / "newer", colour="red")
    with pytest.raises(ArtefactError, match="not written by this version"):
        open_artefact(newer, info)
    with pytest.raises(ArtefactError, match="no exported model"):
        open_artefact(tmp_path, info)
    with pytest.raises(ArtefactError, match=r"holds ONNX graphs.*--format tensorrt"):
        TensorRTRuntime(exported_speck, "cuda")


def test_stale_engines_are_refused(exported_speck):
    made = replace(
        exported_speck.manifest,
        kind="tensorrt",
        builder="tensorrt_rtx",
        compute_capability="8.6",
        versions={"tensorrt_rtx": "1.7"},
    )
    artefact = replace(exported_speck, manifest=made)
    rtx = SimpleNamespace(__name__="tensorrt_rtx", __version__="1.7")
    check_engines(artefact, rtx, "8.6")
    with pytest.raises(ArtefactError, match=r"capability 8\.6, here it is 8\.9; rebuild.*8\.9"):
        check_engines(artefact, rtx, "8.9")
    rtx.__version__ = "1.8"
    with pytest.raises(ArtefactError, match=r"tensorrt_rtx 1\.7, here it is 1\.8; rebuild"):
        check_engines(artefact, rtx, "8.6")
    with pytest.raises(ArtefactError, match="holds tensorrt engines"):
        OnnxRuntime(artefact)


def test_engines_share_memory_and_run_in_a_stream_of_their_own(
    exported_speck, monkeypatch, streams, truth
):
    module = StandInTensorRT(exported_speck.folder, 3)
    runtime = engines(exported_speck, monkeypatch, module=module)
    memory = {context.memory for context in module.contexts.values()}
    assert len(module.contexts) == 4 and [size for _, size in memory] == [4000]
    runtime.encode(truth.pixels[:1])
    assert streams == ["7 waits for 0", "0 waits for 7", "recorded", "recorded"]


@pytest.mark.parametrize(
    ("refuses", "why"),
    [
        ("shape", r"could not take pixels of shape \(1, 3, 128, 128\) into encoder\.onnx on cpu"),
        ("address", r"could not take pixels into encoder\.onnx"),
        ("run", r"could not run encoder\.onnx on cpu; build it on this machine"),
    ],
)
def test_what_tensorrt_refuses_is_not_run(
    exported_speck, monkeypatch, streams, truth, refuses, why
):
    module = StandInTensorRT(exported_speck.folder, 3)
    runtime = engines(exported_speck, monkeypatch, module=module)
    module.contexts["encoder"].refuses = refuses
    with pytest.raises(ArtefactError, match=why):
        runtime.encode(truth.pixels[:1])
    assert module.contexts["encoder"].runs == (refuses == "run")


def test_engines_that_cannot_be_opened_are_named(exported_speck, monkeypatch, streams):
    module = StandInTensorRT(exported_speck.folder, 3)
    module.prepares = False
    with pytest.raises(ArtefactError, match=r"encoder\.onnx: TensorRT cannot prepare it on cpu"):
        engines(exported_speck, monkeypatch, module=module)
    module.opens = False
    with pytest.raises(ArtefactError, match=r"encoder\.onnx: TensorRT cannot open it here"):
        engines(exported_speck, monkeypatch, module=module)


def test_missing_packages_and_providers_are_named(monkeypatch, exported_speck):
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match=r"no CUDAExecutionProvider.*\[onnx-gpu-cu13\]"):
            OnnxRuntime(exported_speck, "cuda")
    with pytest.raises(SettingsError, match="give one of cpu, cuda, tensorrt"):
        check_provider("openvino")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ArtefactError, match=r"pip install 'alps-engine\[onnx\]'"):
        OnnxRuntime(exported_speck)


class StandInOnnxRuntime:
    """ONNX Runtime with a GPU's providers; sessions are the CPU's."""

    __version__ = "1.32"

    def __init__(self, fell=()):
        self.fell, self.preloaded, self.asked = fell, False, []
        self.SessionOptions = onnxruntime_module().SessionOptions

    def get_available_providers(self):
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self):
        self.preloaded = True

    def InferenceSession(self, path, options, providers):
        assert self.preloaded and options.get_session_config_entry(
            "session.record_ep_graph_assignment_info"
        )
        self.asked.append(providers)
        nodes = [SimpleNamespace(op_type=kind) for kind in self.fell]
        parts = [
            SimpleNamespace(ep_name="CUDAExecutionProvider", get_nodes=lambda: ["all others"]),
            SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: nodes),
        ]
        return SimpleNamespace(
            get_providers=self.get_available_providers,
            get_provider_graph_assignment_info=lambda: parts,
        )


@pytest.fixture
def a_card(monkeypatch, streams):
    card = SimpleNamespace(total_memory=80 << 30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: card)


def test_the_gpus_providers_get_a_stream_bounds_and_a_cache(
    monkeypatch, tmp_path, exported_speck, a_card
):
    ort = StandInOnnxRuntime()
    monkeypatch.setattr("alps.engine.runtimes.onnxruntime.onnxruntime_module", lambda: ort)
    for provider in ("cuda", "tensorrt"):
        cache = tmp_path / "cache"
        OnnxRuntime(exported_speck, "cuda:1", provider=provider, parts=ENCODER, cache=cache)
    (cuda, _), (tensorrt, also_cuda, last) = ort.asked
    assert cuda == also_cuda and last == "CPUExecutionProvider"
    assert tensorrt[1]["trt_engine_cache_path"] == str(tmp_path / "cache")
    # 0 would be taken for no stream at all.
    assert tensorrt[1]["user_compute_stream"] == cuda[1]["user_compute_stream"] == "7"
    assert cuda[1]["device_id"] == "1" and cuda[1]["arena_extend_strategy"] == "kSameAsRequested"
    assert int(cuda[1]["gpu_mem_limit"]) == 40 << 30
    assert providers_for("cpu", None, tmp_path) == ["CPUExecutionProvider"]


def test_nodes_that_fell_to_the_cpu_are_told(monkeypatch, exported_speck, a_card, caplog):
    for fell in ((), ("Resize", "Erf", "Erf")):
        ort = StandInOnnxRuntime(fell)
        name = "alps.engine.runtimes.onnxruntime.onnxruntime_module"
        monkeypatch.setattr(name, lambda ort=ort: ort)
        assert caplog.messages == []
        OnnxRuntime(exported_speck, "cuda", parts=ENCODER)
    assert [line.split("encoder.onnx")[1] for line in caplog.messages] == [
        ": 3 of its nodes run on the CPU, each a way there and back (Erf, Resize)"
    ]


def test_capacity_follows_the_whole_memory_and_never_what_is_free(monkeypatch):
    def free(device):
        pytest.fail("asked what is free")

    monkeypatch.setattr("torch.cuda.mem_get_info", free)
    device = torch.device("cuda")
    sizes = {}
    for gigabytes in (4, 8, 24, 80, 141):
        card = SimpleNamespace(total_memory=gigabytes << 30)
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda device, card=card: card)
        sizes[gigabytes] = capacity_of(device, SamConfig())
    assert {capacity.images for capacity in sizes.values()} == {8}
    points = [capacity.points for capacity in sizes.values()]
    assert points == sorted(points) and points[0] < points[2] == points[4] == 256
    cpu = capacity_of(torch.device("cpu"), SamConfig())
    assert cpu == Capacity(images=1, points=16)


class LittleMemory:
    """A runtime that has room for so many images and points."""

    config = SamConfig()

    def __init__(self, images, points, error="CUDA out of memory. Tried to allocate 20 MiB"):
        self.capacity, self.images, self.points = Capacity(8, 256), images, points
        self.error, self.asked = error, []

    def encode(self, pixels):
        self._need(len(pixels), self.images)
        return torch.zeros(len(pixels), 1, 1, 1)

    def decode(self, embedding, points, pred_iou_thresh, points_per_batch):
        assert pred_iou_thresh == 0 and len(points) == points_per_batch  # all are upscaled
        self._need(len(points), self.points)
        yield None

    def _need(self, count, most):
        self.asked.append(count)
        if count > most:
            raise RuntimeError(self.error)


@pytest.mark.parametrize(
    ("room", "fits"), [((8, 256), (8, 256)), ((3, 256), (2, 256)), ((2, 60), (1, 32))]
)
def test_what_does_not_fit_is_halved_before_the_first_tile(room, fits):
    runtime = LittleMemory(*room)
    fit_capacity(runtime)
    assert runtime.capacity == Capacity(*fits)


def test_what_a_failed_pass_had_made_is_gone_when_memory_is_given_back(monkeypatch):
    runtime = LittleMemory(4, 100)
    made = weakref.WeakSet()

    def decode(embedding, points, *rest):
        temporary = torch.zeros(3)
        made.update([temporary, embedding])
        runtime._need(len(points), runtime.points)
        yield None

    left = []
    monkeypatch.setattr(runtime, "decode", decode)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: left.append(len(made)))
    fit_capacity(runtime)
    assert runtime.capacity == Capacity(1, 64) and left == [0] * 5


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "tensorrt"])
def test_a_gpu_without_the_kernels_package_is_told_before_anything_is_loaded(
    model, monkeypatch, name
):
    there = on_a_gpu(model, None, monkeypatch, lambda **_: pytest.fail("was loaded"))
    monkeypatch.delitem(sys.modules, "alps.kernels.base.numba_cuda", raising=False)
    monkeypatch.setitem(sys.modules, "numba.cuda", None)
    with pytest.raises(SettingsError, match=r"pip install 'alps-engine\[cuda12\]'"):
        open_runtime(there, name)
    with pytest.raises(SettingsError, match=r"pip install 'alps-engine\[cuda12\]'"):
        monkeypatch.setattr(type(there.sam), "device", torch.device("cuda"))
        MaskGenerator(there.sam)


def test_what_fits_nowhere_and_other_errors_are_raised():
    for runtime in (LittleMemory(0, 0), LittleMemory(4, 256, "an illegal address")):
        with pytest.raises(RuntimeError, match=runtime.error[:10]):
            fit_capacity(runtime)
    assert runtime.asked == [8]


def test_images_are_encoded_so_many_at_once():
    sizes = []

    def encode(batch):
        sizes.append(len(batch))
        return batch

    pixels = torch.arange(7.0)[:, None]
    assert torch.equal(in_batches(encode, pixels, 3), pixels) and sizes == [3, 3, 1]


# --- which one is chosen


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def timed(monkeypatch, **seconds):
    """Let the clock say what a test wants: (encoder, decoder) by runtime."""
    left = [
        time for name in ("torch", *(n for n in seconds if n != "torch")) for time in seconds[name]
    ]
    monkeypatch.setattr(choose_module, "_fastest", lambda call, device: (call(), left.pop(0))[1])


def test_without_exports_it_is_pytorch_and_nothing_is_said(model, home):
    said = []
    sam, info = model
    assert choose(Model(sam, info, "fp32"), said.append).name == "torch" and said == []


@pytest.mark.parametrize(
    ("times", "name"),
    [
        ({"torch": (2.0, 1.0), "onnxruntime": (1.0, 3.0)}, "onnxruntime+torch"),
        ({"torch": (2.0, 1.0), "onnxruntime": (1.0, 0.5)}, "onnxruntime"),
        ({"torch": (2.0, 1.0), "onnxruntime": (1.99, 2.0)}, "torch"),
    ],
)
def test_the_faster_of_each_half_is_taken(model, home, exported_speck, monkeypatch, times, name):
    sam, info = model
    shutil.copytree(exported_speck.folder, artefact_folder(info.sha256) / "onnx-fp32")
    timed(monkeypatch, **times)
    said = []
    chosen = choose(Model(sam, info, "fp32"), said.append)
    assert (
        chosen.name == name and len(said) == 1 and name in said[0] and "encoder torch 2" in said[0]
    )
    assert choose(Model(sam, info, "fp32"), said.append) == chosen  # the clock has nothing left
    assert "measured earlier" in said[1]
    assert isinstance(open_runtime(Model(sam, info, "fp32"), chosen.name), Runtime)


def test_what_fails_its_self_check_is_left_out_with_a_reason(
    model, home, exported_speck, monkeypatch, tmp_path
):
    sam, info = model
    said = []
    folder = changed_copy(exported_speck, tmp_path / "exports")
    (folder / "masks.onnx").write_bytes(b"broken")
    chosen = choose(Model(sam, info, "fp32", folder), said.append)
    assert chosen.name == "torch" and "onnxruntime was left out" in said[0]
    wrong = OnnxRuntime.encode
    monkeypatch.setattr(OnnxRuntime, "encode", lambda self, pixels: 1.1 * wrong(self, pixels))
    chosen = choose(Model(sam, info, "fp32", exported_speck.folder), said.append)
    assert chosen.name == "torch" and "its embedding is off by 1.0e-01" in said[1]


@pytest.mark.parametrize("broken", ["encode", "decode"])
def test_a_runtime_that_gives_nan_fails_its_self_check(
    model, home, exported_speck, monkeypatch, broken
):
    sam, info = model
    shutil.copytree(exported_speck.folder, artefact_folder(info.sha256) / "onnx-fp32")
    timed(monkeypatch, torch=(2.0, 2.0), onnxruntime=(1.0, 1.0))
    real = getattr(OnnxRuntime, broken)

    def encode(self, pixels):
        return real(self, pixels) * float("nan")

    def decode(self, *arguments):
        for part in real(self, *arguments):
            yield replace(part, logits=part.logits * float("nan"))

    monkeypatch.setattr(OnnxRuntime, broken, encode if broken == "encode" else decode)
    chosen = choose(Model(sam, info, "fp32"))
    assert chosen.name == "torch" and "is off by nan" in chosen.why


def on_a_gpu(model, artefacts, monkeypatch, opened):
    """A model on a GPU, where what was exported runs on ``opened``."""
    sam, info = model
    monkeypatch.setattr(
        Model, "device", property(lambda self: torch.device("cuda", 0)), raising=True
    )
    monkeypatch.setattr(choose_module, "gpu_capability", lambda device: "9.0")
    monkeypatch.setattr(choose_module, "OnnxRuntime", lambda *_, **named: opened(**named))
    return Model(sam, info, "fp32", artefacts)


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime+torch", "torch+onnxruntime"])
def test_what_was_asked_for_proves_itself_on_a_gpu(model, exported_speck, monkeypatch, name):
    made = []

    def opened(parts):
        made.append(OnnxRuntime(exported_speck, parts=parts))
        return made[-1]

    there = on_a_gpu(model, exported_speck.folder, monkeypatch, opened)
    open_runtime(there, name)
    part = "transform" if name.startswith("torch") else "encoder"
    graph = type(made[0].graphs[part])
    real = graph.__call__
    monkeypatch.setattr(graph, "__call__", lambda *given: [1.1 * one for one in real(*given)])
    words = (
        "onnxruntime does not compute here what PyTorch does: its .* is off by .*--runtime torch"
    )
    with pytest.raises(ArtefactError, match=words):
        open_runtime(there, name)


def test_exports_of_another_precision_are_not_taken(model, home, exported_speck):
    sam, info = model
    said = []
    assert choose(Model(sam, info, "bf16", exported_speck.folder), said.append).name == "torch"
    with pytest.raises(ArtefactError, match=r"no onnx export of speck in fp16.*--precision fp16"):
        open_runtime(Model(sam, info, "fp16", exported_speck.folder), "onnxruntime")
    with pytest.raises(SettingsError, match="runs in ONNX Runtime only"):
        open_runtime(Model(sam, info, "int8"), "torch")
    with pytest.raises(ArtefactError, match="--format tensorrt --precision fp32"):
        open_runtime(Model(sam, info, "fp32"), "tensorrt")
    with pytest.raises(SettingsError, match=r"give auto, torch, onnxruntime, tensorrt"):
        open_runtime(Model(sam, info, "fp32"), "openvino")
    decoder = open_runtime(Model(sam, info, "fp32", exported_speck.folder), "torch+onnxruntime")
    assert set(decoder.decoder.graphs) == set(DECODER)
    with pytest.raises(ArtefactError, match="its encoder was not loaded"):
        decoder.decoder.encode(torch.zeros(1, 3, 128, 128))


def test_the_runtime_is_part_of_a_run(archive, tmp_path, home, exported_speck, speck, monkeypatch):
    from alps.engine.stages.label import RunOptions, label_archive

    timed(monkeypatch, torch=(2.0, 1.0), onnxruntime=(1.0, 3.0))
    settings = RunSettings(cluster=ClusterSettings(clusters=4))
    options = RunOptions(model=str(speck), device="cpu", artefacts=exported_speck.folder)
    out = tmp_path / "out"
    label_archive(archive, out, settings, options)
    run = json.loads((out / "run.json").read_text())
    assert run["settings"]["segment"]["runtime"] == "onnxruntime+torch"
    label_archive(archive, out, settings, options)  # auto again is what it was
    other = replace(settings, segment=SegmentSettings(runtime="torch"))
    with pytest.raises(RunFolderError, match=r"runtime onnxruntime\+torch there, torch now"):
        label_archive(archive, out, other, options)
