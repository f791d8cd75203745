"""The command ``alps name``: what people call the classes of a run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alps.engine.base.errors import SettingsError, printable
from alps.engine.cli.options import run_folder_argument

if TYPE_CHECKING:
    from alps.engine.naming.edit import Edit
    from alps.engine.naming.names import Names

PORT = 8017


class Assignments(click.ParamType):
    """Clusters, and what is said of them: ``17=water`` or ``3,8=grass``."""

    name = "CLASS=…"

    def __init__(self, needs: bool = True) -> None:
        self._needs = needs  # the part behind the sign

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, ...], str]:
        """Read "3,8=grass" as ((3, 8), "grass")."""
        if isinstance(value, tuple):
            return value
        numbers, sign, text = value.partition("=")
        try:
            clusters = tuple(int(part) for part in numbers.split(","))
        except ValueError:
            clusters = ()
        if not clusters or min(clusters) < 0 or (self._needs and not sign):
            form = "17=water" if self._needs else "3,8 or 3,8=grass"
            self.fail(f"{printable(value)!r} is not like {form}", param, ctx)
        return clusters, text


def several(name: str, help: str, **more: Any) -> Callable:
    """An option that may be repeated."""
    return click.option(name, multiple=True, help=help, **more)


@click.command("name")
@run_folder_argument(writes=True, file_okay=False)
@several("--split", "Make several clusters of one: 5=3.", type=Assignments(), metavar="CLASS=PARTS")
@several("--unsplit", "Take the last split of a cluster back.", type=click.IntRange(0))
@several("--merge", "Make one class of several: 3,8 or 3,8=grass.", type=Assignments(needs=False))
@several("--separate", "Take a cluster out of its class.", type=click.IntRange(0))
@several("--set", "Call a class by a name: 17=water.", type=Assignments(), metavar="CLASS=NAME")
@several(
    "--colour", "Show a class in a colour: 17=#3a7bd5.", type=Assignments(), metavar="CLASS=#RRGGBB"
)
@several("--ignore", "Leave a class unlabelled in label maps.", type=click.IntRange(0))
@several("--unignore", "Label it again.", type=click.IntRange(0))
@click.option(
    "--from-truth",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Name classes that have no name after real labels: what most of their pixels are.",
)
@click.option(
    "--class-names",
    metavar="A,B,…",
    default="",
    help="With --from-truth: names of truth class 0, 1, …",
)
@click.option(
    "--review",
    is_flag=True,
    help="With --from-truth: show those names in the browser, to be taken one by one.",
)
@click.option(
    "--paint/--no-paint",
    "paints",
    default=True,
    show_default=True,
    help="Paint label maps and write the report with the new names at once.",
)
@click.option("--list", "lists", is_flag=True, help="Print all classes and their names.")
@click.option(
    "--port",
    default=PORT,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Of the page in the browser; 0: any that is free.",
)
@click.option(
    "--browser/--no-browser",
    "opens_browser",
    default=True,
    show_default=True,
    help="Open the page in a browser; its address is printed anyway.",
)
def name(
    out: Path,
    from_truth: Path | None,
    class_names: str,
    review: bool,
    paints: bool,
    lists: bool,
    port: int,
    opens_browser: bool,
    **changes: tuple,
) -> None:
    """Give the classes of OUT names, merge and split them, choose colours.

    Without options a page opens in the browser, served to this machine alone. With options they are
    made in the order in which they stand here, and written to OUT/names.json, which may be edited
    by hand too: then give alps paint OUT. A class is said by its number, or by that of any of its
    clusters. Classes of one name are one class.
    """
    from alps.engine.run_folder.folder import RunFolder
    from alps.engine.stages import naming

    folder = RunFolder(out)
    naming.refuse_unnameable(folder)
    words = tuple(word.strip() for word in class_names.split(",")) if class_names else ()
    if words and from_truth is None:
        raise SettingsError("--class-names goes with --from-truth")
    if review:
        if from_truth is None or any(changes.values()):
            raise SettingsError("--review goes with --from-truth, and with no change")
        suggest = partial(naming.suggested_names, folder, from_truth, words)
        _serve(folder, port, opens_browser, suggest)
        return
    edits = _edits(folder, changes)
    if from_truth is not None:
        edits += _after_truth(folder, from_truth, words)
    if edits:
        names = naming.change_names(folder, edits)
        if paints:
            from alps.engine.stages.single import paint

            paint(out, naming.paint_settings(folder))
        else:
            click.echo(f"label maps are older than these names; give: alps paint {out}")
        _say(folder, names)
    elif lists or from_truth is not None:
        from alps.engine.naming.names import read_names

        _say(folder, read_names(folder))
    else:
        _serve(folder, port, opens_browser)


def _edits(folder: Any, changes: dict[str, tuple]) -> "list[Edit]":
    """The changes that options ask for, in the order of the help."""
    from alps.engine.naming import edit
    from alps.engine.stages.naming import cluster_count

    found: list[Edit] = []
    for (cluster, *more), text in changes["split"]:
        if more or not text.isdecimal():
            raise SettingsError(f"--split {cluster}={printable(text)} is not like 5=3")
        count = cluster_count(folder)
        found.append(partial(edit.split, cluster=cluster, parts=int(text), clusters=count))
    found += [partial(edit.unsplit, cluster=cluster) for cluster in changes["unsplit"]]
    for clusters, text in changes["merge"]:
        found.append(partial(edit.merge, clusters=clusters))
        if text:
            found.append(partial(edit.name, clusters=clusters, text=text))
    found += [partial(edit.separate, cluster=cluster) for cluster in changes["separate"]]
    found += [partial(edit.name, clusters=them, text=text) for them, text in changes["set"]]
    for clusters, text in changes["colour"]:
        found += [partial(edit.colour, cluster=cluster, value=text) for cluster in clusters]
    for option, is_ignored in (("ignore", True), ("unignore", False)):
        found += [
            partial(edit.ignore, cluster=cluster, is_ignored=is_ignored)
            for cluster in changes[option]
        ]
    return found


def _after_truth(folder: Any, truth: Path, class_names: tuple[str, ...]) -> "list[Edit]":
    """Names for classes that have none, after real labels; prints what these say of all."""
    from alps.engine.naming import edit
    from alps.engine.naming.names import read_names
    from alps.engine.stages import naming

    names = read_names(folder)
    edits: list[Edit] = []
    for value, found in sorted(naming.suggested_names(folder, truth, class_names).items()):
        known = names.of_cluster(value).name
        taken = f" (it is called {printable(known)})" if known else ""
        click.echo(f"class {value}: {found.share:.0%} {printable(found.name)}{taken}")
        if not known:
            edits.append(partial(edit.name, clusters=(value,), text=found.name))
    return edits


def _say(folder: Any, names: "Names") -> None:
    """Print the classes that somebody named, merged, coloured or left out."""
    for one in names.classes:
        of = ", ".join(map(str, one.clusters))
        carried = "" if one.carried is None else f", {one.carried:.0%} of it had that name before"
        ignored = ", ignored" if one.ignore else ""
        click.echo(f"{one.value:5}  {one.name or '–'} (of {of}{ignored}{carried})")
    for split in names.splits:
        parts = ", ".join(map(str, split.into))
        click.echo(f"{split.cluster:5}  is split into {parts}")
    if not names.classes:
        click.echo(f"no class of {folder.root} has a name yet")


def _serve(folder: Any, port: int, opens_browser: bool, suggest: Any = None) -> None:
    from alps.engine.browser import serve

    serve(folder, port, opens_browser, suggest)
