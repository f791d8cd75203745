"""The bench of checksums: a made-up run is one that can be verified, and hashing is counted."""

import pytest

from alps.bench.proofs.checksums import cost, verified
from alps.engine.stages.opening import RunOptions


def test_a_made_up_run_is_right(tmp_path):
    found, _ = verified(tmp_path, 40)
    assert found.is_right and not found.unknown and not found.open_shards
    assert found.files == 2 * (1 + 6) + 2 * 40 + 4 and found.bytes > 40 * 280_000


@pytest.mark.slow
def test_hashing_is_counted(archive, tmp_path, speck):
    options = RunOptions(model=str(speck), device="cpu")
    hashing, whole, tiles = cost(archive / "north", tmp_path, options)
    assert 0 < hashing < whole and tiles > 3
