"""The one place where names are changed, in the thread that hears Ctrl-C, a job after the other."""

import os
import queue
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from alps.engine.base.errors import AlpsError, RunFolderError, SettingsError
from alps.engine.base.progress import watched
from alps.engine.browser.requests import Change, refuse_no_change
from alps.engine.browser.state import described
from alps.engine.browser.survey import Survey, survey_clusters
from alps.engine.clusters.file import load_clusters
from alps.engine.naming.edit import Edit
from alps.engine.naming.names import Names, read_names
from alps.engine.run_folder.folder import RunFolder
from alps.engine.stages import single
from alps.engine.stages.naming import Suggestion, change_names, paint_settings

Suggest = Callable[[], Mapping[int, Suggestion]]  # names by the numbers of classes
Stamp = tuple[int, int, int] | None  # of a file that is there
MOST_STEPS = 500  # that can be undone


class BusyError(AlpsError):
    """Something takes its time, and nothing can be changed meanwhile."""


class Step(NamedTuple):
    """What was done, and the names from before."""

    words: str
    names: Names


@dataclass(frozen=True)
class Progressing:
    """Work that takes its time."""

    what: str
    done: int = 0
    total: int | None = None


class Desk:
    """Names of a run and what can be seen of its classes, changed by jobs.

    ``work`` runs them; everything else may be called from other threads.
    """

    def __init__(self, folder: RunFolder, suggest: Suggest | None = None) -> None:
        """Look at the run. suggest: asked now, and again whenever label maps were painted.

        Raises errors as ``survey_clusters``, ``read_names`` and ``suggest``.
        """
        self.folder, self._suggest = folder, suggest
        self._jobs: queue.SimpleQueue[tuple[Future, Callable[[], Any]]] = queue.SimpleQueue()
        self._undo: list[Step] = []
        self._redo: list[Step] = []
        self._suggestions = suggest() if suggest else {}
        self.surveys = 0  # how often clusters were looked at
        self.version = 0  # changes with all that ``state`` tells
        self.busy: Progressing | None = None
        self.said = ""  # what became of the last work that took its time
        self._stamp: tuple[Stamp, ...] = ()
        self._names = Names()
        self._look()

    def state(self) -> dict[str, Any]:
        """All that the page shows, as plain values."""
        return self._state

    def submit(self, job: Callable[[], Any]) -> Future:
        """Have a job done after those that wait; the future has its result or its error."""
        future: Future = Future()
        self._jobs.put((future, job))
        return future

    def work(self) -> None:
        """Do jobs for ever; a signal that ends the program ends it, in order."""
        while True:
            future, job = self._jobs.get()
            try:
                future.set_result(job())
            except Exception as error:
                future.set_exception(error)
            except BaseException as error:
                future.set_exception(BusyError("this program was ended; start it again"))
                raise error

    def is_older(self) -> bool:
        """Whether somebody else changed names or clusters since they were looked at."""
        return self.busy is None and self._stamp != self._stamp_now()

    # Jobs.

    def look_again(self) -> None:
        """Take note of what somebody else changed; it cannot be undone here."""
        if self.is_older():
            self._look()

    def change(self, change: Change) -> dict[str, Any]:
        """Do what the page asks for, and return the new state."""
        self.look_again()
        before = self._names
        work = "splitting" if change.do in ("split", "unsplit") else ""
        after = self._changed(change.edit(self._clusters), work)
        self._undo.append(Step(change.words(before, after), before))
        del self._undo[:-MOST_STEPS]
        self._redo.clear()
        return self._look(after)

    def undo(self) -> dict[str, Any]:
        """Go back to the names before the last change."""
        self.look_again()
        return self._go(self._undo, self._redo, "there is nothing to undo")

    def redo(self) -> dict[str, Any]:
        """Do again what was undone last."""
        self.look_again()
        return self._go(self._redo, self._undo, "there is nothing to redo")

    def paint(self) -> None:
        """Paint label maps with the names, as the run painted them before."""
        try:
            with watched(self._watch("painting")):
                single.paint(self.folder.root, paint_settings(self.folder))
            if self._suggest:
                self._suggestions = self._suggest()
            said = "label maps, classes.json and the report have these names now"
        except AlpsError as error:
            said = f"painting failed: {error}"
        except Exception as error:  # a fault of ours is not hidden
            traceback.print_exc()
            said = f"painting failed: {error}"
        self.busy, self.said = None, said
        self._look()

    def _go(self, back: list[Step], forth: list[Step], nothing: str) -> dict[str, Any]:
        if not back:
            raise SettingsError(nothing)
        step, now = back[-1], self._names
        is_split = step.names.splits != now.splits
        after = self._changed(
            lambda names: replace(step.names, clusters=names.clusters), "splitting" * is_split
        )
        back.pop()
        forth.append(Step(step.words, now))
        return self._look(after)

    def _changed(self, edit: Edit, work: str) -> Names:
        """names.json after a change; work: what to call it where it takes its time."""

        def checked(names: Names) -> Names:
            changed = edit(names)
            refuse_no_change(names, changed)
            return changed

        with watched(self._watch(work) if work else _nobody):
            try:
                return change_names(self.folder, [checked])
            finally:
                self.busy = None

    def _watch(self, work: str) -> Callable[[str, int, int | None], None]:
        self.busy, self.said = Progressing(work), ""
        self.version += 1

        def see(what: str, done: int, total: int | None) -> None:
            words = what if what == work else f"{work}, {what}"
            self.busy = Progressing(words, done, total)

        return see

    def _look(self, known: Names | None = None) -> dict[str, Any]:
        """Read names and clusters as they are; known: what this program has just written."""
        self._stamp = self._stamp_now()
        names = read_names(self.folder)
        file = load_clusters(self.folder.clusters)
        if known is None and self.version and names != self._names:
            self._undo.clear()
            self._redo.clear()
        self._names, self._clusters = names, len(file.model.centroids)
        if not self.version or file.sha256 != self.survey.sha256:
            before = self.survey if self.version else None
            self.survey: Survey = survey_clusters(self.folder, before)
            self.surveys += 1
        self.version += 1
        self._state = {
            "version": self.version,
            "classes": described(names, self.survey, self._suggestions),
            "undo": self._undo[-1].words if self._undo else "",
            "redo": self._redo[-1].words if self._redo else "",
            "title": "/".join(self.folder.root.absolute().parts[-2:]),
            "groups": self.survey.groups,
            "allGroups": self.survey.all_groups,
            "sampled": len(self.survey.rows),
            "painted": self._is_painted(),
            "survey": self.surveys,
        }
        return self._state

    def _is_painted(self) -> bool:
        try:
            self.folder.refuse_unpainted()
        except RunFolderError:
            return False
        return True

    def _stamp_now(self) -> tuple[Stamp, ...]:
        """Sizes and times of change of what others may change."""
        found: list[Stamp] = []
        for path in (self.folder.names, self.folder.clusters, self.folder.run_json):
            try:
                status = os.stat(path)
                found.append((status.st_size, status.st_mtime_ns, status.st_ino))
            except OSError:
                found.append(None)
        return tuple(found)


def _nobody(what: str, done: int, total: int | None) -> None:
    """See no progress."""
