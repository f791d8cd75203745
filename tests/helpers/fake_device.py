"""A device of known times: answers are computed before, then it sleeps, and uses no CPU."""

import hashlib
import threading
import time

import torch

from alps.engine.runtimes.protocol import Capacity


class FakeDevice:
    """A ``Runtime`` apart from the CPU.

    Args:
        runtime: that computes the answers, the first time.
        encode, decode: seconds an image.
        images_at_once: places of a batch.
        jitter: None, or called for seconds that any call takes longer.
    """

    on_callers_cores = False

    def __init__(self, runtime, encode=0.0, decode=0.0, images_at_once=1, jitter=None):
        self.config = runtime.config
        self.capacity = Capacity(images_at_once, points=64)
        self.encode_seconds, self.decode_seconds, self.jitter = encode, decode, jitter
        self._runtime = runtime
        self._encoded, self._decoded = {}, {}
        self._lock = threading.Lock()  # PyTorch's answers, one at a time

    def encode(self, pixels):
        self._sleep(self.encode_seconds * len(pixels))
        return torch.stack([self._answer(one) for one in pixels])

    def decode(self, embedding, points, pred_iou_thresh, points_per_batch):
        self._sleep(self.decode_seconds)
        key = _digest(embedding, points)
        with self._lock:
            if key not in self._decoded:
                settings = (pred_iou_thresh, points_per_batch)
                self._decoded[key] = list(self._runtime.decode(embedding, points, *settings))
        return iter(self._decoded[key])

    def _answer(self, pixels):
        key = _digest(pixels)
        with self._lock:
            if key not in self._encoded:
                self._encoded[key] = self._runtime.encode(pixels[None])[0]
        return self._encoded[key]

    def _sleep(self, seconds):
        time.sleep(seconds + (self.jitter() if self.jitter else 0.0))


def _digest(*tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.digest()
