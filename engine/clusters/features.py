"""What is clustered: the vector that stands for a segment, made from columns of its row.

The embedding, without what its place in the window predicts, whitened and scaled to length 1, and
beside it the segment's colour, standardised over the archive. Statistics of the archive are fitted
in one pass over its segments and travel with the clusters, so a segment's vector never depends on
which others are at hand.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.position import PositionEffect, PositionFit, rows_times
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ClusterSettings

# Columns of the segment table that features are made from.
FEATURE_COLUMNS = ("tile_id", "centre_x", "centre_y", "area", "embedding", "colour")

WITHIN = 0.5  # weight of how colour varies within a segment beside that of its mean
SMALLEST = 1e-6  # variance, of the largest, below which a component is rounding


@dataclass(frozen=True)
class SegmentColumns:
    """What features are made from, of n segments."""

    embedding: np.ndarray  # (n, C) float16 or float32
    colour: np.ndarray  # (n, 6) float16 or float32, mean and deviation of L*, a*, b*
    place: np.ndarray  # (n, 2) x and y of its centre in the window, 1 the window's longer side
    area: np.ndarray  # (n,) pixels
    tile: np.ndarray  # (n,) int64 tile ids

    def __len__(self) -> int:
        return len(self.embedding)

    def take(self, rows: np.ndarray) -> Self:
        """Those at ``rows``, indices or (n,) bool."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class FeatureModel:
    """How columns become vectors; the same row gives the same vector in whatever company."""

    normalise: bool  # scale embeddings to length 1
    position: PositionEffect | None  # removed from embeddings
    axes: np.ndarray | None  # (C, d) float32 that embeddings are then multiplied by
    colour_offset: np.ndarray  # (6,) float32, or (0,) where colour is left out
    colour_scale: np.ndarray  # (6,) float32 that offset colours are multiplied by, or (0,)

    def transform(self, columns: SegmentColumns) -> np.ndarray:
        """The vectors (n, D) float32: C of the embedding, or d, and 6 of colour where used."""
        vectors = np.asarray(columns.embedding, np.float32)
        if self.position is not None:
            vectors = self.position.remove(vectors, columns.place)
        if self.axes is not None:
            vectors = rows_times(vectors, self.axes)
        if self.normalise:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.where(lengths > 0, lengths, 1)
        if not len(self.colour_scale):
            return vectors
        colour = (np.asarray(columns.colour, np.float32) - self.colour_offset) * self.colour_scale
        return np.concatenate([vectors, colour], axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        """What clusters.npz keeps of it; ``position`` is there where it is removed."""
        position = {} if self.position is None else {"position": self.position.coefficients}
        axes = {} if self.axes is None else {"axes": self.axes}
        return {
            "normalised": np.bool_(self.normalise),
            "colour_offset": self.colour_offset,
            "colour_scale": self.colour_scale,
            **position,
            **axes,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Read what ``arrays`` gave. Raises KeyError where something is missing."""
        position = PositionEffect(arrays["position"]) if "position" in arrays else None
        axes = arrays.get("axes")
        colour = arrays["colour_offset"], arrays["colour_scale"]
        return cls(bool(arrays["normalised"]), position, axes, *colour)


def fit_features(pieces: Iterable[SegmentColumns], settings: ClusterSettings) -> FeatureModel:
    """Statistics of an archive, in one pass over its segments; memory is one piece.

    Embeddings lose what is left of their mean, turn to their principal components and get
    variance 1 along each. Mean colours get ``settings.colour_weight`` as their standard deviation,
    the deviations of colour within a segment half of it.
    """
    position = PositionFit()
    total, sums, squares = 0, np.zeros(6), np.zeros(6)
    for columns in pieces:
        position.add(columns.embedding, columns.place)
        colour = columns.colour.astype(np.float64)
        total, sums, squares = (
            total + len(columns),
            sums + colour.sum(0),
            squares + (colour**2).sum(0),
        )
    offset = scale = np.zeros(0, np.float32)
    if settings.colour_weight > 0:
        mean = sums / max(total, 1)
        spread = np.sqrt(np.maximum(squares / max(total, 1) - mean**2, 0))
        # A channel that never varies says nothing; dividing by rounding errors would let it.
        weight = settings.colour_weight * np.repeat([1, WITHIN], 3)
        scale = np.where(spread > 1e-3, weight / np.maximum(spread, 1e-3), 0)
        offset = mean.astype(np.float32)
    effect = position.solve() if settings.remove_position and total else None
    axes = None
    if settings.components and total:
        axes = whitening(position.covariance(effect), settings.components)
    return FeatureModel(settings.normalise, effect, axes, offset, scale.astype(np.float32))


def whitening(covariance: np.ndarray, components: int) -> np.ndarray:
    """Axes (C, d) float32 on which vectors of a covariance (C, C) have variance 1, largest first.

    d is ``components``, or fewer where the vectors have fewer dimensions.
    """
    variance, axes = np.linalg.eigh(covariance)
    order = np.argsort(-variance, kind="stable")[:components]
    order = (
        order[variance[order] > SMALLEST * variance[order[0]]] if variance.max() > 0 else order[:1]
    )
    axes = axes[:, order]
    # An eigenvector may point either way; that its largest entry is positive makes it one.
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(len(order))])
    return (axes / np.sqrt(np.maximum(variance[order], np.finfo(np.float32).tiny))).astype(
        np.float32
    )


def segment_columns(table: pa.Table, sides: np.ndarray) -> SegmentColumns:
    """What features are made from, of a segment table that has at least FEATURE_COLUMNS.

    sides: (T,) longer side in pixels of the window of each tile id, which count from 0.
    """
    column = {name: table.column(name).to_numpy() for name in FEATURE_COLUMNS[:4]}
    centre = np.stack([column["centre_x"], column["centre_y"]], axis=1)
    return SegmentColumns(
        embedding=_lists(table, "embedding"),
        colour=_lists(table, "colour"),
        place=centre / sides[column["tile_id"]][:, None],
        area=column["area"],
        tile=column["tile_id"],
    )


def read_segment_columns(path: Path, sides: np.ndarray) -> SegmentColumns:
    """``segment_columns`` of a file of segments/.

    Raises:
        RunFolderError: it cannot be read, was written by a version that noted less, or holds a
            number that is none.
    """
    refuse_older(path)
    columns = segment_columns(read_table(path, list(FEATURE_COLUMNS)), sides)
    refuse_unusable(columns, path)
    return columns


def refuse_older(path: Path) -> None:
    """Raise RunFolderError for segments of a version that noted less."""
    try:
        names = pq.read_schema(path).names
    except (OSError, pa.ArrowInvalid):
        return  # reading it will say what is wrong
    missing = [name for name in FEATURE_COLUMNS if name not in names]
    if missing:
        raise RunFolderError(
            f"{path} has no column `{missing[0]}`: an older version wrote it; delete {path.parent} "
            f"and give the command that made it again (alps segment SRC {path.parent.parent}), or "
            "label into another OUT"
        )


def refuse_unusable(columns: SegmentColumns, path: Path) -> None:
    """Say whose embedding or colour is not finite: it would spread to all centroids."""
    for what, values in (("embeddings", columns.embedding), ("colours", columns.colour)):
        unusable = ~np.isfinite(values).all(1)
        if unusable.any():
            first = read_table(path, ["tile_id", "segment_id"]).slice(int(unusable.argmax()), 1)
            tile, segment = (column[0].as_py() for column in first.columns)
            raise RunFolderError(
                f"{path}: {unusable.sum()} of {len(values)} {what} hold NaN or infinity, the "
                f"first that of tile {tile}, segment {segment}; the model's weights are damaged, "
                "or its embeddings leave the range of float16: segment into another OUT with "
                "another --model"
            )


def _lists(table: pa.Table, name: str) -> np.ndarray:
    """A column of lists of one length as (n, length)."""
    column = table.column(name).combine_chunks()
    values = column.flatten() if table.num_rows else pa.array([], column.type.value_type)
    width = table.schema.field(name).type.list_size
    return values.to_numpy(zero_copy_only=False).reshape(-1, width)
