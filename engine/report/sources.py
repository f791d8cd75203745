"""Opens the images that the page shows pieces of, one at a time."""

from collections.abc import Callable
from typing import Self

from alps.engine.base.errors import SourceError
from alps.engine.images.raster import RasterReader, Tile
from alps.engine.images.reading import Reading
from alps.engine.images.windows import Window
from alps.engine.report.rows.sources import SourceRow
from alps.engine.report.rows.tiles import TileRow

# Reads a window of a source, given the source's name as tiles.parquet has it.
ReadTile = Callable[[str, Window], Tile]


class SourcePixels:
    """Reads windows of tiles' sources; a source that is gone is noted once and gives None.

    read_tile: reads instead of this class where it is given. It may raise SourceError, OSError
    or ValueError for what cannot be read.
    """

    def __init__(self, reading: Reading | None, read_tile: ReadTile | None = None) -> None:
        self.gone: dict[str, str] = {}  # source name: why it cannot be read
        self._reading = reading
        self._read_tile = read_tile
        self._reader: RasterReader | None = None  # of the source read last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def read(self, row: TileRow | SourceRow, window: Window) -> Tile | None:
        """The pixels of a part of a row's source, ``window`` in pixels of the source."""
        if row.source in self.gone:
            return None
        try:
            if self._read_tile is not None:
                return self._read_tile(row.source, window)
            return self._open(row.path).read(window)
        except (SourceError, OSError, ValueError) as error:
            self.gone[row.source] = " ".join(str(error).split())
            return None

    def _open(self, path: str | None) -> RasterReader:
        if not path:
            raise SourceError("tiles.parquet does not say what to open (column path).")
        if self._reader is None or self._reader.path != path:
            self._close()
            self._reader = RasterReader(path, self._reading)
        return self._reader

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
