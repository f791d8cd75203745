"""The errors that ALPS raises on purpose. Each text says what, where, and how to mend it."""


class AlpsError(Exception):
    """Base class: something a user can act on. The command line prints it without a traceback."""

    exit_code = 1


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


class OutOfMemoryError(AlpsError):
    """Memory ran out; what was done so far is kept."""


class TooManyFailuresError(AlpsError):
    """The run finished, but more tiles failed than the threshold allows."""

    exit_code = 3
