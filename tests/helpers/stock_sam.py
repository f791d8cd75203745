"""The original SAM, small and with random weights, to hold ours against."""

import numpy as np
import torch

from alps.bench.everything.stock import original_generator, stock_network
from alps.engine.sam import Sam, SamConfig

__all__ = ["SMALL", "original_generator", "ours_like", "picture", "stock_sam"]

SMALL = SamConfig(
    image_size=64,
    patch_size=8,
    encoder_width=32,
    encoder_depth=2,
    encoder_heads=2,
    window_size=3,
    global_blocks=(1,),
    embedding_channels=32,
    decoder_hidden=48,
    iou_head_hidden=24,
    mask_input_channels=8,
)


def stock_sam(config=SMALL, seed=5):
    """The original network in these dimensions, random weights that give varied masks."""
    torch.manual_seed(seed)
    stock = stock_network(config)
    with torch.no_grad():
        for parameter in stock.parameters():
            if parameter.abs().max() == 0:  # positions start at zero: give them something to do
                parameter.normal_(std=0.2)
        for parameter in stock.mask_decoder.parameters():
            if parameter.ndim > 1:  # as initialised, every point gets the same pale mask
                parameter.mul_(2.5)
    return stock


def ours_like(stock, config=SMALL):
    """Our network with the original's weights."""
    sam = Sam(config).eval()
    sam.load_state_dict(stock.state_dict())
    return sam


def picture(height, width, seed=0):
    """(H, W, 3) uint8 with patches and texture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((9, 9, 1), np.uint8))[:height, :width].astype(int)
    return np.clip(image + rng.integers(-20, 21, image.shape), 0, 255).astype(np.uint8)
