"""One pass with clusters at hand: the labels of two passes, nothing kept, no kill that shows."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.cli import main as cli
from alps.engine.clusters.file import load_clusters
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.settings import (
    ClusterSettings,
    PaintSettings,
    RunSettings,
    SegmentSettings,
    SourceSettings,
)
from alps.engine.stages import fit_clusters as fit_file
from alps.engine.stages.fit_clusters import draw_tiles, fit_clusters
from alps.engine.stages.label import RunOptions, cluster_stage, label_archive, paint_stage
from alps.engine.stages.one_pass import OnePass

pytestmark = [
    pytest.mark.slow,  # whole runs, some of them killed and started again
    pytest.mark.usefixtures("without_reports"),
]

SETTINGS = RunSettings(cluster=ClusterSettings(clusters=4))


@pytest.fixture(autouse=True)
def shards_of_three(monkeypatch):
    """Small shards: several of one source, and several sources in one."""
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 3)


@pytest.fixture
def two_pass(finished_by_threes, tmp_path):
    """A run in two passes of an archive like each test's."""
    return shutil.copytree(finished_by_threes, tmp_path / "two")


def label_maps(out):
    files = [path for path in sorted(out.glob("labels/**/*")) if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def results(out):
    names = ("clusters.npz", "classes.json")
    return label_maps(out) | {name: (out / name).read_bytes() for name in names}


def segments_in(out):
    return sorted(path.name for path in (out / "segments").glob("*"))


@pytest.mark.report
def test_the_labels_are_those_of_two_passes(archive, tmp_path, options, two_pass):
    one_pass = OnePass(two_pass / "clusters.npz")
    summary = label_archive(archive, tmp_path / "one", None, options, one_pass)
    assert results(tmp_path / "one") == results(two_pass)
    assert segments_in(tmp_path / "one") == []
    for name in ("regions", "clusters"):  # what grows with the archive is not kept
        assert not [path for path in (tmp_path / "one" / name).rglob("*") if path.is_file()]
    assert summary.segments > 20 and summary.sources == 5
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    assert run["settings"]["cluster"]["clusters"] == 4
    assert (tmp_path / "one" / "report" / "index.html").stat().st_size > 1000
    before = results(tmp_path / "one")
    label_archive(archive, tmp_path / "one", None, options, one_pass)
    assert results(tmp_path / "one") == before


def test_kept_segments_are_those_of_two_passes(archive, tmp_path, options, two_pass):
    out = tmp_path / "one"
    label_archive(archive, out, None, options, OnePass(two_pass / "clusters.npz", True))
    assert results(out) == results(two_pass)
    kept, there = (pq.read_table(folder / "segments") for folder in (out, two_pass))
    assert kept.schema.equals(there.schema)
    for name in kept.column_names:  # scores may be NaN, which equals nothing
        np.testing.assert_array_equal(*(np.array(t[name].to_pylist()) for t in (kept, there)), name)
    cluster_stage(RunFolder(out), ClusterSettings(clusters=5))
    assert paint_stage(RunFolder(out)) == {}
    assert label_maps(out) != label_maps(two_pass)


def test_no_more_shards_than_a_source_needs(archive, tmp_path, options, two_pass, monkeypatch):
    from alps.engine.stages import one_pass as stage

    most, real = [], stage._Keeper.committed

    def counted(self, shard):
        real(self, shard)
        most.append(len(segments_in(tmp_path / "one")))

    monkeypatch.setattr(stage._Keeper, "committed", counted)
    label_archive(archive, tmp_path / "one", None, options, OnePass(two_pass / "clusters.npz"))
    plan = pq.read_table(tmp_path / "one" / "journal" / "plan.parquet")
    index = plan["source_index"].to_numpy()
    spans = [np.flatnonzero(index == source)[[0, -1]] // 3 for source in np.unique(index)]
    assert len(most) > 4 and max(most) <= max(b - a + 1 for a, b in spans)


def test_stopped_at_any_rename_ends_the_same(archive, tmp_path, options, two_pass, stopped_after):
    one_pass, out = OnePass(two_pass / "clusters.npz"), tmp_path / "stopped"
    stops, allowed = 0, 1
    while stops < 60:
        try:
            with stopped_after(allowed):
                label_archive(archive, out, None, options, one_pass)
            break
        except KeyboardInterrupt:
            stops += 1
            allowed += 1 + stops % 3 * 3
    assert stops > 3
    assert results(out) == results(two_pass) and segments_in(out) == []


def test_a_label_map_that_was_deleted_is_made_again(archive, tmp_path, options, two_pass):
    one_pass, out = OnePass(two_pass / "clusters.npz"), tmp_path / "one"
    label_archive(archive, out, None, options, one_pass)
    (out / "labels" / "north" / "c.png").unlink()
    label_archive(archive, out, None, options, one_pass)
    assert results(out) == results(two_pass) and segments_in(out) == []


def test_sources_that_cannot_be_opened_or_painted(archive, tmp_path, options, two_pass):
    (archive / "broken.png").write_text("no image")
    one_pass, out = OnePass(two_pass / "clusters.npz"), tmp_path / "one"
    label_archive(archive, out, None, options, one_pass)
    assert label_maps(out) == label_maps(two_pass)
    # Another size by now, and its label map is gone: there is no way to paint it.
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(archive / "a.png")
    (out / "labels" / "a.png").unlink()
    label_archive(archive, out, None, options, one_pass)
    assert not (out / "labels" / "a.png").exists() and segments_in(out) == []


def test_what_was_not_kept_cannot_be_clustered_again(archive, tmp_path, options, two_pass):
    out = tmp_path / "one"
    label_archive(archive, out, None, options, OnePass(two_pass / "clusters.npz"))
    before = results(out)
    for stage in (
        lambda: cluster_stage(RunFolder(out), ClusterSettings(clusters=3)),
        lambda: paint_stage(RunFolder(out), PaintSettings(min_margin=0.5)),
    ):
        with pytest.raises(RunFolderError, match="--keep-segments"):
            stage()
    with pytest.raises(RunFolderError, match="keep_segments"):
        label_archive(archive, out, SETTINGS, options)
    assert results(out) == before


def test_another_run_is_refused_and_named(archive, tmp_path, options, two_pass):
    out, clusters = tmp_path / "one", two_pass / "clusters.npz"
    label_archive(archive, out, None, options, OnePass(clusters))
    doubtful = RunSettings(paint=PaintSettings(min_margin=0.2))
    with pytest.raises(RunFolderError, match=r"min_margin 0\.0 there, 0\.2 now"):
        label_archive(archive, out, doubtful, options, OnePass(clusters))
    with pytest.raises(RunFolderError, match="keep_segments False there, True now"):
        label_archive(archive, out, None, options, OnePass(clusters, True))
    cluster_stage(RunFolder(two_pass), ClusterSettings(clusters=4, seed=1))
    with pytest.raises(RunFolderError, match=r"\(clusters [0-9a-f]{64} there, [0-9a-f]{64} now\)"):
        label_archive(archive, out, None, options, OnePass(clusters))


def test_clusters_of_another_model_are_refused(archive, tmp_path, options, two_pass):
    from speck import save_speck

    clusters = two_pass / "clusters.npz"
    other = RunOptions(model=str(save_speck(tmp_path / "other.safetensors", 6)), device="cpu")
    with pytest.raises(SettingsError, match=r"made with model speck .* not with other"):
        label_archive(archive, tmp_path / "one", None, other, OnePass(clusters))
    smaller = RunSettings(source=SourceSettings(tile=96))
    with pytest.raises(SettingsError, match="--tile 128, not 96"):
        label_archive(archive, tmp_path / "one", smaller, options, OnePass(clusters))
    np.savez(tmp_path / "theirs.npz", centroids=np.zeros((3, 4)))
    with pytest.raises(RunFolderError, match=r"theirs\.npz"):
        label_archive(archive, tmp_path / "one", None, options, OnePass(tmp_path / "theirs.npz"))
    finer = RunSettings(segment=SegmentSettings(points_per_side=3))  # the gate may differ
    label_archive(archive, tmp_path / "one", finer, options, OnePass(clusters))


def test_least_margin_in_one_pass_and_in_two(archive, tmp_path, options):
    two_pass = tmp_path / "two"
    label_archive(archive, two_pass, SETTINGS, options)
    margins = pq.read_table(two_pass / "clusters")["margin"].to_numpy()
    sure = RunSettings(
        cluster=SETTINGS.cluster, paint=PaintSettings(min_margin=float(np.median(margins)))
    )
    plain = label_maps(two_pass)
    label_archive(archive, tmp_path / "one", sure, options, OnePass(two_pass / "clusters.npz"))
    label_archive(archive, two_pass, sure, options)
    assert results(tmp_path / "one") == results(two_pass)
    assert label_maps(two_pass) != plain
    unlabelled = json.loads((two_pass / "classes.json").read_text())["unlabelled_pixels"]
    assert paint_stage(RunFolder(two_pass)) == {}
    assert label_maps(two_pass) == plain
    assert json.loads((two_pass / "classes.json").read_text())["unlabelled_pixels"] < unlabelled
    with pytest.raises(SettingsError, match="--min-margin"):
        paint_stage(RunFolder(two_pass), PaintSettings(min_margin=2))


# --- clusters of a sample


def test_clusters_of_all_tiles_are_those_of_a_run(archive, tmp_path, options, two_pass):
    file = tmp_path / "new" / "clusters.npz"
    count = fit_clusters(archive, file, 10_000, SETTINGS, options)
    assert count == pq.read_table(two_pass / "clusters").num_rows
    found, expected = load_clusters(file), load_clusters(two_pass / "clusters.npz")
    assert found.sha256 == expected.sha256
    assert found.made_with["model"] == expected.made_with["model"]
    assert [path.name for path in file.parent.iterdir()] == ["clusters.npz"]


def test_a_sample_is_drawn_over_the_archive(archive, tmp_path, options):
    work = tmp_path / "work"
    (archive / "broken.png").write_text("no image")
    fit_clusters(archive, tmp_path / "a.npz", 5, SETTINGS, options, work)
    tiles = pq.read_table(work / "tiles.parquet")
    assert tiles.num_rows == 5 and tiles["tile_id"].to_pylist() == list(range(5))
    assert len(set(tiles["source"].to_pylist())) > 1 and set(tiles["status"].to_pylist()) == {"ok"}
    fit_clusters(archive, tmp_path / "b.npz", 5, SETTINGS, options, work)  # goes on
    fit_clusters(archive, tmp_path / "c.npz", 5, SETTINGS, options)
    other = RunSettings(cluster=ClusterSettings(clusters=4, seed=1))
    fit_clusters(archive, tmp_path / "d.npz", 5, other, options)
    a, b, d = ((tmp_path / f"{name}.npz").read_bytes() for name in "abd")
    assert (
        a == b
        and load_clusters(tmp_path / "a.npz").sha256 == load_clusters(tmp_path / "c.npz").sha256
    )
    assert a != d
    with pytest.raises(RunFolderError, match="sample 5 there, 6 now"):
        fit_clusters(archive, tmp_path / "a.npz", 6, SETTINGS, options, work)
    summary = label_archive(archive, tmp_path / "out", None, options, OnePass(tmp_path / "a.npz"))
    assert summary.coverage > 0 and summary.tiles["failed"] == 1


def test_a_sample_that_was_stopped_goes_on(archive, tmp_path, options, monkeypatch):
    fit_clusters(archive, tmp_path / "whole.npz", 8, SETTINGS, options)
    file = tmp_path / "stopped.npz"
    monkeypatch.setattr(
        fit_file, "cluster_stage", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        fit_clusters(archive, file, 8, SETTINGS, options)
    assert not file.exists() and (tmp_path / ".stopped.npz.sample").is_dir()
    monkeypatch.undo()
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 3)
    monkeypatch.setattr(
        "alps.engine.stages.tiles.masks.TileStages.find", lambda *_: pytest.fail("segmented again")
    )
    fit_clusters(archive, file, 8, SETTINGS, options)
    assert load_clusters(file).sha256 == load_clusters(tmp_path / "whole.npz").sha256
    assert not (tmp_path / ".stopped.npz.sample").exists()


def test_samples_that_cannot_be(archive, tmp_path, options):
    with pytest.raises(SettingsError, match="--sample 0"):
        fit_clusters(archive, tmp_path / "a.npz", 0, SETTINGS, options)
    with pytest.raises(SettingsError, match="is a folder"):
        fit_clusters(archive, tmp_path, 3, SETTINGS, options)
    many = RunSettings(cluster=ClusterSettings(clusters=5000))
    with pytest.raises(SettingsError, match=r"only .* regions"):
        fit_clusters(archive, tmp_path / "a.npz", 3, many, options)
    assert not (tmp_path / "a.npz").exists()


def test_a_drawn_plan_keeps_order_and_leaves_out_what_cannot_be_read():
    import pyarrow as pa

    from alps.engine.run_folder.schemas import PLAN_SCHEMA

    row = {name: 0 for name in PLAN_SCHEMA.names} | dict.fromkeys(
        ("source", "path", "label", "reason"), ""
    )
    rows = [row | {"tile_id": i, "x": i, "reason": "bad" if i % 3 == 0 else ""} for i in range(30)]
    plan = Plan(pa.Table.from_pylist(rows, schema=PLAN_SCHEMA))
    drawn = draw_tiles(plan, 7, 0)
    x = drawn["x"].to_numpy()
    assert drawn.schema == PLAN_SCHEMA and drawn["tile_id"].to_pylist() == list(range(7))
    assert (np.diff(x) > 0).all() and (x % 3 != 0).all()
    assert draw_tiles(plan, 7, 0).equals(drawn) and not draw_tiles(plan, 7, 1).equals(drawn)
    assert draw_tiles(plan, 100, 0).num_rows == 20


def test_options_that_would_do_nothing_are_refused(tmp_path):
    file = tmp_path / "clusters.npz"
    file.write_bytes(b"")

    def run(*arguments):
        return CliRunner().invoke(cli.commands, ["label", "src", str(tmp_path), *arguments])

    said = run("--clusters-from", str(file), "--clusters", "46").exception
    assert isinstance(said, SettingsError) and "--clusters has no effect" in str(said)
    said = run("--keep-segments").exception
    assert isinstance(said, SettingsError) and "--clusters-from" in str(said)
    assert run("--clusters-from", str(tmp_path / "none.npz")).exit_code == 2
