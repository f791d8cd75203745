"""Workers on Ray: a cluster of two nodes on this machine, workers and nodes that die."""

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import chain
from pathlib import Path

import pytest
import ray_workers
from pages import small_archive

from alps.bench.proofs.kill_resume import results
from alps.engine.base.errors import SettingsError, SourceAwayError, WorkerError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.settings import ClusterSettings, RunSettings, SegmentSettings
from alps.engine.stages.label import label_archive
from alps.engine.stages.opening import RunOptions
from alps.engine.stages.tiles.crew import crew_for
from alps.engine.workers import ray as crews
from alps.engine.workers.ray import RayCrew, connect
from alps.engine.workers.ray_seat import Need, Wanted


def test_how_many_workers_fit():
    assert Need(4).fits({"CPU": 9.0}) == 2 and Need(4).fits({"memory": 1e9}) == 0
    assert Need(4, 1).fits({"CPU": 64.0, "GPU": 3.0}) == 3
    assert Need(4, 1).fits({"CPU": 7.0, "GPU": 3.0}) == 1
    assert Need(4, 1).fits({"CPU": 64.0}) == 0


HEAD, SMALL, LARGE = {"CPU": 0.0}, {"CPU": 2.0}, {"CPU": 64.0}
GPUS = {"CPU": 24.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("wanted", "nodes", "need"),
    [
        (Wanted(), [HEAD, LARGE], Need(8)),
        (Wanted(), [HEAD, LARGE, SMALL], Need(2)),  # all nodes have room for one
        (Wanted(), [HEAD], Need(8)),  # nodes are still to come
        (Wanted(cores=3), [LARGE], Need(3)),
        (Wanted(), [HEAD, LARGE, GPUS], Need(6, 1)),
        (Wanted("cpu"), [HEAD, GPUS], Need(8)),
        (Wanted("cuda"), [HEAD], Need(8, 1)),
    ],
)
def test_what_a_worker_takes_of_the_nodes_there_are(wanted, nodes, need):
    assert wanted.need(nodes) == need


def test_ray_says_which_gpu_is_whose():
    with pytest.raises(SettingsError, match="Ray shares GPUs out"):
        Wanted("cuda:1").need([GPUS])


def test_ray_is_imported_when_a_crew_meets_and_not_before():
    program = (
        "import sys, alps.engine.workers.ray, alps.engine.cli.commands, alps.engine.stages.label\n"
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'alps-engine\[ray\]'"):
        connect("ray")


# --- on a cluster


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core, beside a head that does no work."""
    pytest.importorskip("ray", reason="needs ray: pip install 'alps-engine[ray]'")
    from ray.cluster_utils import Cluster

    node = {"object_store_memory": crews.STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"num_cpus": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address)
        # What nodes import: this is a cluster of one machine, where they inherit it.
        path = [str(Path(ray_workers.__file__).parent), os.environ.get("PYTHONPATH")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        cluster.options = node
        for _ in range(2):
            cluster.add_node(num_cpus=1, **node)
        yield cluster
    cluster.shutdown()


@pytest.fixture
def crew(cluster):
    with RayCrew("ray", Wanted()) as crew:
        yield crew


def carry_out(crew, job, numbers, tell=lambda count: None):
    return dict(crew.carry_out(job, numbers, tell))


def notes(folder):
    """What each process did, in order."""
    return {path.stem: [int(line) for line in path.read_text().split()]
            for path in folder.glob("*.txt")}  # fmt: skip


SQUARES = {number: number**2 for number in range(8)}


@pytest.mark.slow
def test_both_nodes_work_and_the_lowest_comes_first(cluster, tmp_path):
    import ray

    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    told = []
    with RayCrew("ray", Wanted()) as crew:
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
        job = ray_workers.Squares(tmp_path, seconds=0.3)
        assert carry_out(crew, job, iter(range(8)), told.append) == SQUARES
        assert crew.size == 2
        done = notes(tmp_path)
        assert len(done) == 2
        assert all(items == sorted(items) for items in done.values())
        assert sorted(chain(*done.values())) == list(range(8))
        assert sum(told) == 80 and len(told) > 2  # now and then, and not at the end alone
        # The same processes do the next job.
        assert carry_out(crew, job, range(8, 10)) == {8: 64, 9: 81}
        assert set(notes(tmp_path)) == set(done)
        assert carry_out(crew, job, []) == {}
    assert not ray.is_initialized()


@pytest.mark.slow
def test_no_more_workers_than_were_asked_for(cluster, tmp_path):
    with RayCrew("ray", Wanted(workers=1)) as crew:
        assert carry_out(crew, ray_workers.Squares(tmp_path, 0.1), range(8)) == SQUARES
        assert crew.device == "cpu"
    assert len(notes(tmp_path)) == 1


@pytest.mark.slow
def test_a_worker_has_its_threads_before_torch_is_there(crew, tmp_path):
    assert carry_out(crew, ray_workers.Environment(tmp_path), [1]) == {1: ("1", 1, False)}


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(crew, tmp_path, capsys):
    assert carry_out(crew, ray_workers.DiesOnce(tmp_path), range(8)) == SQUARES
    assert (tmp_path / "died").exists()
    said = capsys.readouterr().err
    assert "a worker was lost at square 3: its worker process has died; another one" in said


@pytest.mark.slow
def test_what_kills_each_worker_is_given_up(crew, tmp_path, monkeypatch):
    monkeypatch.setattr(crews, "MOST_DEATHS", 2)
    with pytest.raises(WorkerError, match=r"2 workers were lost .* at square 3") as caught:
        carry_out(crew, ray_workers.DiesAlways(tmp_path), range(8))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "wanted", "text"),
    [
        (ray_workers.FindsNothing, SourceAwayError, r"^tiles/3.png is away; bring it back$"),
        (ray_workers.Breaks, WorkerError, r"^square \d failed on Ray: ValueError: no \d$"),
        (ray_workers.CannotBegin, SourceAwayError, r"^no weights here$"),
    ],
)
def test_errors_of_workers_arrive_as_they_are(crew, tmp_path, kind, wanted, text):
    with pytest.raises(wanted, match=text):
        carry_out(crew, kind(tmp_path), range(8))


@pytest.mark.slow
def test_a_node_that_is_killed_loses_only_what_it_was_at(cluster, crew, tmp_path, capsys):
    """Its processes all end at once, as they do when a machine is gone."""
    results = crew.carry_out(ray_workers.Squares(tmp_path, 0.2), range(16), lambda count: None)
    found = [next(results) for _ in range(4)]
    victim = int(next(iter(notes(tmp_path))))
    node = next(n for n in cluster.worker_nodes if str(victim) in children_of(n))
    threading.Thread(target=end, args=(cluster, node, victim)).start()
    found += results
    assert sorted(found) == [(number, number**2) for number in range(16)]
    done = sorted(chain(*notes(tmp_path).values()))
    assert 16 <= len(done) <= 16 + crews.AHEAD  # what was under way is done twice
    assert "a worker was lost at square" in capsys.readouterr().err
    cluster.add_node(num_cpus=1, **cluster.options)


def children_of(node):
    """Process ids of what a node's raylet has started."""
    (raylet,) = node.all_processes["raylet"]
    tasks = f"/proc/{raylet.process.pid}/task/{raylet.process.pid}/children"
    return open(tasks).read().split()


def end(cluster, node, *pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


NAMES = tuple(f"{number}.png" for number in range(16))  # two shards
SETTINGS = RunSettings(
    segment=SegmentSettings(points_per_side=3), cluster=ClusterSettings(clusters=4)
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.dear)]
)
def test_a_command_that_dies_takes_its_workers_along_and_goes_on(cluster, tmp_path, speck, number):
    small_archive(tmp_path / "tiles", NAMES)
    common = (str(tmp_path / "tiles"), str(tmp_path / "out"), "--model", str(speck), "--device",
              "cpu", "--points-per-side", "3", "--clusters", "4", "--cluster", "ray")  # fmt: skip
    command = [sys.executable, "-m", "alps.engine.cli.main", "label", *common]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not seats(cluster):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == (143 if number == signal.SIGTERM else -number)
    while seats(cluster):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    settings = RunOptions(model=str(speck), device="cpu", cluster="ray")
    label_archive(tmp_path / "tiles", tmp_path / "out", SETTINGS, settings)
    label_archive(tmp_path / "tiles", tmp_path / "plain", SETTINGS,
                  RunOptions(model=str(speck), device="cpu"))  # fmt: skip
    assert results(tmp_path / "out") == results(tmp_path / "plain")


def seats(cluster):
    """Nodes and process ids of workers."""
    return [
        (node, int(pid))
        for node in cluster.worker_nodes
        for pid in children_of(node)
        if b"ray::Seat" in command_of(int(pid))
    ]


@pytest.mark.slow
def test_an_archive_is_labelled_to_the_same_bytes_while_a_node_dies(cluster, tmp_path, speck):
    small_archive(tmp_path / "tiles", NAMES)

    def label(out, **options):
        options = RunOptions(model=str(speck), device="cpu", **options)
        label_archive(tmp_path / "tiles", tmp_path / out, SETTINGS, options)
        return results(tmp_path / out)

    plain = label("plain")
    killed = []

    def kill_one_at_work():
        while not killed:
            time.sleep(0.1)
            for node, pid in seats(cluster)[:1]:
                killed.append(pid)
                end(cluster, node, pid)

    threading.Thread(target=kill_one_at_work).start()
    assert label("ray", cluster="ray") == plain
    assert killed and len(plain) == 16 + 2 + 1
    cluster.add_node(num_cpus=1, **cluster.options)


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.mark.slow
def test_a_run_on_ray_wants_a_folder_that_nodes_see(tmp_path, monkeypatch):
    monkeypatch.setattr("alps.engine.stores.out.address_of", lambda folder: "s3://bucket/out")
    options = RunOptions(cluster="ray")
    with (
        pytest.raises(SettingsError, match="nodes would not see s3://bucket/out as a folder"),
        crew_for(RunFolder(tmp_path), options),
    ):
        pass


def test_a_cluster_that_cannot_be_started_is_one_line(monkeypatch):
    """Ray has no kind of error of its own for that."""
    ray = pytest.importorskip("ray", reason="needs ray, of the extra `ray`")

    def init(**options):
        if options["address"] == "auto":
            raise ConnectionError("none")
        raise Exception("The current node timed out during startup.\nThis could happen")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(SettingsError, match=r"no Ray cluster answers .*timed out") as caught:
        connect("ray")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_cluster_that_does_not_answer(cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(SettingsError, match="no Ray cluster answers") as caught:
        connect("ray")
    assert "\n" not in str(caught.value) and time.monotonic() - began < 60
