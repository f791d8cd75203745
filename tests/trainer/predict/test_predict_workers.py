"""Predictions by workers: the same bytes for any number of them, whichever of them dies."""

import contextlib
import threading
import time
from dataclasses import replace

import pytest
import torch
from crews import Elsewhere, worker_processes
from PIL import Image
from predicting import blobs, make_model, results

from alps.engine.base.errors import ModelError
from alps.kernels.base.threads import set_threads
from alps.trainer.predict import job, shards
from alps.trainer.predict.job import predict_archive
from alps.trainer.predict.recipe import PredictSettings
from alps.trainer.predict.workers import MOST_SHARDS, PredictPieces, pieces_of

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports")
BOTH = PredictSettings(confidence=True, probabilities=True)


@pytest.fixture
def elsewhere(monkeypatch):
    """Workers that are handed all they have."""

    @contextlib.contextmanager
    def crew_for(folder, options, modules):
        yield Elsewhere(), options

    monkeypatch.setattr(job, "crew_for", crew_for)


@pytest.mark.usefixtures("elsewhere", "shards_of_five")
def test_pieces_in_any_order_are_the_same_bytes(scenes, tmp_path, options):
    predict_archive(scenes, tmp_path / "by crew", settings=BOTH, options=options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            job, "crew_for", lambda *given: contextlib.nullcontext((job.Alone(), options))
        )
        predict_archive(scenes, tmp_path / "alone", settings=BOTH, options=options)
    assert results(tmp_path / "by crew") == results(tmp_path / "alone")
    assert not list((tmp_path / "by crew" / "predicted").iterdir())  # lines are dropped there too


@pytest.mark.usefixtures("elsewhere")
def test_a_worker_finds_the_runs_own_model_or_says_so(scenes, tmp_path, options, monkeypatch):
    other = make_model(tmp_path / "other", seed=1)
    run = PredictPieces.run
    monkeypatch.setattr(
        PredictPieces,
        "run",
        lambda self, *given: run(replace(self, model=replace(self.model, name=str(other))), *given),
    )
    with pytest.raises(ModelError, match=r"another model for a worker .* give the same one"):
        predict_archive(scenes, tmp_path / "out", options=options)


def test_pieces_are_as_long_as_lets_workers_end_together():
    crew = Elsewhere()
    assert pieces_of([0, 1, 2, 5, 6], crew) == [range(n, n + 1) for n in (0, 1, 2, 5, 6)]
    assert pieces_of(range(40), crew) == [range(at, at + 5) for at in range(0, 40, 5)]
    many = pieces_of([*range(100), *range(200, 1200)], crew)
    assert {len(piece) for piece in many} <= {MOST_SHARDS, 100 % MOST_SHARDS, 1000 % MOST_SHARDS}
    assert [shard for piece in many for shard in piece] == [*range(100), *range(200, 1200)]


def test_threads_share_the_batches_and_none_of_them(scenes, tmp_path, options, monkeypatch):
    """PyTorch rounds otherwise on two threads than on one."""
    seen, real = [], shards.probabilities

    def looking(*given):
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        time.sleep(0.01)
        return real(*given)

    monkeypatch.setattr(shards, "probabilities", looking)
    torch.set_num_threads(2)
    try:
        for number in (1, 3):
            set_threads(number)
            out = tmp_path / str(number)
            predict_archive(scenes, out, None, BOTH, replace(options, workers=1))
    finally:
        set_threads(None)
        torch.set_num_threads(1)
    assert results(tmp_path / "1") == results(tmp_path / "3")
    assert {threads for _, threads in seen} == {1}
    assert torch.get_num_threads() == 1


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Windows enough, for seven shards, that workers can be killed among them."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(4):
        Image.fromarray(blobs(number, (150, 150))).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def alone(archive, checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "out"
    options = job.RunOptions(model=str(checkpoint), device="cpu", workers=1)
    predict_archive(archive, out, settings=BOTH, options=options)
    return out


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_no_mark(archive, alone, tmp_path, options):
    out = tmp_path / "out"
    others, killed = worker_processes(), []

    def kill():
        while not killed and not (out / "classes.json").exists():
            for worker in worker_processes() - others:
                if list((out / "journal").glob("tiles-*.parquet")):
                    worker.kill()
                    killed.append(worker.pid)
                    break
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    predict_archive(archive, out, settings=BOTH, options=replace(options, workers=2))
    thread.join()
    assert killed and results(out) == results(alone)
    assert worker_processes() <= others
