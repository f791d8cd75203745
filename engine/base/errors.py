"""The errors that ALPS raises on purpose. Each text says what, where, and how to mend it."""

import os
import re

# What a terminal obeys instead of showing it, what turns the direction of text, and bytes of names
# that are no UTF-8, which Parquet and JSON could not hold.
_UNSHOWN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str | os.PathLike[str], keep: str = "") -> str:
    """Escape what is in a name of a file and should not be in a line of text.

    keep: characters that stay what they are.
    """
    return _UNSHOWN.sub(lambda found: _escaped(found[0], keep), os.fspath(text))


def _escaped(character: str, keep: str) -> str:
    if character in keep:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class AlpsError(Exception):
    """Base class: something a user can act on. The command line prints it without a traceback.

    Names of files in its text are safe to be printed, whatever they hold.
    """

    exit_code = 1

    def __init__(self, *args: object) -> None:
        shown = (printable(arg, "\n\t") if isinstance(arg, str) else arg for arg in args)
        super().__init__(*shown)


class SettingsError(AlpsError):
    """An option has a value that cannot work."""

    exit_code = 2


class SourceError(AlpsError):
    """An image cannot be found, opened or read."""


class SourceAwayError(SourceError):
    """An image cannot be read now and perhaps can be later: it is away, or memory was short."""


class ModelError(AlpsError):
    """A checkpoint or model name cannot be used."""


class FetchError(ModelError):
    """A download did not yield the file that was asked for."""


class ArtefactError(ModelError):
    """An exported model is missing, unfinished, stale, or belongs to another model or machine."""


class RunFolderError(AlpsError):
    """A run folder is in use, incomplete, unwritable, or belongs to another run."""


class StoreError(AlpsError):
    """An object store refuses, lacks, or does not give what is asked of it.

    kind: for programs, which of these it is.
    """

    def __init__(self, *args: object, kind: str = "") -> None:
        super().__init__(*args)
        self.kind = kind


class OutOfMemoryError(AlpsError):
    """Memory ran out; what was done so far is kept."""


class TooManyFailuresError(AlpsError):
    """The run finished, but more tiles failed than the threshold allows."""

    exit_code = 3


class WorkerError(AlpsError):
    """Worker processes died again and again; what was done so far is kept."""
