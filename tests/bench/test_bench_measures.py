"""What the bench measures with: masks in common, multiply-adds, the machine, kernels' tables."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from stock_sam import SMALL, ours_like, stock_sam
from torch.utils.flop_counter import FlopCounterMode

from alps.bench import machine
from alps.bench.everything import sides
from alps.bench.everything.flops import absorbed_macs, compiled_macs, stock_macs
from alps.bench.everything.matching import Agreement, agreement, best_ious
from alps.bench.everything.sides import SideResult, TileMasks
from alps.bench.everything.stages import encoder_macs, stage_rows, work_of
from alps.bench.kernels.conftest import table
from alps.engine.sam.absorbed import AbsorbedDecoder
from alps.engine.sam.config import VIT_B

# pycocotools' own, under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# --- matching


def code(*boxes, size=(10, 10)):
    """Counts of a mask that is the union of boxes x0, y0, x1, y1."""
    mask = np.zeros(size, np.uint8, order="F")
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = 1
    return coco.encode(mask)["counts"]


def test_best_ious_of_masks_made_by_hand():
    square, half, away = code((0, 0, 4, 4)), code((0, 0, 4, 2)), code((6, 6, 9, 9))
    np.testing.assert_allclose(best_ious([square, half], [half, away], (10, 10)), [0.5, 1])
    np.testing.assert_allclose(best_ious([away], [square, half], (10, 10)), [0])
    # 16 of 16 + 9 pixels are shared.
    both = code((0, 0, 4, 4), (6, 6, 9, 9))
    np.testing.assert_allclose(best_ious([both], [square, away], (10, 10)), [16 / 25])


def test_masks_without_a_pixel_are_left_out():
    empty, square = code(), code((0, 0, 4, 4))
    assert best_ious([empty, square], [square], (10, 10)).tolist() == [1]
    assert best_ious([square], [empty], (10, 10)).tolist() == [0]
    assert best_ious([square, square], [], (10, 10)).tolist() == [0, 0]
    assert best_ious([], [square], (10, 10)).tolist() == []


def test_agreement_counts_masks_of_all_tiles_alike():
    square, half, away = code((0, 0, 4, 4)), code((0, 0, 4, 2)), code((6, 6, 9, 9))
    sizes = [(10, 10)] * 3
    found = agreement([[square, away], [square], []], [[square, away], [half], [half]], sizes)
    assert found.masks == 3
    assert found.shares == {0.99: 2 / 3, 0.9: 2 / 3, 0.75: 2 / 3}
    assert found.mean_iou == pytest.approx(2.5 / 3)
    assert Agreement.of(np.array([0.99, 0.95, 0.8, 0.1])).shares == {
        0.99: 0.25,
        0.9: 0.5,
        0.75: 0.75,
    }
    assert np.isnan(agreement([[]], [[square]], [(10, 10)]).mean_iou)


# --- counting


def test_multiply_adds_of_vit_b_by_hand():
    projection = 4096 * 256 * 128  # of the image tokens, 134 M
    pixels = (2 * 5) * projection + 5 * 2 * 7 * 4096 * 128  # five cross attentions
    upscaling = 4096 * 256 * 64 * 4 + 4 * 4096 * 64 * 32 * 4
    products = 4 * 256 * 256 * 32
    stocks = stock_macs(VIT_B)
    assert stocks.per_tile == stocks.per_survivor == stocks.per_mask == 0
    on_tokens = stocks.per_prompt - pixels - upscaling - products
    assert 0 < on_tokens < 0.02 * stocks.per_prompt
    assert stocks.per_prompt == pytest.approx(1.81e9, rel=0.005)

    ours = absorbed_macs(VIT_B)
    assert ours.per_tile == 3 * projection
    assert ours.per_survivor == upscaling == pytest.approx(0.40e9, rel=0.01)
    rows = 1 * 56 + 4 * 56 + 2 * 32  # layer 1, layer 2, and four of the tokens once more
    pixels = rows * 4096 * 256 + 3 * 7 * 4096 * 128
    assert 0 < ours.per_prompt - pixels < 0.06 * ours.per_prompt
    assert ours.per_prompt == pytest.approx(0.39e9, rel=0.02)
    every = ours.per_tile + 1024 * ours.per_prompt + 512 * ours.per_survivor + 900 * ours.per_mask
    assert ours.of(1024, 512, 900) == every == pytest.approx(0.61e12, rel=0.01)

    compiled = compiled_macs(VIT_B)
    firsts = 16 + 3 * 256  # of a head's first token: two layers' logits, two layers' values
    assert ours.per_prompt - compiled.per_prompt == 8 * firsts * 4096
    through = 101 * 4096 * 256 + 98 * 256 * 256  # 96 rows of two layers, their norms', and 1
    assert compiled.per_survivor == through + upscaling - 4096 * 256 * 256
    assert compiled.per_tile == ours.per_tile + 4096 * 256 * 256


def flops_of(work):
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        work()
    return counter.get_total_flops()


def test_multiply_adds_as_pytorch_counts_them():
    network = stock_sam()
    sam = ours_like(network)
    embedding = torch.randn(1, 32, 8, 8)
    absorbed = AbsorbedDecoder(sam, compiled=False)

    def stock_of(count):
        return flops_of(
            lambda: network.mask_decoder(
                image_embeddings=embedding,
                image_pe=torch.randn(1, 32, 8, 8),
                sparse_prompt_embeddings=torch.randn(count, 2, 32),
                dense_prompt_embeddings=torch.randn(count, 32, 8, 8),
                multimask_output=True,
            )
        )

    assert stock_of(5) - stock_of(3) == 2 * 2 * stock_macs(SMALL).per_prompt
    with torch.inference_mode():
        image = absorbed.share(embedding[0])

    def absorbed_of(count):
        return flops_of(lambda: absorbed.transform(image, torch.rand(count, 2) * 64))

    prompt_encoding = 2 * 2 * 2 * 16  # two points a prompt, two numbers a point, 16 frequencies
    found = absorbed_of(5) - absorbed_of(3) - 2 * prompt_encoding
    assert found == pytest.approx(2 * 2 * absorbed_macs(SMALL).per_prompt, rel=0.01)


def test_multiply_adds_of_the_encoder_as_pytorch_counts_them():
    config = replace(SMALL, window_size=4, encoder_depth=3, global_blocks=(2,))  # windows fit
    encoder = ours_like(stock_sam(config), config).image_encoder
    pixels = torch.randn(1, 3, config.image_size, config.image_size)
    attended = flops_of(lambda: encoder(pixels, attend_by_products, attend_by_products))
    assert attended == 2 * encoder_macs(config)


def attend_by_products(query, key, value, by_row, by_column):
    return (query @ key.mT).softmax(-1) @ value  # what the counter counts


def test_work_of_stages():
    tile = SimpleNamespace(prompted=10, prompts_left=4, masks_left=6)
    work = work_of(VIT_B, "compiled", [tile])
    assert work["encode"].flops == pytest.approx(0.94e12, rel=0.03)
    assert work["decode"].flops == 2 * compiled_macs(VIT_B).of(10, 4, 6)
    token = 4 * 4096
    # Image tokens of one layer, written and read; 48 weights and two numbers of each of two.
    moved = 10 * (2 * 256 + 2 * 50) * token + 4 * 2 * 50 * token + 6 * 4 * 256**2
    assert work["decode"].bytes == moved
    assert work["filter"].bytes == 6 * 4 * 256**2
    stock = work_of(VIT_B, "stock", [tile])["decode"]
    assert stock.flops == 2 * stock_macs(VIT_B).of(10, 4, 6) and stock.bytes > moved


def test_stages_are_told_beside_the_machine():
    tile = TileMasks((8, 8), [], {"encode": 2.0, "decode": 0.0}, 2.0, 10, 4, 6)
    sides = [SideResult("stock AMG", "stock", [tile]), SideResult("ours", "unknown", [tile])]
    rows = stage_rows(VIT_B, sides, [tile], gemm=1e12, copy=1e10)
    assert len(rows) == 2  # a stage that took no time, and a decoder that is not known, have none
    assert rows[1][:2] == ("encode", "stock AMG")
    flops, rate, share, _, bandwidth, of_copy = rows[1][2:]
    assert float(rate) == pytest.approx(float(flops) / 2, abs=1)
    assert share == f"{float(rate) / 1e3:.0%}"
    assert of_copy == f"{float(bandwidth) / 10:.0%}"


# --- machine and tables


def row(name, median, **extra):
    return {"name": name, "median": median, "extra_info": extra}


def test_kernel_tables_compare_with_the_fastest_baseline():
    moved = {"bytes": 2_000_000, "bytes_per_second": 4e9, "share_of_copy": 0.25}
    lines = table(
        "group",
        [
            row("test_ours", 0.0005, baseline=False, **moved),
            row("test_slow", 0.01, baseline=True),
            row("test_quick", 0.001, baseline=True),
        ],
    )
    assert [line.split() for line in lines] == [
        ["group", "median", "ratio", "bytes", "GB/s", "of", "copy"],
        ["slow", "(baseline)", "10.00", "ms", "0.1", "x"],
        ["quick", "(baseline)", "1.00", "ms", "1.0", "x"],
        ["ours", "500.00", "µs", "2.0", "x", "2.00", "MB", "4.00", "25.0%"],
    ]


def test_what_the_machine_can_do():
    assert machine.copy_bandwidth(1 << 20, repeats=1) > 0
    rate = machine.gemm_rate(side=64, repeats=1)
    assert f"GEMM {rate / 1e9:.0f} GFLOP/s" in machine.describe("cpu", rate)
    assert sides.resident_bytes("VmHWM") >= sides.resident_bytes("VmRSS") > 1 << 20
