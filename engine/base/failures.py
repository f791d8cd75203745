"""Any failure of one source is its own: the rest of an archive goes on."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from alps.engine.base.errors import AlpsError, RunFolderError, SourceError
from alps.engine.base.memory import is_out_of_memory

# What is wrong with the names of one source, not with the disk they lie on.
OF_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EILSEQ, errno.ELOOP)


@contextmanager
def of_source(source: str, doing: str) -> Iterator[None]:
    """Raise SourceError for whatever goes wrong with ``source`` in here.

    Errors of the run as a whole stay what they are: a full disk, memory that ran out, settings, a
    damaged run folder.
    """
    try:
        yield
    except RunFolderError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in OF_NAMES:
            raise SourceError(f"{source}: {doing} failed: {error}") from error
        raise
    except AlpsError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno not in OF_NAMES:
            raise
        reason = " ".join(str(error).split()) or "no reason given"
        raise SourceError(
            f"{source}: {doing} failed: {type(error).__name__}: {reason}. Convert it, or leave it "
            "out; that it stopped nothing else is meant so, and the error is worth a report"
        ) from error
