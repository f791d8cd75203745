"""Wrong changes of engine/status and engine/telemetry, and of plans that grow."""

from alps.bench.proofs.mutants import Mutant, changes_of

GROWING = "tests/engine/stages/test_growing.py"
STATUS = ("tests/engine/status/test_status.py",)
HEARTBEAT = ("tests/engine/telemetry/test_heartbeat.py",)
RECORD = ("tests/engine/telemetry/test_record.py",)
METRICS = ("tests/engine/telemetry/test_metrics.py",)

MUTANTS = [
    *changes_of(
        "engine/status/processes.py",
        STATUS,
        ("return DEAD if gone else ALIVE", "return ALIVE", "a killed process is alive"),
        (
            "ALIVE if -EARLY_SECONDS <= age <= _patience(beat) else SILENT",
            "ALIVE if age <= _patience(beat) else SILENT",
            "by a clock that is behind the dead are alive",
        ),
        (
            "[Process(o.beat, ALIVE, 0.0) if _key(o) in moved else o for o in found]",
            "found",
            "by a clock that is wrong the living are silent",
        ),
    ),
    *changes_of(
        "engine/status/survey.py",
        STATUS,
        (
            "done = max(0, min(done, plan.tiles - left))",
            "done = max(0, done)",
            "tiles that are made again count as done",
        ),
        ("(max(left) if known else None)", "(min(left) if known else None)", "time left is short"),
        (
            "return painted >= clusters",
            "return True",
            "label maps of older clusters count as painted",
        ),
    ),
    Mutant(
        "engine/status/contents.py",
        old="count -= self.shards * self.shard_tiles - self.tiles",
        new="pass",
        tests=STATUS,
        why="a last shard that is not full counts as full",
    ),
    *changes_of(
        "engine/telemetry/heartbeat.py",
        HEARTBEAT,
        ("if why and (", "if (", "a good end leaves a sign of life"),
        (
            "recorder.take_over(beat.tiles, beat.failed)",
            "pass",
            "what an earlier start counted is lost",
        ),
        ("return _born(beat.pid) != beat.born", "return not _born(beat.pid)", "a number used anew"),
    ),
    *changes_of(
        "engine/telemetry/record.py",
        RECORD,
        (
            "            self._pending.clear()\n            self._pending_failed.clear()\n",
            "            self._pending.clear()\n",
            "failures count twice",
        ),
        ("self._failed[_kind_of(row)] -= 1", "pass", "a retried tile counts as failed for ever"),
    ),
    Mutant(
        "engine/telemetry/metrics.py",
        old="for beat in self._workers.values():",
        new="for beat in alive:",
        tests=METRICS,
        why="counters fall when a worker ends",
    ),
    Mutant(
        "engine/planning/extend.py",
        old="        _set_aside(folder, plan)\n",
        new="",
        tests=(f"{GROWING}::test_new_images_are_added_and_what_was_made_stays",),
        why="a shard with new tiles counts as done",
    ),
    Mutant(
        "engine/planning/extend.py",
        old="            yield first.label",
        new="            continue",
        tests=(f"{GROWING}::test_names_of_label_maps_do_not_meet",),
        why="two images share a label map",
    ),
    Mutant(
        "engine/planning/extend.py",
        old='("skipped", reasons[tile])',
        new='("failed", reasons[tile])',
        tests=(f"{GROWING}::test_what_could_not_be_opened_is_retried",),
        why="a source that was taken up anew still fails",
    ),
    Mutant(
        "engine/planning/extend.py",
        old="if product_of(paths[0]) not in known}",
        new="}",
        tests=(f"{GROWING}::test_a_product_of_its_own_has_its_stretch_and_others_keep_theirs",),
        why="a stretch changes for images that were read with another",
    ),
    Mutant(
        "engine/stages/label.py",
        old="if run.get(KEPT) == wanted and not refit and",
        new="if not wanted and",
        tests=(f"{GROWING}::test_new_images_are_added_and_what_was_made_stays",),
        why="adding an image shuffles all classes",
    ),
]
