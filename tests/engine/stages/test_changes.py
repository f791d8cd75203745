"""Images that are replaced between two starts of a run."""

import os

import pytest
from small_runs import draw, results

from alps.engine.base.errors import SettingsError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import read_table, write_table
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages import label, single
from alps.engine.stages.changes import changed_sources
from alps.engine.stages.label import label_archive
from alps.engine.stages.one_pass import OnePass
from alps.engine.stages.opening import RunOptions

SETTINGS = RunSettings(cluster=ClusterSettings(clusters=3))

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports", "shards_of_two")


@pytest.fixture
def images(three_images):
    return three_images


def test_what_changed_is_named_and_made_anew_where_asked(
    images, tmp_path, options, updating, capsys
):
    out = tmp_path / "out"
    label_archive(images, out, SETTINGS, options)
    before = results(out)
    draw(images / "b.png", 7)
    capsys.readouterr()
    label_archive(images, out, SETTINGS, options)
    said = capsys.readouterr().err
    assert "1 images were changed since this run was planned (b.png)" in said and "--update" in said
    assert results(out) == before
    label_archive(images, out, SETTINGS, updating)
    after = results(out)
    assert after["clusters.npz"] == before["clusters.npz"]  # classes are not shuffled
    differing = {name for name in before if name[:6] == "labels" and after[name] != before[name]}
    assert differing == {"labels/b.png"}
    single.cluster(out, SETTINGS.cluster)
    single.paint(out, max_failed=1)
    label_archive(images, tmp_path / "new", SETTINGS, options)
    assert results(out) == results(tmp_path / "new") != before
    capsys.readouterr()
    label_archive(images, out, SETTINGS, options)
    assert "changed" not in capsys.readouterr().err
    assert results(out) == results(tmp_path / "new")


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True])
def test_so_it_is_in_one_pass(images, tmp_path, options, updating, keep):
    label_archive(images, tmp_path / "two", SETTINGS, options)
    one_pass = OnePass(tmp_path / "two" / "clusters.npz", keep)
    label_archive(images, tmp_path / "one", None, options, one_pass)
    draw(images / "b.png", 7)
    label_archive(images, tmp_path / "one", None, updating, one_pass)
    label_archive(images, tmp_path / "new", None, options, one_pass)
    for name in ("labels/a.png", "labels/b.png", "labels/c.png", "classes.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()


@pytest.mark.slow
def test_an_update_that_is_killed_is_not_forgotten(
    images, tmp_path, options, updating, monkeypatch
):
    out = tmp_path / "out"
    label_archive(images, out, SETTINGS, options)
    draw(images / "b.png", 7)

    def killed(*given, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(label, "segment_with", killed)
        with pytest.raises(KeyboardInterrupt):
            label_archive(images, out, SETTINGS, updating)
    assert list(changed_sources(RunFolder(out)).values()) == ["b.png"]
    label_archive(images, out, SETTINGS, updating)
    single.cluster(out, SETTINGS.cluster)
    single.paint(out, max_failed=1)
    label_archive(images, tmp_path / "new", SETTINGS, options)
    assert results(out) == results(tmp_path / "new")


def test_what_counts_as_changed(images, tmp_path, options, capsys):
    out = tmp_path / "out"
    single.segment(images, out, SETTINGS, options)
    folder = RunFolder(out)
    assert changed_sources(folder) == {}
    (images / "a.png").rename(tmp_path / "a.png")  # away, which is another matter
    os.utime(images / "b.png", ns=(0, 1))
    with (images / "c.png").open("ab") as file:
        file.write(b"x")
    assert sorted(changed_sources(folder).values()) == ["b.png", "c.png"]
    stamps = folder.journal / "stamps.parquet"
    write_table(read_table(stamps).drop_columns("bytes"), stamps)
    assert changed_sources(folder) == {} and "is damaged" in capsys.readouterr().err
    stamps.write_bytes(b"junk")
    assert changed_sources(folder) == {} and "is damaged" in capsys.readouterr().err
    stamps.unlink()  # as in folders of before
    assert changed_sources(folder) == {}


@pytest.mark.parametrize("name", ["update", "retry_failed"])
def test_an_update_is_not_shared(images, tmp_path, speck, name):
    options = RunOptions(model=str(speck), device="cpu", share=(0, 2), **{name: True})
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')} goes without --shard"):
        single.segment(images, tmp_path / "out", SETTINGS, options)
