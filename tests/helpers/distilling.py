"""Teachers and images for the tests of `alps distill`, all of them small."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import speck
import torch
from PIL import Image

from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.models.checkpoints import save_sam
from alps.engine.sam import Sam, SamConfig

PLAIN = replace(speck.CONFIG, encoder_depth=4)
# As official encoders are built: windows that do not divide the grid, relative positions.
OFFICIAL_LIKE = replace(
    speck.CONFIG,
    encoder_depth=6,
    window_size=3,
    global_blocks=(2, 5),
    relative_positions=True,
    embedding_channels=32,
    decoder_heads=8,
)
ORDINARY = ("--device", "cpu", "--precision", "float32")


def lively(config: SamConfig, seed: int = 3) -> Sam:
    """A network with random weights, positions among them, that tells images apart."""
    torch.manual_seed(seed)
    model = Sam(config)
    with torch.no_grad():
        for name, parameter in model.image_encoder.named_parameters():
            if "pos" in name:
                parameter.normal_(std=0.5)
            elif parameter.ndim > 1:
                parameter.mul_(1.5)
    return model


def save_teacher(path: Path, config: SamConfig = PLAIN) -> Path:
    """A checkpoint of ours."""
    save_sam(lively(config), path, speck.DEFAULTS)
    return path


def save_official(path: Path, config: SamConfig = OFFICIAL_LIKE) -> Path:
    """A checkpoint as the official ones are: the state dict alone, pickled."""
    torch.save(lively(config).state_dict(), path)
    return path


def save_images(folder: Path, count: int = 4, side: int = 200) -> Path:
    """Scenes of different shapes, so that windows have different padding."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        image = make_scene(seed, SceneSettings(size=side)).image
        cut = side - 25 * (seed % 4)
        Image.fromarray(np.ascontiguousarray(image[:cut])).save(folder / f"{seed}.png")
    return folder
