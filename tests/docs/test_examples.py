"""Every command and example of README, CONTRIBUTING and docs/ is run, or said why it is not.

A page's blocks run one after the other in a folder of their own, where TILES, LABELS and whatever
else the pages name are small folders, and each model that has a name is a SAM of a few thousand
random weights. What a page promises of numbers is measured elsewhere; here it is that what it
says can be typed.
"""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import speck
from click.testing import CliRunner
from downloads import SAVED
from pages import PAGES, REPOSITORY, blocks, small_archive
from PIL import Image
from s3_server import serving

from alps.engine.cli.main import commands
from alps.engine.models import registry

# Beginnings of commands that are not run, each with its reason.
NOT_RUN = {
    "make": "installs an environment, or runs the tests that this is one of",
    "source .venv/bin/activate": "changes the shell that it is typed into",
    "eval": "changes the shell that it is typed into",
    "_ALPS_COMPLETE=fish_source": "changes the shell that it is typed into",
    "python3.12 -m venv": "makes an environment",
    ".venv/bin/pip install": "installs packages",
    "pip install": "installs packages",
    "pip download": "downloads",
    ".venv/bin/pre-commit install": "writes into the checkout's .git",
    "python -m pytest": "runs tests; they run anyway",
    "alps models fetch": "downloads hundreds of megabytes; tests/engine/models have a server",
    "alps label TILES OUT --metrics": "a port may be taken; tests/engine/telemetry scrape one",
    "torchrun": "starts processes; tests/trainer start some of their own",
    "alps train-tiny": "needs a wheel to be downloaded; tests/trainer/tiny make one",
    "alps export vit_b --precision fp16 --format tensorrt": "takes minutes and TensorRT",
    "alps distill TILES MOBILE --teacher": "MobileSAM's encoder is slow to train without a GPU",
    "alps export vit_b sam_decoder.onnx": "wants vit_b; tests/export write one of a small model",
    "alps export vit_b --tiles TILES": "as into a folder of one's own, which is run",
    "alps distill TILES SMALL --teacher vit_h --student small": "a ViT-S is slow without a GPU",
    "alps experiment RUN": "dozens of trainings; tests/trainer/experiment run a small one",
    "alps bench runtimes": "a process a runtime; tests/bench run it",
    "alps bench everything": "the original takes its time; tests/bench run it",
    "alps bench pipeline": "the original takes its time; tests/bench run it",
    "docker": "needs an engine; tests/test_deploy.py looks at what it is given",
    "export TILES=/data/tiles": "sets what Compose reads",
    "job=$(sbatch": "needs Slurm; tests/test_deploy.py runs the script",
    "sbatch": "needs Slurm",
    "ray": "starts a cluster",
    "alps label TILES OUT-RAY --cluster ray": "needs a cluster; tests/engine/workers have one",
    "python -m alps.bench.labels.quality": "needs real labels, and an hour",
    "python -m alps.bench.labels.maps": "needs real images with labels, and an hour",
    "python -m alps.bench.seams": "needs a run of scenes of several windows",
    "python -m alps.bench.workers": "labels an archive a dozen times",
    "python -m alps.bench.proofs.kill_resume": "kills a run for minutes",
    "python -m alps.bench.proofs.object_store": "kills a run for minutes",
    "python -m alps.bench.proofs.faults": "attacks a run for a minute or an hour; tests/bench do",
    "python -m alps.bench.training.throughput": "times a training; tests/bench run it",
}
# Options that make a command short; of two of the same name the last counts.
SHORT = {
    "distill": ["--steps", "1", "--batch", "1"],
    "pretrain": ["--steps", "1", "--batch", "2", "--workers", "1", "--device", "cpu"],
    "finetune": ["--steps", "1", "--batch", "2", "--workers", "1", "--device", "cpu"],
    "export": ["--verify-tiles", "0", "--max-loss", "1"],
    "fit-clusters": ["--clusters", "6"],
    "segment": ["--points-per-side", "3"],
    "experiment": shlex.split(
        "--arms scratch,alps --fractions 1 --seeds 1 --pretrain-steps 1 --finetune-steps 1 "
        "--model segformer_mini --crop 32 --batch 2 --workers 1 --device cpu"
    ),
}
WORDS = {"cuda": "cpu", "0.6": "0"}  # there need be no GPU; random weights are sure of nothing
ENVIRONMENT = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "2"}


def lines_of(text):
    """The commands of a block, a loop unrolled, without comments."""
    text = text.replace("\\\n", " ")
    while loop := re.search(
        r"^for (\w+) in ([^;\n]+); do.*\n((?:.*\n)*?)done\n", text, re.MULTILINE
    ):
        name, values, body = loop.groups()
        turns = [re.sub(rf"\$\{{?{name}\}}?", value, body) for value in values.split()]
        text = text[: loop.start()] + "".join(turns) + text[loop.end() :]
    return [line for line in text.splitlines() if shlex.split(line, comments=True)]


def why_not_run(line):
    """The reason, or None where the command is to be run."""
    words = shlex.split(line, comments=True)
    for beginning, reason in NOT_RUN.items():
        start = shlex.split(beginning)
        if words[: len(start)] == start:
            return reason
    return None


def expanded(line):
    """A command's words, as a shell would make them of the few things that pages use."""
    for name, value in ENVIRONMENT.items():
        line = re.sub(rf"\${name}\b|\b{name}\b", value, line)
    line = re.sub(r"\$\(\((\d+) \+ (\d+)\)\)", lambda sum_: str(int(sum_[1]) + int(sum_[2])), line)
    words = [WORDS.get(word, word) for word in shlex.split(line, comments=True)]
    assert not any("$" in word for word in words), f"what does {line} stand for?"
    return words


def run_command(line):
    program, *words = expanded(line)
    assert program in ("alps", ".venv/bin/alps"), f"neither run nor listed in NOT_RUN: {line}"
    words += SHORT.get(words[0], [])
    done = CliRunner().invoke(commands, words, prog_name="alps")
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """Speck with two layers, so that half of them can be taken."""
    before = speck.CONFIG
    speck.CONFIG = dataclasses.replace(before, encoder_depth=2)
    try:
        return speck.save_speck(tmp_path_factory.mktemp("stand-in") / "speck.safetensors")
    finally:
        speck.CONFIG = before


@pytest.fixture
def store(page, monkeypatch):
    """A server with the archive that a page about stores names."""
    if "s3://" not in "".join(text for _, text in blocks(page)):
        yield None
        return
    with serving() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        server.make_bucket("archive")
        small_archive(Path("to_store"))
        for path in Path("to_store").iterdir():
            server.put(f"2024/{path.name}", path, "archive")
        yield server


@pytest.fixture
def workplace(tmp_path, monkeypatch, stand_in):
    """A folder with all that the pages name, and no model but the small one."""
    monkeypatch.setattr(registry, "model_file", lambda entry: stand_in)
    monkeypatch.setenv("ALPS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name, folder in (("isaid", "iSAID"), ("potsdam", "Potsdam"), ("loveda", "LoveDA")):
        SAVED[name](Path(folder))
    small_archive(Path("TILES"))
    small_archive(Path("MORE_TILES"), ("c.png",))
    write_search(Path("search.json"), ("0.png", "a.png"))
    rng = np.random.default_rng(2)
    for name in ("0.png", "a.png"):
        write_classes(Path("LABELS") / name, rng.integers(0, 3, (4, 4)), 160)
    names = [f"{organ}_{i}.png" for organ in ("drive", "kvasir") for i in range(5)]
    small_archive(Path("medical/images"), tuple(names))
    for name in names:
        write_classes(Path("medical/labels") / name, 255 * rng.integers(0, 2, (4, 4)), 160)
    return tmp_path


def write_search(path, names):
    """Items of the images in TILES, as the answer of a search is saved."""
    roles = {"image": ["data"], "green": ["overview"]}
    items = [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "collection": "tiles",
            "geometry": None,
            "properties": {"datetime": "2020-07-01T10:00:00Z"},
            "links": [],
            "assets": {
                key: {"href": f"TILES/{name}", "type": "image/png", "roles": own}
                for key, own in roles.items()
            },
        }
        for name in names
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))


def write_classes(path, blocks, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.kron(blocks, np.ones((size // 4, size // 4))).astype(np.uint8)
    Image.fromarray(pixels).save(path)


RUNNABLE = [
    page
    for page in PAGES
    if any(
        language == "python" or (language == "sh" and not all(map(why_not_run, lines_of(text))))
        for language, text in blocks(page)
    )
]
# Pages that begin with a run folder which an earlier one of the site made.
BEFORE = {
    "run-folder.md": "alps label TILES OUT --clusters 6",
    "quality.md": "alps label TILES OUT --clusters 6",
    "vectors.md": "alps label TILES OUT --clusters 6 --objects",
}


# Pages whose runs have reports; those of the others take as long as all else that they do.
WITH_REPORTS = ("start.md", "python.md")


def parameter(page):
    name = page.relative_to(REPOSITORY).with_suffix("").as_posix()
    marks = [pytest.mark.report] if page.name in WITH_REPORTS else []
    return pytest.param(page, id=name, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize("page", [parameter(page) for page in RUNNABLE])
def test_a_page_can_be_followed(page, workplace, store, one_thread, without_reports):
    if page.name in BEFORE:
        run_command(BEFORE[page.name])
    names = {"__name__": "example"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, f"{page.name}: {text.splitlines()[0]}", "exec"), names)
        elif language == "sh":
            for line in lines_of(text):
                if why_not_run(line) is None:
                    run_command(line)


def test_blocks_are_of_a_known_language():
    for page in PAGES:
        for language, text in blocks(page):
            assert language in ("sh", "python", "text"), f"{page.name}: {language} of {text[:40]!r}"


def test_what_is_not_run_is_still_written():
    lines = [
        shlex.split(line, comments=True)
        for page in PAGES
        for language, text in blocks(page)
        if language == "sh"
        for line in lines_of(text)
    ]
    for beginning in NOT_RUN:
        words = shlex.split(beginning)
        assert any(line[: len(words)] == words for line in lines), f"no page says {beginning}"


def test_loops_and_continued_lines_are_seen():
    text = "for a in x y; do  # twice\n  alps report $a \\\n    --deep ${a}_z\ndone\nalps models\n"
    assert [shlex.split(line) for line in lines_of(text)] == [
        ["alps", "report", "x", "--deep", "x_z"],
        ["alps", "report", "y", "--deep", "y_z"],
        ["alps", "models"],
    ]
