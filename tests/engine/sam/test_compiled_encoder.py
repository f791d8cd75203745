"""The CPU's compiled image encoder, beside the network that it runs."""

from dataclasses import replace

import pytest
import torch
from stock_sam import SMALL

from alps.engine.sam import Sam
from alps.engine.sam.cpu import encoder as compiled_encoder
from alps.engine.sam.cpu.encoder import CompiledEncoder
from alps.kernels.base.threads import set_threads

CONFIGS = {
    "windows that need padding": SMALL,
    "a window larger than the grid": replace(SMALL, window_size=11, global_blocks=()),
    "everything global": replace(SMALL, encoder_depth=2, global_blocks=(0, 1)),
}


def with_random_weights(config):
    torch.manual_seed(0)
    sam = Sam(config).eval().requires_grad_(False)
    for parameter in sam.image_encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return sam


def pixels_of(sam, count=2):
    side = sam.config.image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("at_once", [7, 512])
def test_it_gives_what_the_network_gives(monkeypatch, config, at_once):
    monkeypatch.setattr(compiled_encoder, "TOKENS", at_once)
    sam = with_random_weights(config)
    pixels = pixels_of(sam)
    got = CompiledEncoder(sam.image_encoder)(pixels)
    wanted = sam.double().image_encoder(pixels.double())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_it_leaves_pixels_and_pytorchs_threads_as_they_were():
    sam = with_random_weights(SMALL)
    pixels = pixels_of(sam)
    given, threads = pixels.clone(), torch.get_num_threads()
    CompiledEncoder(sam.image_encoder)(pixels)
    torch.testing.assert_close(pixels, given, rtol=0, atol=0)
    assert torch.get_num_threads() == threads


def test_blocks_give_the_same_bits_on_any_number_of_threads(monkeypatch, one_thread):
    monkeypatch.setattr(compiled_encoder, "TOKENS", 16)
    sam = with_random_weights(SMALL)
    found = []
    try:
        for number in (1, 3):
            set_threads(number)
            found.append(CompiledEncoder(sam.image_encoder)(pixels_of(sam)))
    finally:
        set_threads(None)
    torch.testing.assert_close(*found, rtol=0, atol=0)
