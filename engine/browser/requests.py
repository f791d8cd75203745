"""What the page may ask for, checked before anything is done."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Literal

from msgspec import Meta, Struct

from alps.engine.base.errors import SettingsError
from alps.engine.naming import edit
from alps.engine.naming.edit import Edit
from alps.engine.naming.names import MOST_CLASSES, ClassId, Names

MOST_NAME = 20_000  # letters that are looked at; names are cut to what a legend holds
Clusters = Annotated[tuple[ClassId, ...], Meta(min_length=1, max_length=MOST_CLASSES)]
SessionId = Annotated[int, Meta(ge=0, lt=1 << 31)]


class Change(Struct, frozen=True, forbid_unknown_fields=True):
    """A change of names. A cluster stands for its class; the first one says which is meant."""

    session: SessionId
    do: Literal["name", "merge", "separate", "colour", "ignore", "split", "unsplit"]
    clusters: Clusters
    text: Annotated[str, Meta(max_length=MOST_NAME)] = ""  # the name, or the colour
    parts: Annotated[int, Meta(ge=0, le=1000)] = 0
    on: bool = True  # whether to ignore

    def edit(self, clusters: int) -> Edit:
        """The change as a function of names; clusters: how many there are without splits."""
        first = self.clusters[0]
        edits: Mapping[str, Edit] = {
            "name": partial(edit.name, clusters=self.clusters, text=self.text),
            "merge": partial(edit.merge, clusters=self.clusters),
            "separate": partial(edit.separate, cluster=first),
            "colour": partial(edit.colour, cluster=first, value=self.text),
            "ignore": partial(edit.ignore, cluster=first, is_ignored=self.on),
            "split": partial(edit.split, cluster=first, parts=self.parts, clusters=clusters),
            "unsplit": partial(edit.unsplit, cluster=first),
        }
        return edits[self.do]

    def words(self, before: Names, after: Names) -> str:
        """What was done, for who may want it undone."""
        was, now = (names.of_cluster(self.clusters[0]) for names in (before, after))
        old = was.name or f"cluster {was.value}"
        numbers = " and ".join(str(number) for number in self.clusters)
        if self.do == "name":
            return f"{old} is called {now.name}" if now.name else f"{old} has no name"
        if self.do == "ignore":
            return f"{old} is ignored" if self.on else f"{old} is not ignored"
        return {
            "merge": f"{numbers} are one class",
            "separate": f"{numbers} is a class of its own",
            "colour": f"{old} has another colour",
            "split": f"{numbers} is split into {self.parts}",
            "unsplit": f"{numbers} is whole again",
        }[self.do]


class Asked(Struct, frozen=True, forbid_unknown_fields=True):
    """Anything else that a page asks for."""

    session: SessionId


def refuse_no_change(before: Names, after: Names) -> None:
    """Raise SettingsError where nothing would change, so that undo has no empty steps."""
    if before.classes == after.classes and before.splits == after.splits:
        raise SettingsError("that is so already")
