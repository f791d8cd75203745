"""Wrong changes of engine/pipeline and engine/workers."""

from alps.bench.proofs.mutants import changes_of

MUTANTS = [
    *changes_of(
        "engine/pipeline/line.py",
        ("tests/engine/pipeline/test_line.py",),
        (
            "source.taken - target.taken < own.threads + own.ahead",
            "True",
            "results wait without bound",
        ),
        (
            "                source.taken - self._made[last] < count\n",
            "                source.taken - self._made[last] <= count\n",
            "three batches are on a device",
        ),
        (
            "        for thread in self._threads:\n            thread.join()\n",
            "",
            "threads outlive their line",
        ),
    ),
    *changes_of(
        "engine/workers/local.py",
        ("tests/engine/workers/test_local.py",),
        (
            "        left.put_back(worker.has)\n",
            "",
            "the work of a dead worker is lost",
        ),
        (
            "                    raise pickle.loads(message.error)\n                if isinstance",
            "                    return\n                if isinstance",
            "a job that fails ends as if it were done",
        ),
    ),
    *changes_of(
        "engine/workers/place.py",
        ("tests/engine/workers/test_local.py",),
        (
            "cores // workers + (number < cores % workers)",
            "cores // workers",
            "cores that are left over do nothing",
        ),
        (
            "names[number].strip() if names",
            "names[0].strip() if names",
            "other GPUs are used than those that were named",
        ),
    ),
]
