"""What a tile should take on a GPU: the arithmetic, against what was worked out by hand."""

import pytest

from alps.bench.gpu import clustering
from alps.bench.gpu.clustering import ways
from alps.bench.gpu.prediction import (
    H100,
    POINTS,
    WITH_MASK,
    Work,
    decoder_work,
    encoder_work,
    table,
)
from alps.engine.sam.config import OFFICIAL


@pytest.mark.parametrize(
    ("model", "linear", "everywhere"),
    [("vit_b", 0.742, 0.206), ("vit_l", 2.632, 0.275), ("vit_h", 5.480, 0.344)],
)
def test_products_of_the_encoder(model, linear, everywhere):
    """TFLOP, with what of the rest is linear."""
    products, attention, _ = encoder_work(OFFICIAL[model])
    assert 2e-12 * products.macs == pytest.approx(linear, rel=0.01)
    assert 2e-12 * attention.macs == pytest.approx(everywhere, rel=0.02)


def test_products_of_the_decoders_passes():
    """Million multiply-adds a point, as they are multiplied."""
    works = {work.name: work for work in decoder_work(OFFICIAL["vit_b"])}
    macs = {
        name: work.macs / 1e6 / (WITH_MASK if " 4" in name else POINTS)
        for name, work in works.items()
    }
    expected = {"tokens": 22, "pass 1": 7.3, "pass 2": 302, "pass 3": 402, "pass 4a": 302}
    for name, value in (expected | {"pass 4b": 442}).items():
        assert macs[f"decoder: {name}"] == pytest.approx(value, rel=0.03)


def test_a_stage_takes_the_longer_of_moving_and_computing():
    one = H100.memory * 1e-3
    assert Work("", moved=one).seconds(H100) == pytest.approx(1e-3)
    products = Work("", macs=H100.halves * 2e-3 / 2, moved=one)
    assert products.seconds(H100) == pytest.approx(2.5e-3)
    exact = Work("", macs=H100.halves * 2e-3 / 2, exact=True)
    assert exact.seconds(H100) == pytest.approx(7.5e-3)


def test_a_pass_of_kmeans():
    """10 million vectors of 256 float16: the memory's least, and what two halves multiply."""
    tiled, products, fused = ways(10_000_000, 46, 256)
    assert tiled.macs == 0 and products.macs == 2 * 10_000_000 * 46 * 256
    assert fused.macs == 3 * 10_000_000 * 64 * 256  # as many centroids as tensor cores take
    read = 10_000_000 * (512 + 12)
    assert tiled.moved == fused.moved == read
    assert products.moved == read + 10_000_000 * (512 + 2 * 2 * 46 * 4)
    assert fused.seconds(H100) < 1.5 * read / H100.memory < products.seconds(H100)
    assert products.seconds(H100) < tiled.seconds(H100) / 2
    assert len(clustering.table(10, 4, 8)) == 6
    assert len(list(ways(10, 256, 256))) == 2  # too many for one kernel


def test_the_table_adds_up():
    rows = [line.strip("|* ").replace("*", "").split("|") for line in table()[2:]]
    numbers = {row[0].strip(): [float(value) for value in row[1:]] for row in rows}
    parts = [numbers[name] for name in ("encoder", "decoder", "after")]
    for column, whole in enumerate(numbers["a tile"]):
        assert sum(part[column] for part in parts) == pytest.approx(whole, abs=0.16)
        assert numbers["tiles/s"][column] == pytest.approx(1000 / whole, rel=0.06)
