"""The package as a folder ``alps`` of links to the rooms, for tools that read its files."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("engine", "kernels", "export", "trainer", "bench")


def link_rooms(folder: Path) -> Path:
    """Make ``folder``/alps; returns the folder, which belongs on the path of Python."""
    package = folder / "alps"
    package.mkdir()
    for room in ROOMS:
        (package / room).symlink_to(REPOSITORY / room)
    (package / "__init__.py").symlink_to(REPOSITORY / "engine" / "public" / "__init__.py")
    return folder
