"""Wrong changes of engine/report, engine/demo and engine/cli: what a user sees."""

from alps.bench.proofs.mutants import Mutant

SUMMARY = ("tests/engine/stages/test_summary.py",)
QUALITY = ("tests/engine/quality/test_quality.py", "tests/engine/quality/test_quality_splits.py")
REPORT = ("tests/engine/report/test_report.py",)
SCENES = ("tests/engine/report/test_scenes.py",)
PALETTE = ("tests/engine/labels/test_palette.py",)
OPTION = "tests/engine/cli/test_option_effects.py::test_an_option_has_its_effect"
CLI = ("tests/engine/cli/test_cli.py",)

MUTANTS = [
    Mutant(
        "engine/report/shares.py",
        old="_coarse_enough(by_day) if 2 * dated >= painted else {}",
        new="_coarse_enough(by_day)",
        tests=SCENES,
        why="a few names that look like years make dates of an archive",
    ),
    Mutant(
        "engine/report/rows/sources.py",
        old='"key": scatter(ids) + last,',
        new='"key": scatter(ids) - last,',
        tests=SCENES,
        why="scenes that are too large to be shown whole come first",
    ),
    Mutant(
        "engine/report/exemplars.py",
        old="return np.isin(patches, np.unique(patches[own & same]))",
        new="return same",
        tests=SCENES,
        why="an example is all of its class in sight",
    ),
    Mutant(
        "engine/report/rows/masks.py",
        old='pc.greater_equal(batch["mask"], 0)',
        new='pc.greater_equal(batch["mask"], -1)',
        tests=REPORT,
        why="what lies under no mask is shown as one",
    ),
    Mutant(
        "engine/labels/classes.py",
        old="return max(self.unlabelled_pixels - self.nodata_pixels, 0)",
        new="return self.unlabelled_pixels",
        tests=SUMMARY,
        why="pixels without data count as unlabelled",
    ),
    Mutant(
        "engine/labels/palette.py",
        old="chosen[index] = distance.argmax()",
        new="chosen[index] = distance.argsort()[len(distance) // 2]",
        tests=PALETTE,
        why="a colour is not the farthest from those before",
    ),
    Mutant(
        "engine/report/rows/regions.py",
        old="return -margin + 1e9 * (area < SMALL_AREA),",
        new="return margin + 1e9 * (area < SMALL_AREA),",
        tests=REPORT,
        why="the most doubtful regions stand for a class",
    ),
    Mutant(
        "engine/report/rows/tiles.py",
        old='    done = table.filter(pc.is_in(table["status"], pa.array(["ok", "empty"])))\n',
        new="    done = table\n",
        tests=REPORT,
        why="seconds of failed tiles count",
    ),
    Mutant(
        "engine/report/run_facts.py",
        old="if name in defaults and value != defaults[name]",
        new="if name in defaults",
        tests=REPORT,
        why="settings that are as by default are shown as changed",
    ),
    Mutant(
        "engine/report/pictures.py",
        old="    drawn[known, 3] = 255\n",
        new="    drawn[..., 3] = 255\n",
        tests=REPORT,
        why="unlabelled pixels are black on the page",
    ),
    Mutant(
        "engine/cli/options/kinds.py",
        old="return index - 1, count",
        new="return index, count",
        tests=CLI,
        why="machines count from 1 where shards count from 0",
    ),
    Mutant(
        "engine/cli/commands.py",
        old="    single.cluster(out, settings, device, workers, ray_cluster, worker_cores)\n",
        new="    single.cluster(out, None, device)\n",
        tests=(f"{OPTION}[cluster-clusters]",),
        why="options of alps cluster do nothing",
    ),
    Mutant(
        "engine/cli/commands.py",
        old="_say(single.paint(out, settings, max_failed, workers, ray_cluster, worker_cores))",
        new="_say(single.paint(out, settings))",
        tests=(f"{OPTION}[paint-max_failed]",),
        why="alps paint knows no --max-failed",
    ),
    Mutant(
        "engine/cli/commands.py",
        old="one_pass = OnePass(clusters_from, keep_segments)",
        new="one_pass = OnePass(clusters_from)",
        tests=(f"{OPTION}[label-keep_segments]",),
        why="--keep-segments does nothing",
    ),
    Mutant(
        "engine/cli/commands.py",
        old="count = fit(src, file, sample, pick(RunSettings, values), options, work)",
        new="count = fit(src, file, sample, pick(RunSettings, values), options)",
        tests=(f"{OPTION}[fit-clusters-work]",),
        why="--work does nothing",
    ),
    Mutant(
        "engine/cli/main.py",
        old="code, text = known.exit_code,",
        new="code, text = 1,",
        tests=CLI,
        why="all errors have one exit code",
    ),
    Mutant(
        "engine/base/stopping.py",
        old="if _is_deaf(frame):",
        new="if False:",
        tests=("tests/engine/base/test_stopping.py",),
        why="Ctrl-C in a compiled kernel is a SystemError",
    ),
    Mutant(
        "engine/base/memory.py",
        old="        cause = cause.__cause__\n",
        new="        break\n",
        tests=("tests/engine/base/test_memory.py",),
        why="a checkpoint that memory was short for is called damaged",
    ),
    Mutant(
        "engine/models/answer.py",
        old="            elif now > until:\n",
        new="            elif False:\n",
        tests=("tests/engine/models/test_hostile_server.py",),
        why="pieces of a byte keep a download for ever",
    ),
    Mutant(
        "engine/base/progress.py",
        old="        raise_if_stopped()\n",
        new="",
        tests=("tests/engine/base/test_stopping.py",),
        why="a signal that is lost in a callback does not end the run",
    ),
    Mutant(
        "engine/cli/quality.py",
        old="        fit_only=fit_only,\n",
        new="",
        tests=QUALITY,
        why="--fit-only does nothing",
    ),
    Mutant(
        "engine/demo/run.py",
        old="scene_seed = FIRST_SEED + 10_000 * seed + index",
        new="scene_seed = FIRST_SEED + seed + index",
        tests=("tests/engine/demo/test_demo.py",),
        why="demos of neighbouring seeds share scenes",
    ),
]
