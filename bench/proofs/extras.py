"""Whether what the extras ask for fits together: pip's resolver, dry, against the package index.

    python -m alps.bench.proofs.extras

Nothing is installed or downloaded but packages' metadata; a combination takes a minute. Each is
resolved beside all that the engine itself requires.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

import click

from alps.engine.base.errors import SettingsError

# What a machine of one CUDA takes at once. TensorRT, for RTX or not, is left out: on an index it is
# a recipe, which fetches its wheels from its maker's own index when it is installed.
COMBINATIONS = (
    ("cuda13", "cuml-cu13", "onnx-gpu-cu13", "train", "vectors"),
    ("cuda12", "cuml-cu12", "onnx-gpu-cu12", "train", "vectors"),
)
SECONDS = 600  # for one of them
# Packages that name the CUDA they were built for.
_OF_CUDA = re.compile(r"-cu(?:da)?(1[23])x?$")


@dataclass(frozen=True)
class Resolved:
    """What pip would install for some extras."""

    versions: dict[str, str]  # by package
    error: str = ""  # why there is nothing

    @property
    def cudas(self) -> set[str]:
        """Major versions of CUDA that packages in it are for."""
        found = {match[1] for name in self.versions if (match := _OF_CUDA.search(name))}
        runtime = self.versions.get("nvidia-cuda-runtime")  # nameless since 13
        return found | ({runtime.split(".")[0]} if runtime else set())


def requirements_of(extras: Iterable[str], declared: Iterable[str] | None = None) -> list[str]:
    """The package's own requirements, and those of extras, without markers.

    declared: as the installed package's metadata has them; None: read there.

    Raises SettingsError where an extra is not one of the package's.
    """
    lines = list(requires("alps-engine") or () if declared is None else declared)
    wanted = []
    for extra in ("", *extras):
        own = [line for line in lines if _extra_of(line) == extra]
        if not own:
            raise SettingsError(f"no extra {extra!r} is known; install the package again")
        wanted += [line.partition(";")[0].strip() for line in own]
    return wanted


def _extra_of(line: str) -> str:
    match = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
    return match[1] if match else ""


def resolve(requirements: Iterable[str], seconds: float = SECONDS) -> Resolved:
    """Ask pip what it would install, of wheels alone."""
    with tempfile.TemporaryDirectory(prefix="alps-extras-") as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--only-binary=:all:", "--quiet", "--report", str(report), *requirements]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return Resolved({}, f"no answer in {seconds:.0f} s")
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return Resolved({}, (errors or done.stderr.splitlines() or ["no reason given"])[0])
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    packages = [one["metadata"] for one in found]
    return Resolved({one["name"].lower(): one["version"] for one in packages})


@click.command(help=__doc__)
def main() -> None:
    """Resolve every combination; exit code 1 where one cannot be."""
    failed = False
    for extras in COMBINATIONS:
        found = resolve(requirements_of(extras))
        mixed = len(found.cudas) > 1
        failed = failed or bool(found.error) or mixed
        heavy = ("torch", "numba", "numba-cuda", "onnxruntime-gpu", "onnxruntime", "numpy")
        shown = [n for n in found.versions if n in heavy or n.startswith(("cupy", "cuml"))]
        text = ", ".join(f"{name} {found.versions[name]}" for name in sorted(shown))
        if mixed:
            text = f"mixes CUDA {' and '.join(sorted(found.cudas))}: {text}"
        click.echo(f"[{','.join(extras)}] {found.error or text}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
