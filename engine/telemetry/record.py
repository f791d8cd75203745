"""What this process is doing and has done, in numbers: for its heartbeat and its metrics."""

import re
import shlex
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

STAGES = ("plan", "segment", "regions", "cluster", "paint", "predict", "report")
OF_TILES = ("segmenting", "predicting")  # what is counted in tiles
WINDOW_SECONDS = 300.0  # that a rate looks back
STEP_SECONDS = 1.0  # between two looks at what is done
LEAST_SAMPLES = 5  # of slow work a rate looks back further
MOST_REASONS = 1000  # kinds of failure that are told apart
OTHER_REASONS = "other reasons"
# Of an address: who asks, and all after the path.
_WHO = re.compile(r"(?<=://)[^/@]*(?=@)")
_QUERY = re.compile(r"(?<=://)([^?#]*)\?[^?#]*=.*")
STEPS = "_seconds"  # ends the columns of tiles.parquet that hold times


@dataclass(frozen=True)
class Snapshot:
    """What a process is doing and has done, at one moment."""

    stage: str  # of the run, or the last one; empty before the first
    work: str  # in a word or two: "segmenting"
    done: int  # of that work, by this process and before it
    total: int | None
    rate: float | None  # of it a second, over the last minutes
    silent: float  # seconds since it went on
    tiles: dict[str, int]  # by status, made by this process and those whose place it took, whose
    # shards are on the disk
    pending: dict[str, int]  # by status, those whose shards are not yet
    failed: dict[str, int]  # of ``tiles``, by reason
    pending_failed: dict[str, int]  # of ``pending``
    made: dict[str, int]  # by this process alone, by status; never less
    planned: int  # tiles that are made in all, where that is known
    tile_seconds: dict[str, float]  # sums over tiles, by what was done to them
    stage_seconds: dict[str, float]  # by stage


class Recorder:
    """Counts what this process does; may be told from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds that never go back; tests bring their own."""
        self._clock = clock
        self._lock = threading.RLock()
        self.command = ""  # as it was given, where this process is the program
        self.begin()

    def begin(self) -> None:
        """Forget all: another run begins."""
        with self._lock:
            self._stage = ""
            self._since: float | None = None  # of the stage, while it goes on
            self._work, self._done = "", 0
            self._total: int | None = None
            self._samples: deque[tuple[float, int]] = deque()
            self._moved = self._clock()
            self._tiles: Counter[str] = Counter()
            self._pending: Counter[str] = Counter()
            self._made: Counter[str] = Counter()
            self._planned = 0
            self._failed: Counter[str] = Counter()
            self._pending_failed: Counter[str] = Counter()
            self._tile_seconds: defaultdict[str, float] = defaultdict(float)
            self._stage_seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Say that a stage of the run goes on in here; stages do not lie in each other."""
        with self._lock:
            self._stage, self._since = name, self._clock()
            self._moved = self._since
            self._stage_seconds[name] += 0.0
        try:
            yield
        finally:
            with self._lock:
                if self._since is not None:
                    self._stage_seconds[name] += self._clock() - self._since
                    self._since = None

    def see(self, work: str, done: int, total: int | None) -> None:
        """Take note of progress, as ``progress.Watcher``."""
        with self._lock:
            now = self._clock()
            if work != self._work or total != self._total or done < self._done:
                self._samples.clear()
            if work != self._work or done != self._done:
                self._moved = now
            self._work, self._done, self._total = work, done, total
            if work in OF_TILES and total is not None:
                self._planned = total
            if not self._samples or now - self._samples[-1][0] >= STEP_SECONDS:
                self._samples.append((now, done))
            while len(self._samples) > LEAST_SAMPLES and now - self._samples[0][0] > WINDOW_SECONDS:
                self._samples.popleft()

    def tile(self, row: Mapping[str, Any]) -> None:
        """Count a tile that was made, by its row of tiles.parquet."""
        with self._lock:
            self._moved = self._clock()
            self._pending[row["status"]] += 1
            self._made[row["status"]] += 1
            if row["status"] == "failed":
                self._pending_failed[_kind_of(row)] += 1
            for name, value in row.items():
                if name.endswith(STEPS):
                    self._tile_seconds[name.removesuffix(STEPS)] += value

    def shard(self) -> None:
        """The tiles that were counted so far are on the disk: a kill does not undo them."""
        with self._lock:
            self._tiles += self._pending
            for reason, count in self._pending_failed.items():
                known = reason in self._failed or len(self._failed) < MOST_REASONS
                self._failed[reason if known else OTHER_REASONS] += count
            self._pending.clear()
            self._pending_failed.clear()

    def again(self, row: Mapping[str, Any]) -> None:
        """A tile that was counted, by this process or an earlier one, is made again."""
        with self._lock:
            self._tiles[row["status"]] -= 1
            if row["status"] == "failed":
                self._failed[_kind_of(row)] -= 1

    def take_over(self, tiles: Mapping[str, int], failed: Mapping[str, int]) -> None:
        """Count what an earlier process made of this run before it was stopped."""
        with self._lock:
            self._tiles.update(tiles)
            self._failed.update(failed)

    def snapshot(self) -> Snapshot:
        """All of it as it is now."""
        with self._lock:
            now = self._clock()
            seconds = self._stage_seconds.copy()
            if self._since is not None:
                seconds[self._stage] += now - self._since
            return Snapshot(
                self._stage,
                self._work,
                self._done,
                self._total,
                self._rate(now),
                now - self._moved,
                dict(+self._tiles),
                dict(self._pending),
                dict(+self._failed),
                dict(self._pending_failed),
                dict(self._made),
                self._planned,
                dict(self._tile_seconds),
                dict(seconds),
            )

    def _rate(self, now: float) -> float | None:
        if not self._samples:
            return None
        then, before = self._samples[0]
        if self._done <= before or now <= then:
            return None
        return (self._done - before) / (now - then)


def as_given(arguments: Sequence[str]) -> str:
    """A command as one would type it, without what addresses may hold of passwords and tokens."""
    shown = (_QUERY.sub(r"\1?…", _WHO.sub("…", argument)) for argument in arguments)
    return shlex.join(shown)


def _kind_of(row: Mapping[str, Any]) -> str:
    """Why a tile failed; one kind is one, whichever files it befell."""
    return str(row["reason"]).replace(row["path"], "a file")


recorder = Recorder()
