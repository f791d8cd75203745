"""log.jsonl: a JSON object a line. A process that was killed may leave its last line torn."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import RunFolderError
from alps.engine.base.records import Count, as_record

Line = dict[str, Any]


@dataclass(frozen=True)
class LogLine:
    """Keys of a line that are reckoned with; a line has those of its training."""

    step: Count
    stage: str | None = None
    seconds: float = 0.0
    waited: float = 0.0
    waited_for_crops: float = 0.0
    unread: float = 0.0


def read_lines(path: Path) -> list[Line]:
    """All lines, less a last one that was not ended; none where there is no file.

    Raises:
        RunFolderError: another line is damaged.
    """
    if not path.exists():
        return []
    # What comes after the last line's end was cut short, whether or not it can be read.
    *ended, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    lines = []
    for number, text in enumerate(ended, 1):
        try:
            line = json.loads(text)  # a loss may be NaN
            as_record(line, LogLine)
        except (ValueError, RecursionError) as error:
            raise RunFolderError(
                f"line {number} of {path} is damaged ({error}); put back a copy, or delete the line"
            ) from error
        lines.append(line)
    return lines


def keep_before(path: Path, step: int, stage: str | None = None) -> None:
    """Drop the lines of steps that are done again, from ``step`` on, and one that was torn.

    stage: where a log tells of several stages, the one that ``step`` counts in.
    """
    if not path.exists():
        return
    kept = [
        json.dumps(line) + "\n"
        for line in read_lines(path)
        if line.get("stage") != stage or line["step"] < step
    ]
    write_text(path, "".join(kept))
