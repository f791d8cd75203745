"""The encoder of a GPU, as far as there is none: what is sent, when it is tried, what if not."""

import threading
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alps.engine.masks.crops import Crop, network_pixels
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.checkpoints import load_sam
from alps.engine.runtimes import pytorch as pytorch_module
from alps.engine.runtimes.gpu import encoder as gpu_encoder_module
from alps.engine.runtimes.gpu.encoder import FORGIVEN, GpuEncoder, gpu_encoder
from alps.engine.runtimes.gpu.packed import PackedImages, Sender
from alps.engine.runtimes.protocol import Capacity, ImagePart, TwoRuntimes
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.kernels.resize.rules import BITS, HALF


@pytest.fixture(scope="module")
def sam(speck):
    return load_sam(speck)[0]


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def as_a_device_would(packed):
    """What a device makes of a piece of memory: the images, resized by the tables in it."""
    memory = np.zeros(packed.room, np.uint8)
    memory[: len(packed.memory)] = packed.memory.numpy()
    for step in packed.steps:
        outer, old, new, inner = step.shape
        first = memory[step.first :][: 4 * new].view(np.int32)
        weights = memory[step.weights :][: 4 * new * step.taps].view(np.int32).reshape(new, -1)
        source = memory[step.source :][: outer * old * inner].reshape(outer, old, inner)
        place = np.minimum(first[:, None] + np.arange(step.taps), old - 1)
        total = np.einsum("nt,antc->anc", weights.astype(np.int64), source[:, place]) + HALF
        assert step.target % 16 == 0 and step.target >= len(packed.memory)
        memory[step.target :][: total.size] = (total >> BITS).astype(np.uint8).ravel()
    places = packed.places(torch.from_numpy(memory)).tolist()
    return [memory[at : at + 3 * h * w].reshape(h, w, 3) for at, h, w in places]


def test_bytes_say_all_that_a_device_needs():
    sizes = [(128, 128), (128, 60), (50, 40), None, (300, 90), (50, 40), (1, 400)]
    images = [size and image(*size, seed) for seed, size in enumerate(sizes)]
    crops = [size and Crop(0, 0, size[1], size[0], 0) for size in sizes]
    parts = [
        None if crop is None else crop.part_of(whole, 128)
        for whole, crop in zip(images, crops, strict=True)
    ]
    packed = PackedImages.of(parts, pin=False)
    for found, whole, crop in zip(as_a_device_would(packed), images, crops, strict=True):
        if crop is None:
            assert found.size == 0
            continue
        height, width = crop.input_size(128)
        again = network_pixels(found, Crop(0, 0, width, height, 0), 128)
        assert torch.equal(again, network_pixels(whole, crop, 128))
    # Tables of a size of image travel once; two images of that size share them.
    assert len(packed.steps) == 7 and len({step.first for step in packed.steps}) == 5
    sent = sum(one.nbytes for one in images if one is not None)
    entries = {step.first: step.shape[2] * (1 + step.taps) for step in packed.steps}
    tables = 4 * sum(entries.values())
    assert sent + tables <= len(packed.memory) <= sent + tables + 16 * 20 + 24 * 7


class StandIn:
    """A ``GpuEncoder`` on the CPU, that notes what it is given."""

    def __init__(self, sam):
        self.sam, self.sent, self.given = sam, [], []

    def send(self, packed):
        self.sent.append(packed.count)
        return packed

    def of_sent(self, packed, usual):
        self.given.append((packed.count, usual))
        images = as_a_device_would(packed)
        size = self.sam.config.image_size
        pixels = torch.zeros(len(images), 3, size, size)
        for own, one in zip(pixels, images, strict=True):
            if one.size:
                own[:] = network_pixels(one, Crop(0, 0, *one.shape[1::-1], 0), size)
        return self.sam.encode(pixels)

    def of_pixels(self, pixels, usual):
        self.given.append((len(pixels), usual))
        return self.sam.encode(pixels)


@pytest.fixture
def runtime(sam, monkeypatch):
    """A runtime that takes its device for a GPU, with that stand-in."""
    found = TorchRuntime(sam, decoder="absorbed")
    found.stand_in, found.capacity = StandIn(sam), Capacity(3, 64)
    monkeypatch.setattr(type(sam), "device", torch.device("cuda"))
    of = PackedImages.of
    monkeypatch.setattr(PackedImages, "of", lambda parts, pin: of(parts, pin and False))
    monkeypatch.setattr(pytorch_module, "wait_for", lambda device: None)
    monkeypatch.setattr(pytorch_module, "gpu_encoder", lambda sam, precision: found.stand_in)
    return found


def test_images_are_sent_as_bytes_in_batches_of_what_fits(runtime, sam):
    images = [image(128, 128, 1), image(90, 128, 2), None, image(300, 70, 3), image(40, 40, 4)]
    generator = MaskGenerator(runtime)
    (encode,) = generator.encodings(images)
    assert runtime.stand_in.sent == [3, 2] and runtime.stand_in.given == []  # on their way
    found = encode()
    assert runtime.stand_in.given == [(3, 3), (2, 3)] and found.shape[0] == 5
    for place, one in enumerate(images):
        pixels = torch.zeros(3, 128, 128)
        if one is not None:
            pixels = network_pixels(one, Crop(0, 0, *one.shape[1::-1], 0), 128)
        torch.testing.assert_close(found[place], sam.encode(pixels[None])[0])
    embedded = generator.embed([one for one in images if one is not None])
    torch.testing.assert_close(embedded[3][0], found[4])


def test_half_a_runtime_sends_bytes_too_and_pixels_take_the_same_way(runtime):
    two = TwoRuntimes(runtime, runtime)
    assert MaskGenerator(two).embed([image(128, 128)])[0][0].shape == (16, 8, 8)
    two.encode(torch.zeros(4, 3, 128, 128))
    assert runtime.stand_in.given == [(1, 3), (3, 3), (1, 3)]


def test_a_runtime_on_a_cpu_sends_none_and_encodes_as_ever(sam):
    runtime = TorchRuntime(sam)
    assert runtime.bring([ImagePart(image(8, 8), 8, 8)]) is None
    assert TwoRuntimes(runtime, runtime).bring([None]) is None
    generator, whole = MaskGenerator(runtime), image(100, 70)
    expected = runtime.encode(network_pixels(whole, Crop(0, 0, 70, 100, 0), 128)[None])
    assert torch.equal(generator.embed([whole])[0][0], expected[0])
    (encode,) = generator.encodings([None, whole])
    assert torch.equal(encode()[1], expected[0])
    assert generator.encodings([None, None]) == []


def test_it_is_made_once_whichever_threads_ask(runtime, monkeypatch):
    made, gate = [], threading.Barrier(4)
    monkeypatch.setattr(
        pytorch_module, "gpu_encoder", lambda *_: made.append(1) or runtime.stand_in
    )

    def ask():
        gate.wait(10)
        runtime.bring([None])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert made == [1]


class Bad:
    def __init__(self, error):
        self.error = error

    def __call__(self, sam, encoder):
        if isinstance(self.error, Exception):
            raise self.error
        return self

    def of_packed(self, packed, memory, usual):
        return self.error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (RuntimeError("Failed to find C compiler.\nPlease specify via CC"), "C compiler. Please"),
        (torch.full((1, 16, 8, 8), torch.nan), "a trial was off by nan"),
        (torch.zeros(1, 16, 8, 8), r"a trial was off by 1.0e\+00"),
    ],
)
def test_kernels_that_do_not_work_here_leave_it_to_pytorch(sam, monkeypatch, caplog, error, why):
    pytest.importorskip("triton", reason="needs Triton")
    monkeypatch.setattr(gpu_encoder_module, "GpuEncoder", Bad(error))
    with torch.inference_mode():
        assert gpu_encoder(sam, "fp16") is None
    (record,) = caplog.records
    assert record.message.startswith("the image encoder runs in PyTorch's own kernels: ")
    assert why.replace("\\", "") in record.message and "\n" not in record.message


def test_out_of_memory_in_a_trial_is_no_reason_to_do_without(sam, monkeypatch):
    pytest.importorskip("triton", reason="needs Triton")
    monkeypatch.setattr(gpu_encoder_module, "GpuEncoder", Bad(torch.OutOfMemoryError("CUDA")))
    with pytest.raises(torch.OutOfMemoryError):
        gpu_encoder(sam, "fp32")


def test_kernels_go_to_the_gpu_of_the_weights(sam, monkeypatch):
    """Threads of a pipeline have GPU 0 as theirs, whichever was chosen."""
    entered, device = [], torch.device("cuda", 3)

    monkeypatch.setattr(torch.cuda, "device", lambda gpu: nullcontext(entered.append(gpu)))
    monkeypatch.setattr(gpu_encoder_module, "Sender", lambda device: SimpleNamespace(send=str))
    monkeypatch.setattr(type(sam), "device", device)
    steps = SimpleNamespace(embed=None, empty_patches=None)
    encoder = GpuEncoder(sam, steps)
    monkeypatch.setattr(encoder, "_run", lambda count, fill, usual: len(entered))
    packed = PackedImages.of([None], pin=False)
    encoder.send(packed)
    assert [encoder.of_packed(packed, packed.memory, 1), encoder.of_pixels([0], 1)] == [2, 3]
    assert entered == [device] * 3


def test_without_triton_or_with_another_encoder_pytorch_does_it(sam, monkeypatch, caplog):
    monkeypatch.setattr(gpu_encoder_module, "triton_missing", lambda: "it is not installed")
    assert gpu_encoder(sam, "fp32") is None and "it is not installed" in caplog.text
    assert FORGIVEN.keys() == {"fp32", "fp16", "bf16"}


class Streams:
    """``torch.cuda`` as far as a sender uses it."""

    def __init__(self):
        self.log, self.current = [], "usual"

    def Stream(self, device):
        return SimpleNamespace(record_event=lambda: self.log.append("sent") or "event")

    @contextmanager
    def stream(self, stream):
        self.current = "apart"
        yield
        self.current = "usual"

    def current_stream(self, device):
        assert self.current == "usual"
        return SimpleNamespace(wait_event=lambda event: self.log.append(f"wait for {event}"))


def test_bytes_travel_apart_and_whoever_reads_them_waits(monkeypatch):
    cuda, copy_to = Streams(), PackedImages.copy_to

    def copied(self, device):
        cuda.log.append(f"copy {cuda.current}")
        return copy_to(self, device)

    monkeypatch.setattr(PackedImages, "copy_to", copied)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, stream: cuda.log.append("kept"), raising=False
    )
    whole = image(128, 128)
    packed = PackedImages.of([ImagePart(whole, 128, 128)], pin=False)
    sent = Sender(torch.device("cpu"), cuda).send(packed)
    assert cuda.log == ["copy apart", "sent"]
    memory = sent.memory()
    assert cuda.log[2:] == ["wait for event", "kept"]  # until the reading stream is done with it
    ((begin, height, width),) = packed.places(memory).tolist()
    found = memory[begin:][: whole.size].numpy().reshape(height, width, 3)
    np.testing.assert_array_equal(found, whole)
