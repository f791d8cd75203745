"""The made-up run of the bench of scale goes through all stages, and each does its work."""

import pytest

from alps.bench import scale
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.tables import read_table


@pytest.mark.slow
def test_every_stage_does_its_work(tmp_path):
    folder = RunFolder(tmp_path / "run")
    before = set()
    for name, stage in scale.STAGES.items():
        stage(folder, 600)
        if name == "prepare":
            plan = Plan.of(folder)
            assert plan.tiles == 600 and plan.sources_count == 60
            left = [s for s in range(plan.shards) if not folder.shard_tiles(s).exists()]
            assert len(left) == scale.LIVE_SHARDS  # that the next stage segments
        now = {path for path in folder.root.rglob("*") if path.is_file()}
        assert name == "status" or now - before, name
        before = now
    assert read_table(folder.tiles).num_rows == 600
    assert len(folder.painted.read_bytes().splitlines()) == 60
