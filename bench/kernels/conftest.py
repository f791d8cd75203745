"""How the kernels' benchmarks are written and shown: `make bench`, or `pytest bench`.

A benchmark is a test in ``bench/kernels/test_NAME.py`` that uses pytest-benchmark. All that do the
same work on the same input share a group; one of them, an independent library or the naive version,
is the baseline. ``timed`` is the benchmark, and is told what a call moves at the least:

    GROUP = "runs of 64 masks of 1024 x 1024"

    @pytest.mark.benchmark(group=GROUP)
    def test_pycocotools(timed, masks):
        timed.moves(masks.nbytes, baseline=True)
        timed(lambda: [cocoapi.encode(np.asfortranarray(mask)) for mask in masks])

    @pytest.mark.benchmark(group=GROUP)
    def test_ours(timed, masks):
        runs_of(masks[:1])  # compile, or load what was compiled, before the clock runs
        timed.moves(masks.nbytes)
        timed(runs_of, masks)

The bytes are the same formula for all of a group, the one in the kernel's docstring: input read
once, output written once, so that GB/s compares. Assert nothing about time: the numbers depend on
the machine. Do assert that both gave the same, outside the clock.

At the end each group has a table: median time, ratio to the baseline (larger is faster than it),
bytes, GB/s and its share of a memory copy, measured on this machine at the start (above 100 %: the
data stayed in the cache). The same numbers are in ``extra_info`` of ``--benchmark-json FILE``.
pytest-benchmark's own table is shown too, unless ``--benchmark-quiet`` is given.
"""

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from alps.bench import machine
from alps.bench.kernels.blobs import blobs
from alps.bench.kernels.timed import Timed
from alps.kernels.base.threads import set_threads

Row = dict[str, Any]  # a benchmark as pytest-benchmark flattens it: name, median, extra_info, …

GROUPS = pytest.StashKey[list[tuple[str, list[Row]]]]()
COPY = pytest.StashKey[float]()
HEADINGS = ("", "median", "ratio", "bytes", "GB/s", "of copy")


@pytest.fixture(scope="session")
def masks() -> np.ndarray:
    """100 masks of a tile, (100, 1024, 1024) bool."""
    return blobs(100)


@pytest.fixture(scope="session")
def copy_bandwidth(pytestconfig: pytest.Config) -> float:
    """Bytes a second of a memory copy on this machine, read and written both counted."""
    pytestconfig.stash[COPY] = machine.copy_bandwidth()
    return pytestconfig.stash[COPY]


@pytest.fixture
def timed(benchmark: BenchmarkFixture, copy_bandwidth: float) -> Generator[Timed, None, None]:
    """The benchmark of a test. After it ``extra_info`` has ``bytes_per_second`` too."""
    made = Timed(benchmark)
    yield made
    made.note_rate(copy_bandwidth)


@pytest.fixture(params=[None, 1], ids=["all threads", "one thread"])
def threads(request: pytest.FixtureRequest) -> Generator[None, None, None]:
    """On all threads of the machine, and on one."""
    set_threads(request.param)
    yield
    set_threads(None)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_benchmark_group_stats(config: pytest.Config) -> Generator[None, Any, Any]:
    """Keep the groups for the tables below."""
    config.stash[GROUPS] = yield
    return config.stash[GROUPS]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print a table for each group."""
    groups = config.stash.get(GROUPS, [])
    if not groups:
        return
    terminalreporter.section("benchmarks beside what they replace")
    if COPY in config.stash:
        terminalreporter.write_line(
            f"memory copy: {config.stash[COPY] / 1e9:.1f} GB/s, read and written both counted; "
            f"{machine.cpu_name()}, {machine.threads()} threads"
        )
    for name, rows in groups:
        terminalreporter.write_line("")
        for line in table(name or "without a group", rows):
            terminalreporter.write_line(line)


def table(title: str, rows: list[Row]) -> list[str]:
    """Lines of a group's table, slowest first."""
    rows = sorted(rows, key=lambda row: -row["median"])
    baselines = [row["median"] for row in rows if row["extra_info"].get("baseline")]
    cells = [(title, *HEADINGS[1:])]
    for row in rows:
        extra = row["extra_info"]
        name = row["name"].removeprefix("test_") + (" (baseline)" if extra.get("baseline") else "")
        moved = ("", "", "")
        if "bytes_per_second" in extra:
            moved = (
                f"{extra['bytes'] / 1e6:.2f} MB",
                f"{extra['bytes_per_second'] / 1e9:.2f}",
                f"{extra['share_of_copy']:.1%}",
            )
        # Two baselines, an honest and a naive one say: each ratio is to the faster.
        ratio = f"{min(baselines) / row['median']:.1f} x" if baselines else ""
        cells.append((name, _duration(row["median"]), ratio, *moved))
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    return [
        f"{line[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in cells
    ]


def _duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.2f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"
