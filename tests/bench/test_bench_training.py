"""The throughput of loader, network and loop."""

import pytest
import teaching

from alps.bench.training.throughput import measure_speeds


@pytest.mark.slow
def test_speeds(tmp_path):
    data = teaching.save_data(tmp_path / "data")
    speeds = measure_speeds(data, "segformer_mini", teaching.QUICK, teaching.CPU, steps=2)
    assert min(speeds.loader, speeds.network, speeds.loop) > 0 and 0 <= speeds.waited <= 1
    assert "loader alone" in speeds.table()
