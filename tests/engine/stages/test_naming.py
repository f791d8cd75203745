"""Names through a run's life: painted, carried to other clusters and to other archives, killed."""

import json
import shutil
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from click.testing import CliRunner

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.cli.name import name as command
from alps.engine.clusters.file import load_clusters
from alps.engine.labels.classes import read_classes
from alps.engine.naming import edit
from alps.engine.naming.names import Named, Names, read_names
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages import naming
from alps.engine.stages.label import label_archive
from alps.engine.stages.one_pass import OnePass
from alps.engine.stages.opening import RunOptions
from alps.engine.stages.single import cluster, paint
from alps.engine.stages.verify import verify_archive

K = 6
SETTINGS = RunSettings(cluster=ClusterSettings(clusters=K))
HOSTILE = ("<script>alert(1)</script>", "w" * 10_000, "two\nlines", "=1+1", "\u202eabc", "مياه")

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, saved_archive, speck):
    """A run without names, made once; its images stay where they are."""
    home = tmp_path_factory.mktemp("labelled")
    options = RunOptions(model=str(speck), device="cpu", max_failed=1.0)
    label_archive(saved_archive, home / "run", SETTINGS, options)
    return home / "run"


@pytest.fixture
def run(labelled, tmp_path):
    """A copy of it, to be named."""
    shutil.copytree(labelled, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def labels(folder):
    return {
        path.relative_to(folder.root).as_posix(): rasterio.open(path).read(1)
        for path in sorted(folder.root.glob("labels/**/*"))
        if path.suffix in (".png", ".tif")
    }


def files(folder):
    rooms = ("labels", "clusters")
    paths = [path for room in rooms for path in sorted((folder.root / room).rglob("*"))]
    paths += [folder.clusters, folder.classes, folder.names]
    return {path: path.read_bytes() for path in paths if path.is_file()}


def classes(folder):
    return {one.id: one for one in read_classes(folder.classes).classes}


def change(folder, *edits):
    names = naming.change_names(folder, edits)
    paint(folder.root)
    return names


def name(cluster, text):
    return partial(edit.name, clusters=(cluster,), text=text)


def split(cluster, parts):
    return partial(edit.split, cluster=cluster, parts=parts, clusters=K)


@pytest.mark.report
def test_label_maps_show_what_is_said(run):
    before, sizes = labels(run), classes(run)
    change(
        run, name(1, "water"), partial(edit.merge, clusters=(1, 4)),
        partial(edit.ignore, cluster=2), partial(edit.colour, cluster=3, value="#010203"),
    )  # fmt: skip
    for path, found in labels(run).items():
        expected = np.where(before[path] == 4, 1, before[path])
        np.testing.assert_array_equal(found, np.where(before[path] == 2, 255, expected))
    now = classes(run)
    assert now[1].name == now[4].name == "water" and now[4].part_of == 1 and now[2].ignored
    assert now[1].pixels == sizes[1].pixels + sizes[4].pixels and now[4].pixels == 0
    assert now[3].colour == (1, 2, 3) and now[3].name == "cluster 3"
    tiff = run.root / "labels" / "north" / "e.tif"
    with rasterio.open(tiff) as dataset:
        assert dataset.colormap(1)[3] == (1, 2, 3, 255)
    assert "<Category>water</Category>" in tiff.with_name("e.tif.aux.xml").read_text()
    assert (
        tiff.with_suffix(".qml").exists()
        and "water" in (run.root / "report/index.html").read_text()
    )
    assert verify_archive(run).is_right
    change(
        run, name(1, ""), partial(edit.separate, cluster=4),
        partial(edit.ignore, cluster=2, is_ignored=False),
        partial(edit.colour, cluster=3, value=""),
    )  # fmt: skip
    assert read_names(run).classes == () and classes(run) == sizes
    assert all((labels(run)[path] == before[path]).all() for path in before)
    assert not tiff.with_suffix(".qml").exists()


def test_names_by_hand_count_once_painted(run):
    run.names.write_text('{"classes": [{"clusters": [0], "name": "sea"}]}')
    with pytest.raises(RunFolderError, match="older than its names of classes; run: alps paint"):
        run.refuse_unpainted()
    paint(run.root)
    run.refuse_unpainted()
    assert classes(run)[0].name == "sea" and load_clusters(run.clusters).names == read_names(run)
    run.names.write_text('{"classes": [{"clusters": [99], "name": "sea"}]}')
    with pytest.raises(RunFolderError, match=r"names\.json cannot be used: there is no cluster 99"):
        paint(run.root)
    others = Names((Named((0,), "sea"),), clusters="0" * 64)
    run.names.write_text(others.text())
    with pytest.raises(RunFolderError, match="names other clusters than those of"):
        paint(run.root)


def test_a_split_changes_the_class_of_nothing_else(run):
    before, largest = labels(run), max(classes(run).values(), key=lambda one: one.regions).id
    names = change(run, split(largest, 3), name(K, "part"))
    into = names.splits[0].into
    assert into == (largest, K, K + 1)
    was, now = (np.concatenate([one.ravel() for one in m.values()]) for m in (before, labels(run)))
    # What joins patches to their neighbours goes by classes, so some at its borders may move.
    assert np.isin(now[was == largest], into).mean() > 0.8
    assert (now[was != largest] == was[was != largest]).mean() > 0.9
    assert all(classes(run)[part].pixels for part in into) and classes(run)[K].name == "part"
    base = pq.read_table(run.region_classes(0))["cluster"].to_numpy()
    naming.change_names(run, [partial(edit.unsplit, cluster=largest)])
    whole = pq.read_table(run.region_classes(0))["cluster"].to_numpy()
    np.testing.assert_array_equal(np.where(np.isin(base, into), largest, base), whole)
    paint(run.root)
    assert all((labels(run)[path] == before[path]).all() for path in before)
    with pytest.raises(SettingsError, match=r"cannot be split into 3|2 to 64"):
        naming.change_names(run, [split(largest, 10_000)])


@pytest.mark.slow
def test_a_split_that_is_stopped_ends_the_same(run, tmp_path, stopped_after):
    names = naming.change_names(run, [split(0, 2), split(1, 2), name(K, "part")])
    paint(run.root)
    expected, label_maps = files(run), labels(run)
    naming.change_names(run, [partial(edit.unsplit, cluster=one) for one in (0, 1)])
    paint(run.root)
    run.names.write_text(names.text())  # by hand
    for renames in range(100):
        try:
            with stopped_after(renames):
                paint(run.root)
            break
        except KeyboardInterrupt:
            continue
    assert renames > 5
    assert {path: labels(run)[path].tolist() for path in label_maps} == {
        path: found.tolist() for path, found in label_maps.items()
    }
    assert files(run)[run.clusters] == expected[run.clusters]


def test_names_are_kept_where_other_clusters_match(run, capsys):
    change(run, name(0, "sea"), name(1, "land"), split(2, 2), name(K, "part"))
    capsys.readouterr()
    cluster(run.root, ClusterSettings(clusters=K + 2))
    said = capsys.readouterr().err
    names = read_names(run)
    assert f"names: {len(names.classes)} of 3 are kept" in said
    assert "cluster 2 is split no more" in said
    assert names.splits == () and names.classes and not naming._kept(run).exists()
    for one in names.classes:
        assert one.carried is None or one.carried > 0.3
        assert (f"{one.name}: {one.carried or 1:.0%}" in said) == ((one.carried or 1) < 2 / 3)
    paint(run.root)
    assert {one.name for one in classes(run).values()} >= {one.name for one in names.classes}


@pytest.mark.slow
def test_names_survive_a_stop_between_two_clusterings(run, stopped_after):
    change(run, name(0, "sea"), split(2, 2))
    kept = read_names(run)
    with pytest.raises(KeyboardInterrupt), stopped_after(3):
        cluster(run.root, ClusterSettings(clusters=K + 1))
    cluster(run.root, ClusterSettings(clusters=K))  # as they were
    assert read_names(run) == kept
    paint(run.root)
    assert classes(run)[0].name == "sea" and len(classes(run)) == K + 1


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True])
def test_names_label_the_next_archive(run, archive, tmp_path, options, keep):
    change(run, name(0, "sea"), partial(edit.merge, clusters=(0, 3)), split(1, 2), name(K, "part"))
    (archive.parent / "alone").mkdir()
    file = archive.parent / "alone" / "clusters.npz"  # the file by itself takes them along
    file.write_bytes(run.clusters.read_bytes())
    next_run = RunFolder(tmp_path / "next")
    label_archive(archive, next_run.root, None, options, OnePass(file, keep))
    assert {path: found.tolist() for path, found in labels(next_run).items()} == {
        path: found.tolist() for path, found in labels(run).items()
    }
    assert next_run.classes.read_bytes() == run.classes.read_bytes()
    next_run.refuse_unpainted()
    before = files(next_run)
    label_archive(archive, next_run.root, None, options, OnePass(file, keep))
    assert files(next_run) == before
    if keep:
        change(next_run, name(0, "lake"))
        assert classes(next_run)[0].name == "lake"
    else:
        with pytest.raises(RunFolderError, match="labelled in one pass"):
            naming.refuse_unnameable(next_run)
        next_run.names.write_text("{}")
        with pytest.raises(RunFolderError, match="names"):
            label_archive(archive, next_run.root, None, options, OnePass(file, keep))


@pytest.mark.report
def test_hostile_names_change_nothing_but_the_name_shown(run):
    before = labels(run)
    names = change(run, *(name(number, text) for number, text in enumerate(HOSTILE)))
    assert [one.clusters for one in names.classes] == [(number,) for number in range(K)]
    assert all((labels(run)[path] == before[path]).all() for path in before)
    page = (run.root / "report/index.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert classes(run)[2].name == "two lines" and len(classes(run)[1].name) <= 100


def test_a_run_in_use_is_not_renamed(run):
    with locked(run), pytest.raises(RunFolderError, match="another run is writing"):
        naming.change_names(run, [name(0, "sea")])


class TestCommand:
    """``alps name``."""

    def call(self, folder, *arguments):
        done = CliRunner().invoke(command, [str(folder.root), *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            return 1, str(done.exception)
        return done.exit_code, done.output

    def test_all_changes(self, run):
        code, said = self.call(
            run, "--split", "5=2", "--merge", "3,4=grass", "--set", "1=water", "--set", "6=pier",
            "--colour", "1=#0000ff", "--ignore", "2",
        )  # fmt: skip
        assert code == 0 and "    3  grass (of 3, 4)\n" in said and "5  is split into 5, 6" in said
        assert classes(run)[6].name == "pier" and classes(run)[1].colour == (0, 0, 255)
        assert "    2  – (of 2, ignored)\n" in self.call(run, "--list")[1]
        run.refuse_unpainted()
        code, said = self.call(
            run, "--unsplit", "5", "--separate", "4", "--unignore", "2", "--no-paint"
        )
        assert code == 0 and "label maps are older" in said
        assert [one.clusters for one in read_names(run).classes] == [(1,), (3,)]
        with pytest.raises(RunFolderError, match="names of classes"):
            run.refuse_unpainted()

    def test_names_after_real_labels(self, run, tmp_path):
        self.call(run, "--set", "0=mine")
        truth = tmp_path / "truth"
        for path, found in labels(run).items():
            target = truth / path.removeprefix("labels/")
            target.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(
                target.with_suffix(".png"), "w", driver="PNG", count=1, dtype="uint8",
                width=found.shape[1], height=found.shape[0],
            ) as dataset:  # fmt: skip
                dataset.write(np.where(found == 255, 255, found // 3)[None].astype(np.uint8))
        code, said = self.call(run, "--from-truth", str(truth), "--class-names", "low,high")
        assert code == 0 and "class 0: 100% low (it is called mine)\n" in said
        assert [one.clusters for one in read_names(run).classes] == [(0,), (1, 2), (3, 4, 5)]
        assert [one.name for one in read_names(run).classes] == ["mine", "low", "high"]
        unnamed = naming.suggested_names(run, truth)
        assert {one.name for one in unnamed.values()} == {"class 0", "class 1"}
        unnamed = naming.suggested_names(run, truth)
        assert {one.name for one in unnamed.values()} == {"class 0", "class 1"}
        before = run.names.read_bytes()
        assert self.call(run, "--from-truth", str(truth))[0] == 0
        assert run.names.read_bytes() == before

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (("--set", "water"), "is not like 17=water"),
            (("--set", "99=water"), "no cluster 99"),
            (("--merge", "3"), "two clusters"),
            (("--colour", "1=blue"), "#rrggbb"),
            (("--split", "1=x"), "is not like 5=3"),
            (("--split", "1,2=3"), "is not like 5=3"),
            (("--unsplit", "1"), "is not split"),
            (("--class-names", "a"), "goes with --from-truth"),
        ],
    )
    def test_what_cannot_be_said(self, run, arguments, why):
        code, said = self.call(run, *arguments)
        assert code != 0 and why in said and not run.names.exists()

    def test_a_run_that_is_none(self, tmp_path):
        code, said = self.call(RunFolder(tmp_path / "none"), "--list")
        assert code == 1 and "is not a run folder" in said

    def test_json_is_what_it_was(self, run):
        assert json.loads(run.classes.read_text())["classes"][0]["name"] == "cluster 0"
