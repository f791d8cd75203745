"""The archive that clustering is measured on."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from alps.bench.labels import clusters
from alps.engine.clusters.region_reader import RegionReader
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.region_schemas import REGION_SCHEMA
from alps.engine.run_folder.schemas import segment_schema
from alps.engine.run_folder.tables import read_table


@pytest.mark.slow
def test_a_made_up_archive_is_clustered(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "SHARD_ROWS", 400)
    monkeypatch.setattr(clusters, "DISTINCT_ROWS", 800)
    folder = RunFolder(tmp_path / "run")
    clusters.write_archive(folder.root, 1300)
    done = CliRunner().invoke(clusters.main, ["child", str(folder.root), "5"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["inertia"] > 0 and found["peak"] >= found["before"] > 0
    assert min(found[stage] for stage in ("features", "fit", "assign")) > 0
    for group, rows in enumerate((400, 400, 400, 100)):
        segments, regions = (read_table(f(group)) for f in (folder.segments, folder.regions))
        assert segments.schema.equals(segment_schema(clusters.CHANNELS))
        assert regions.schema.equals(REGION_SCHEMA)
        classes = read_table(folder.region_classes(group)).column("cluster").to_numpy()
        assert segments.num_rows == regions.num_rows == len(classes) == rows
        assert 0 <= classes.min() <= classes.max() < 5
    columns = RegionReader(folder).columns(read_table(folder.regions(1)))
    np.testing.assert_array_equal(columns.entry[::2], np.arange(400))
    assert sorted(columns.entry[1::2]) == list(range(400))
    shares = np.add.reduceat(columns.share, columns.starts[:-1])
    np.testing.assert_allclose(shares, 1, rtol=1e-6)


@pytest.mark.slow
def test_streaming_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "SHARD_ROWS", 300)
    results = tmp_path / "results.md"
    given = ["stream", str(tmp_path), "--rows", "900", "--clusters", "4"]
    done = CliRunner().invoke(clusters.main, [*given, "--only-write"])
    assert done.exit_code == 0 and not results.exists()
    done = CliRunner().invoke(clusters.main, [*given, "--results", str(results)])
    assert done.exit_code == 0, done.output
    text = results.read_text()
    assert "900 x 256" in text and "3 shards" in text and "peak resident memory" in text
