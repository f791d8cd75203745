"""What mkdocs calls while it builds the site: pages that are made, and pages from other folders.

Commands and the Python reference come from the code itself; measurements, the model card,
CONTRIBUTING and CHANGELOG stay where they are in the repository and are shown here too.
"""

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads a hook as a lone file

import api_page  # noqa: E402
import command_pages  # noqa: E402

# Where a file of the repository lies in the site.
SHOWN = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "engine/models/weights/tiny.md": "tiny.md",
} | {
    path.relative_to(REPOSITORY).as_posix(): f"results/{path.name}"
    for path in sorted((REPOSITORY / "bench" / "results").iterdir())
    if path.suffix in (".md", ".png", ".csv", ".jsonl")
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")
_home_of: dict[str, str] = {}  # page -> the file of the repository that it is made of


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page a command into the navigation."""
    pages: list[Any] = list(command_pages.pages())

    def filled(entry: Any) -> Any:
        if entry == "commands/index.md":
            return {"Commands": pages}
        if isinstance(entry, dict):
            return {title: filled(below) for title, below in entry.items()}
        return [filled(each) for each in entry] if isinstance(entry, list) else entry

    config.nav = filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what does not lie in docs/."""
    for path, text in command_pages.pages().items():
        files.append(File.generated(config, path, content=text))
    for source, path in SHOWN.items():
        files.append(File.generated(config, path, abs_src_path=str(REPOSITORY / source)))
        _home_of[path] = source
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add the Python reference; lead links between files of the repository to their pages."""
    markdown = markdown.replace(api_page.MARK, api_page.reference())
    here = page.file.src_uri
    home = _home_of.get(here, f"docs/{here}")

    def led(found: re.Match) -> str:
        picture, text, target = found.groups()
        path, _, place = target.partition("#")
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(home), path))
        shown = inside.removeprefix("docs/") if inside.startswith("docs/") else SHOWN.get(inside)
        if shown is None:
            # Code is read in the repository; the site has no copy of it.
            return text if (REPOSITORY / inside).exists() else found[0]
        near = posixpath.relpath(shown, posixpath.dirname(here) or ".")
        return f"{picture}[{text}]({near}{'#' + place if place else ''})"

    return LINK.sub(led, markdown)
