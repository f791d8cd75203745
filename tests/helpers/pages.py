"""The pages that people read, and the small archive that their commands are run on."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "CHANGELOG.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
# Measurements and the model card: their links are checked too, their commands take hours.
RECORDS = [
    REPOSITORY / "engine" / "models" / "weights" / "tiny.md",
    *sorted((REPOSITORY / "bench" / "results").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of the page's fenced blocks, in order."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def small_archive(folder: Path, names: tuple[str, ...] = ("0.png", "a.png")) -> None:
    """Generated scenes of 160 pixels under these names."""
    from PIL import Image

    from alps.engine.demo.scenes import SceneSettings, make_scene

    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_scene(seed, SceneSettings(size=160)).image).save(folder / name)
