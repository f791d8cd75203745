"""Tells a PNG that was cut short, which GDAL does not: it reads the missing rows as zeros."""

import struct
from pathlib import Path

from alps.engine.errors import SourceError

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def refuse_cut_png(path: Path) -> None:
    """Raise SourceError where the file starts as a PNG and ends before its last chunk, IEND.

    Steps over chunk headers (PNG specification, section 5.3) and reads no pixels, so it costs a
    seek a chunk. Files of other formats pass. Damage within a chunk is left to the decoder, which
    checks CRCs.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            return
        position = len(SIGNATURE)
        while True:
            file.seek(position)
            header = file.read(8)
            if len(header) == 8:
                length, kind = struct.unpack(">I4s", header)
                position += 12 + length  # length, type, data, CRC
                if position <= size:
                    if kind == b"IEND":
                        return
                    continue
            raise SourceError(f"{path} is a PNG cut short at {size:,} bytes; copy it again")
