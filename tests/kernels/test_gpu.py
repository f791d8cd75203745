"""The whole of everything mode on a real GPU beside the CPU; skipped where there is none."""

import copy

import numpy as np
import pytest
import torch

from alps.bench.everything.matching import agreement
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.masks.crops import Crop, network_pixels
from alps.engine.masks.generator import MaskGenerator
from alps.engine.masks.postprocess.device import DevicePostprocessor
from alps.engine.masks.postprocess.host import HostPostprocessor
from alps.engine.masks.postprocess.protocol import ToSegment
from alps.engine.models.checkpoints import load_sam
from alps.engine.models.registry import find_model
from alps.engine.runtimes.full_float32 import full_float32
from alps.engine.runtimes.protocol import DecodedMasks
from alps.engine.runtimes.pytorch import TorchRuntime

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SETTINGS = {
    "points_per_side": 12,
    "pred_iou_thresh": 0.2,
    "stability_score_thresh": 0.4,
    "stability_score_offset": 0.3,
}


@pytest.fixture(scope="module")
def image():
    return make_scene(7, SceneSettings(size=400)).image[:, :330]


@pytest.fixture(scope="module")
def on_cpu(image):
    sam, _ = load_sam(find_model("tiny"))
    return MaskGenerator(sam, **SETTINGS).segment(image)


@pytest.mark.parametrize("decoder", ["absorbed", "plain"])
def test_finds_the_masks_of_the_cpu(image, on_cpu, decoder):
    sam, _ = load_sam(find_model("tiny"), device="cuda")
    found = MaskGenerator(TorchRuntime(sam, decoder=decoder), **SETTINGS).segment(image)
    assert len(on_cpu) > 10
    sides = [on_cpu.counts], [found.counts]
    for one, other in (sides, sides[::-1]):
        shares = agreement(one, other, [on_cpu.size]).shares
        assert shares[0.99] >= 0.95 and shares[0.75] >= 0.98
    if len(found) == len(on_cpu):
        np.testing.assert_allclose(found.embeddings, on_cpu.embeddings, atol=2e-2)


@pytest.mark.parametrize(("precision", "least"), [("bf16", 0.85), ("fp16", 0.95)])
def test_lower_precision_finds_nearly_all(image, on_cpu, precision, least):
    sam, _ = load_sam(find_model("tiny"), device="cuda")
    found = MaskGenerator(TorchRuntime(sam, precision=precision), **SETTINGS).segment(image)
    assert agreement([on_cpu.counts], [found.counts], [on_cpu.size]).shares[0.9] >= least


def test_batches_change_no_mask(image, monkeypatch):
    """A GPU takes more points at once than it is told to; fewer give the same masks."""
    from alps.engine.runtimes import batching as passes

    sam, _ = load_sam(find_model("tiny"), device="cuda")
    generator = MaskGenerator(TorchRuntime(sam), **SETTINGS, points_per_batch=1)
    whole = generator.segment(image)
    monkeypatch.setattr(passes, "_PASS_BYTES_AT_MOST", 8 << 20)  # 16 points of this model
    parts = generator.segment(image)
    shares = agreement([whole.counts], [parts.counts], [whole.size]).shares
    assert shares[0.99] >= 0.98


def test_points_on_the_gpu_that_was_named(image):
    last = torch.cuda.device_count() - 1
    if last == 0:
        pytest.skip("needs two GPUs")
    from alps.engine.base.device import choose_device

    device = choose_device(f"cuda:{last}")
    sam, _ = load_sam(find_model("tiny"), device=device)
    assert len(MaskGenerator(sam, **SETTINGS).segment(image)) > 10


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_bytes_and_pixels_by_graph_and_without_give_one_embedding(image, precision):
    sam, _ = load_sam(find_model("tiny"), device="cuda")
    runtime = TorchRuntime(sam, precision=precision)
    count, size = runtime.capacity.images, runtime.config.image_size
    whole = Crop(0, 0, *image.shape[1::-1], 0)
    pixels = network_pixels(image, whole, size).expand(count, -1, -1, -1)
    found = [runtime.encode(pixels), *(runtime.encode(pixels) for _ in range(2))]
    encoder = runtime._on_gpu
    assert encoder is not None and encoder._embed._captured is not None
    found += [encode() for encode in MaskGenerator(runtime).encodings([image] * count)]
    with torch.inference_mode(), full_float32():
        found.append(encoder.of_pixels(pixels, usual=0))
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("width", [64, 80])
def test_heads_of_official_models_round_no_worse_than_autocast(precision, width):
    """A block of windows and a global one on the official grid, four heads wide."""
    triton_encoder = pytest.importorskip("triton_encoder")
    from alps.engine.sam import SamConfig
    from alps.engine.sam.fused_encoder import DTYPES, FusedEncoder

    config = SamConfig(
        encoder_width=4 * width, encoder_heads=4, encoder_depth=2, global_blocks=(1,)
    )
    encoder = triton_encoder.random_encoder(config).cuda()
    pixels = torch.randn(2, 3, 1024, 1024, device="cuda")
    dtype = DTYPES[precision]
    with torch.inference_mode(), full_float32():
        exact = copy.deepcopy(encoder).double()(pixels.double())
        fused = FusedEncoder(encoder, precision)
        found = fused.embed(fused.patches(pixels))
        with torch.autocast("cuda", dtype, enabled=precision != "fp32"):
            usual = encoder(pixels).float()
    off, forgiven = (triton_encoder.relative(one, exact) for one in (found, usual))
    assert 0 < off <= 1.2 * forgiven


class _HostsMasks:
    """A ``Runtime`` whose masks are brought to the host, for kernels of the CPU."""

    on_callers_cores = False

    def __init__(self, runtime):
        self._runtime, self.config, self.capacity = runtime, runtime.config, runtime.capacity
        self.encode = runtime.encode

    def decode(self, *asked):
        for found in self._runtime.decode(*asked):
            yield DecodedMasks(*(value.cpu() for value in vars(found).values()))


def test_what_follows_masks_is_the_cpus_to_the_bit(image):
    sam, _ = load_sam(find_model("tiny"), device="cuda")
    runtime = TorchRuntime(sam)
    generator = MaskGenerator(runtime, **SETTINGS)
    valid = np.ones(image.shape[:2], bool)
    valid[: len(valid) // 5, : len(valid) // 4] = False
    (embeddings,) = generator.embed([image])
    asked = ToSegment(image, generator.gate(image, valid, 0.9, 10), embeddings)
    host = HostPostprocessor(MaskGenerator(_HostsMasks(runtime), **SETTINGS), 4)
    expected = host.find([asked])[0].segments()
    device = DevicePostprocessor(generator, 4, 2)
    device.again = None  # there is room
    found = device.find([asked, asked])[1].segments()
    assert (expected.mask >= 0).sum() > 10
    for name in ("counts", "covered", "prompted"):
        assert getattr(found, name) == getattr(expected, name), name
    for name in ("boxes", "area", "predicted_iou", "stability_score", "points", "colours", "mask"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    np.testing.assert_allclose(found.embeddings, expected.embeddings, rtol=2e-3, atol=1e-3)
