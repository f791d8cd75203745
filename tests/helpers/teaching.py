"""Small images whose classes are their colours, and trainings of seconds."""

import os
import signal
import socket
import traceback
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alps.trainer.data.settings import DataSettings
from alps.trainer.loop.state import State
from alps.trainer.segmentation.recipe import (
    EvaluationSettings,
    ModelSettings,
    RunOptions,
    TrainSettings,
)
from alps.trainer.segmentation.run import Recipe

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is ever fetched

PATIENCE = 200  # seconds, before a process that hangs is ended
COLOURS = np.array([(60, 110, 50), (150, 150, 155), (170, 60, 40)])
MINI = ModelSettings("segformer_mini")
QUICK = TrainSettings(
    steps=6, batch=4, crop=32, rate=3e-3, precision="float32", scale=1.2, colour=0.1
)
SHORT = Recipe(
    model=MINI,
    data=DataSettings(test="c*"),
    train=QUICK,
    evaluation=EvaluationSettings(eval_batch=4),
)
CPU = RunOptions("cpu", checkpoint_every=2, log_every=1, workers=2)


def save_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def make_pair(seed, size=(70, 90)):
    """An image (H, W, 3) and its labels (H, W) of three classes, with a column of 255."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 3, (-(-size[0] // 16), -(-size[1] // 16)))
    labels = np.kron(coarse, np.ones((16, 16), int))[: size[0], : size[1]].astype(np.uint8)
    image = COLOURS[labels] + random.normal(0, 12, (*size, 3))
    labels[:, 0] = 255
    return image.clip(0, 255).astype(np.uint8), labels


def save_data(folder: Path, names=("a1", "a2", "b1", "c1"), size=(70, 90)) -> Path:
    """A folder of images and labels."""
    for seed, name in enumerate(names):
        image, labels = make_pair(seed, size)
        save_image(folder / "images" / f"{name}.png", image)
        save_image(folder / "labels" / f"{name}.png", labels)
    return folder


def flat(name, value):
    """(name, leaf) of a nested state."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            yield from flat(f"{name}.{key}", part)
    else:
        yield name, value


def differences(one, two):
    """Names of what is not the same bit for bit in two nested states."""
    one, two = dict(flat("", one)), dict(flat("", two))
    assert one.keys() == two.keys() and len(one) > 100
    return [
        name
        for name, value in one.items()
        if not (torch.equal(value, two[name]) if torch.is_tensor(value) else value == two[name])
    ]


def checkpoint(out):
    return torch.load(out / "checkpoint.pt", weights_only=True)


@contextmanager
def dies_after(step):
    """A training inside it ends like one that is interrupted, when ``step`` steps are kept."""
    real = State.save

    def save(self, path):
        real(self, path)
        if self.step == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "save", save)
        yield


def forked(work, **environment):
    """Start ``work`` in a copy of this process, which has imported everything; returns its id.

    A new interpreter would need seconds for that. Only where torch has one thread.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    signal.alarm(PATIENCE)
    try:
        os.environ.update(environment)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child):
    """Its exit code; minus the signal's number where one ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_processes(work, size):
    """Do ``work`` in a job of processes, as torchrun would start them; returns exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [forked(work, RANK=str(n), LOCAL_RANK=str(n), **shared) for n in range(size)]
    return [ended(child) for child in children]
