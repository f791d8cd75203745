"""Workers that are processes: what they are told, how they die, and that none is left."""

import os
import signal
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import psutil
import pytest
from counting_jobs import Ages, Counting, Deadly, Slow

from alps.engine.base.errors import SettingsError, SourceError, WorkerError
from alps.engine.base.stopping import Stopped, listen
from alps.engine.stages.tiles.early import expected_workers
from alps.engine.workers.local import LocalCrew
from alps.engine.workers.place import Place, places, visible_gpus, workers_for
from alps.engine.workers.protocol import Alone, Crew, in_order
from alps.engine.workers.template import Forked, begin_early

TWO = [Place(1), Place(1)]


def nothing(count):
    pass


@pytest.fixture(autouse=True)
def no_process_is_left():
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before


def test_every_number_once_and_what_was_told(capfd):
    told = []
    with LocalCrew(TWO) as crew:
        assert isinstance(crew, LocalCrew) and crew.size == 2
        for job in (Counting(10), Counting(20)):  # one job after the other
            found = list(crew.carry_out(job, [1, 3, 4, 5, 9], told.append))
            assert sorted(found) == [(n, n * job.factor) for n in (1, 3, 4, 5, 9)]
        assert list(crew.carry_out(Counting(2), [], told.append)) == []
    assert sum(told) == 2 * (1 + 3 + 4 + 5 + 9)
    assert "said by a worker" in capfd.readouterr().err


def test_alone_gives_the_same():
    told = []
    crew: Crew = Alone()
    assert list(crew.carry_out(Counting(3), [1, 2], told.append)) == [(1, 3), (2, 6)]
    assert told == [1, 2]


def test_results_in_order():
    results = iter([(4, "d"), (1, "a"), (9, "z"), (2, "b")])
    assert list(in_order(results, [1, 2, 4, 9])) == [(1, "a"), (2, "b"), (4, "d"), (9, "z")]
    assert list(in_order(iter([]), [])) == []


def test_a_worker_sees_its_place(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    own = [Place(3, gpu) for gpu in visible_gpus([1, 0])]
    with LocalCrew(own) as crew:
        found = [result for _, result in crew.carry_out(Ages(), range(8), nothing)]
    assert Counter((gpu, omp, threads) for gpu, omp, threads, _ in found).keys() <= {
        ("7", "3", 3),
        ("4", "3", 3),
    }
    assert len({pid for *_, pid in found}) == 2


def test_places_share_out_cores_and_gpus():
    assert [place.threads for place in places(3, 8, [])] == [3, 3, 2]
    assert [place.threads for place in places(4, 2, [])] == [1, 1, 1, 1]
    assert [place.gpu for place in places(3, 8, ["0", "2"])] == ["0", "2", "0"]
    assert [place.device for place in (Place(1), Place(1, "3"))] == ["cpu", "cuda"]
    assert [workers_for(cores, 0) for cores in (1, 2, 8, 15, 16, 64)] == [1, 1, 1, 1, 2, 8]
    assert workers_for(64, 4) == 4
    assert visible_gpus([2, 0], {}) == ["2", "0"]
    assert visible_gpus([1], {"CUDA_VISIBLE_DEVICES": "GPU-aa, GPU-bb"}) == ["GPU-bb"]


@pytest.mark.parametrize("error", [SourceError("a.png is away"), SettingsError("no"), KeyError(3)])
def test_what_a_job_raises_is_raised_here(error):
    with pytest.raises(type(error)) as raised, LocalCrew(TWO) as crew:
        list(crew.carry_out(Counting(1, fails_at=3, error=error), range(6), nothing))
    assert str(raised.value) == str(error)
    assert "counting_jobs" in raised.value.__notes__[0]  # where it was


def test_a_killed_workers_work_goes_to_another(tmp_path, capfd):
    with LocalCrew(TWO) as crew:
        found = list(crew.carry_out(Deadly(str(tmp_path), 3, deaths=2), range(8), nothing))
    assert sorted(found) == [(n, n) for n in range(8)]
    assert "a worker died at piece 3 (killed by SIGKILL" in capfd.readouterr().err


def test_the_third_death_of_one_piece_names_it(tmp_path):
    died = pytest.raises(WorkerError, match=r"3 workers died .* of piece 3: killed by SIGKILL")
    with died, LocalCrew(TWO) as crew:
        list(crew.carry_out(Deadly(str(tmp_path), 3, deaths=9), range(8), nothing))


def test_workers_that_cannot_start_are_an_error(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/nowhere"])
    unable = pytest.raises(WorkerError, match=r"cannot be started: exit code 1.*Error")
    with unable, LocalCrew([Place(1)]) as crew:
        list(crew.carry_out(Counting(1), [1], nothing))


@pytest.mark.usefixtures("restored_signals")
def test_a_signal_ends_all():
    listen()
    with pytest.raises(Stopped), LocalCrew(TWO) as crew:
        for number, _ in enumerate(crew.carry_out(Slow(0.02), range(10_000), nothing)):
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)


def test_workers_do_not_outlive_their_parent(tmp_path):
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from counting_jobs import Slow\n"
        "from alps.engine.workers.local import LocalCrew\n"
        "from alps.engine.workers.place import Place\n"
        "with LocalCrew([Place(1), Place(1)]) as crew:\n"
        "    for _ in crew.carry_out(Slow(0.05), range(10000), print):\n"
        "        print('at work', flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while parent.stdout.readline() != "at work\n":
        pass
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert len(workers) == 3  # with the template
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def test_forks_of_one_template_and_a_fresh_one_where_it_is_gone(tmp_path, capfd):
    with LocalCrew(TWO, modules=["json"]) as crew:
        template = crew._template._process
        list(crew.carry_out(Counting(1), range(4), nothing))
        crew._template.listen(0)
        forks = {worker.process.pid for worker in crew._workers}
        assert forks == {child.pid for child in psutil.Process(template.pid).children()}
        template.kill()
        found = list(crew.carry_out(Deadly(str(tmp_path), 3, deaths=1), range(8), nothing))
        assert sorted(found) == [(n, n) for n in range(8)]
        now = [type(worker.process) for worker in crew._workers]
        assert Counter(now) == {Forked: 1, subprocess.Popen: 1}
    assert "a worker died at piece 3" in capfd.readouterr().err


@pytest.fixture
def own_children():
    """A function that gives processes that a test has started: servers of others may be there."""
    before = set(psutil.Process().children())
    return lambda: set(psutil.Process().children()) - before


def test_what_imports_early_is_taken_where_it_fits(own_children):
    begin_early(Place(1), ["json"])
    (early,) = own_children()
    with LocalCrew(TWO, modules=["json"]) as crew:
        assert crew._template._process.pid == early.pid
    for place, modules in ((Place(2), ["json"]), (Place(1), ["csv"])):
        begin_early(place, modules)
        (early,) = own_children()
        with LocalCrew(TWO, modules=["json"]) as crew:
            assert crew._template._process.pid != early.pid
            assert not early.is_running()
    begin_early(Place(1, gpu="0"), ["json"])  # never a fork
    assert not own_children()


@pytest.mark.parametrize(
    ("workers", "device", "cluster", "is_begun"),
    [(2, "cpu", None, True), (1, "cpu", None, False), (2, "cuda", None, False),
     (2, "cpu", "ray", False), (None, "cpu", None, True)],
)  # fmt: skip
def test_workers_that_are_expected_begin(
    workers, device, cluster, is_begun, monkeypatch, own_children
):
    monkeypatch.setattr("alps.engine.stages.tiles.early.threads", lambda: 16)
    with expected_workers(workers, device, cluster):
        assert len(own_children()) == is_begun
    assert not own_children()


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forks on Linux alone")
def test_an_orphan_that_nobody_reaps_has_ended():
    """As in a container whose first process reaps nobody."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie from here on
    gone = SimpleNamespace(listen=lambda timeout: False)
    forked = Forked(gone, None)
    forked.pid = child.pid
    assert forked.wait(5) == -signal.SIGKILL
    child.wait()
