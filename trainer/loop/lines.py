"""log.jsonl: a JSON object a line. A process that was killed may leave its last line torn."""

import json
from pathlib import Path
from typing import Any

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import RunFolderError

Line = dict[str, Any]


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
            line = json.loads(text)
            if not isinstance(line, dict):
                raise ValueError("no JSON object")
        except ValueError as error:
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
