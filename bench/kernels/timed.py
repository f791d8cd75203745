"""A benchmark that says what one call moves through memory."""

from collections.abc import Callable
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture


class Timed:
    """pytest-benchmark's fixture, ``benchmark``, with what its table is to say beside seconds.

    ``timed(function, *args)`` calls it as often as suits its time, or ``rounds`` times, and returns
    what it gave.
    """

    def __init__(self, benchmark: BenchmarkFixture) -> None:
        self.benchmark: Any = benchmark  # its package has no types

    def __call__(
        self, function: Callable[..., Any], *args: object, rounds: int | None = None
    ) -> Any:
        if rounds is None:
            return self.benchmark(function, *args)
        return self.benchmark.pedantic(function, args, rounds=rounds)

    def moves(self, n_bytes: int, *, baseline: bool = False) -> None:
        """Note what a call reads and writes at the least; anywhere in the test.

        baseline: whether the others of the group are compared with this one.
        """
        self.benchmark.extra_info |= {"bytes": int(n_bytes), "baseline": baseline}

    def note_rate(self, copy_bandwidth: float) -> None:
        """Note bytes a second after the test, and their share of a memory copy's."""
        extra = self.benchmark.extra_info
        if "bytes" in extra and self.benchmark.stats:  # none where benchmarks are disabled
            rate = extra["bytes"] / self.benchmark.stats.stats.median
            extra |= {"bytes_per_second": rate, "share_of_copy": rate / copy_bandwidth}
