"""What is clustered: the vector that stands for a region of a scene.

The embeddings of the segments that windows saw there, each without what its place in the window
predicts, whitened, blended by their shares and scaled to length 1; beside it the region's own
colour, standardised over the archive. Then ``vectors`` mixes in those of the regions around.
Statistics of the archive are fitted in one pass and travel with the clusters, so a region's vector
never depends on which others are at hand.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.position import (
    MOST_FREQUENCIES,
    PositionEffect,
    PositionFit,
    cosine_basis,
    rows_times,
    terms,
)
from alps.engine.settings import ClusterSettings
from alps.kernels.regions import blend

# Columns of the segment table that features are made from.
SEGMENT_COLUMNS = ("centre_x", "centre_y", "area", "embedding")
WITHIN = 0.5  # weight of how colour varies within a region beside that of its mean
SMALLEST = 1e-6  # variance, of the largest, below which a component is rounding


# Pixels of a source at which half of its mean counts: what a small one shares may be what it shows.
SETTLED_PIXELS = 300_000


@dataclass(frozen=True)
class SegmentColumns:
    """What of m segments features are made from."""

    embedding: np.ndarray  # (m, C) float16 or float32
    place: np.ndarray  # (m, 2) x and y of its centre in the window, 1 the window's longer side
    area: np.ndarray  # (m,) pixels


@dataclass(frozen=True)
class SourceMeans:
    """What the segments of each of s sources share, by their pixels."""

    embedding: np.ndarray  # (s, C) float64
    basis: np.ndarray  # (s, F²) float64, of ``cosine_basis`` with the most frequencies
    pixels: np.ndarray  # (s,) of all their segments

    @classmethod
    def of(cls, parts: Iterable[SegmentColumns]) -> Self:
        """Of one source, whose segments come part by part."""
        pixels = 0.0
        embedding: np.ndarray | float = 0.0
        basis: np.ndarray | float = 0.0
        for part in parts:
            area = part.area.astype(np.float64)
            pixels += area.sum()
            embedding = embedding + area @ part.embedding.astype(np.float64)
            basis = basis + area @ cosine_basis(part.place, MOST_FREQUENCIES).astype(np.float64)
        total = max(pixels, 1.0)
        return cls(
            np.atleast_2d(embedding / total), np.atleast_2d(basis / total), np.array([pixels])
        )

    @classmethod
    def join(cls, parts: Sequence["SourceMeans"]) -> Self:
        """All of several."""
        return cls(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls))
        )


@dataclass(frozen=True)
class RegionColumns:
    """What features of n regions are made from.

    A region saw ``segments`` entry by entry: entries of region i are those from starts[i] up to
    starts[i + 1].
    """

    segments: SegmentColumns
    source: np.ndarray  # (m,) int64 rows of ``means``, of each segment
    means: SourceMeans
    starts: np.ndarray  # (n + 1,) int64
    entry: np.ndarray  # (E,) int64 rows of segments
    share: np.ndarray  # (E,) float32, those of a region add up to 1
    colour: np.ndarray  # (n, 6) float16 or float32, mean and deviation of L*a*b*
    area: np.ndarray  # (n,) pixels

    def __len__(self) -> int:
        return len(self.area)

    def take(self, rows: np.ndarray) -> Self:
        """Those at ``rows``, indices."""
        length = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        entries = np.repeat(self.starts[rows] - starts[:-1], length) + np.arange(starts[-1])
        return type(self)(
            self.segments,
            self.source,
            self.means,
            starts,
            self.entry[entries],
            self.share[entries],
            self.colour[rows],
            self.area[rows],
        )


@dataclass(frozen=True)
class FeatureModel:
    """How columns become vectors; the same row gives the same vector in whatever company."""

    normalise: bool  # scale embeddings to length 1
    centred: bool  # what a source's segments share is removed from embeddings
    position: PositionEffect | None  # removed from embeddings
    axes: np.ndarray | None  # (C, d) float32 that embeddings are then multiplied by
    colour_offset: np.ndarray  # (6,) float32, or (0,) where colour is left out
    colour_scale: np.ndarray  # (6,) float32 that offset colours are multiplied by, or (0,)
    neighbours: float = 0.0  # share of a vector that is its neighbours', at most

    def transform(self, columns: RegionColumns) -> np.ndarray:
        """What regions by themselves are, (n, D) float32: C of the embedding, or d, and 6 of
        colour where used.
        """
        vectors = blend(self._of_segments(columns), columns.starts, columns.entry, columns.share)
        if not len(self.colour_scale):
            return self.scaled(vectors)
        colour = (np.asarray(columns.colour, np.float32) - self.colour_offset) * self.colour_scale
        return self.scaled(np.concatenate([vectors, colour], axis=1))

    def scaled(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (n, D) whose embeddings have length 1 where that was asked for."""
        if not self.normalise:
            return vectors
        width = vectors.shape[1] - len(self.colour_scale)
        lengths = np.linalg.norm(vectors[:, :width], axis=1, keepdims=True)
        scale = np.ones_like(vectors)
        scale[:, :width] = np.where(lengths > 0, lengths, 1)
        return vectors / scale

    def _of_segments(self, columns: RegionColumns) -> np.ndarray:
        """Embeddings of segments without what place and source say, on the axes: (m, d)."""
        segments = columns.segments
        if not len(segments.area):  # there are no means of their sources either
            width = (segments.embedding if self.axes is None else self.axes).shape[1]
            return np.zeros((0, width), np.float32)
        vectors = np.asarray(segments.embedding, np.float32)
        if self.position is not None:
            vectors = self.position.remove(vectors, segments.place)
        if self.centred:
            vectors = vectors - self._shared(columns.means)[columns.source]
        return vectors if self.axes is None else rows_times(vectors, self.axes)

    def _shared(self, means: SourceMeans) -> np.ndarray:
        """What is removed from the embeddings of each source, (s, C) float32."""
        shared = means.embedding
        if self.position is not None:
            solution = self.position.coefficients.astype(np.float64)
            shared = shared - means.basis[:, terms(round(len(solution) ** 0.5))] @ solution
        weight = means.pixels / (means.pixels + SETTLED_PIXELS)
        return (shared * weight[:, None]).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """What clusters.npz keeps of it; ``position`` is there where it is removed."""
        position = {} if self.position is None else {"position": self.position.coefficients}
        axes = {} if self.axes is None else {"axes": self.axes}
        return {
            "normalised": np.array(self.normalise),
            "centred": np.array(self.centred),
            "colour_offset": self.colour_offset,
            "colour_scale": self.colour_scale,
            "most_of_neighbours": np.array(self.neighbours),
            **position,
            **axes,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Read what ``arrays`` gave. Raises KeyError where something is missing."""
        position = PositionEffect(arrays["position"]) if "position" in arrays else None
        axes = arrays.get("axes")
        colour = arrays["colour_offset"], arrays["colour_scale"]
        flags = bool(arrays["normalised"]), bool(arrays["centred"])
        # Older clusters lack it, and weighed neighbours otherwise.
        return cls(*flags, position, axes, *colour, float(arrays["most_of_neighbours"]))


class FeatureFit:
    """Statistics of an archive, piece by piece: of its segments, and of its regions."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._position = PositionFit()
        self._segments = self._regions = 0
        self._sums, self._squares = np.zeros(6), np.zeros(6)

    def add_segments(self, segments: SegmentColumns) -> None:
        """Count the embeddings of segments, by their pixels."""
        self._segments += len(segments.area)
        self._position.add(segments.embedding, segments.place, segments.area)

    def add_colours(self, colour: np.ndarray) -> None:
        """Count colours (n, 6) of regions, all alike."""
        self._regions += len(colour)
        colour = colour.astype(np.float64)
        self._sums += colour.sum(0)
        self._squares += (colour**2).sum(0)

    def solve(self) -> FeatureModel:
        """How features are made.

        Embeddings lose what is left of their mean, turn to their principal components and get
        variance 1 along each. Mean colours get ``settings.colour_weight`` as their standard
        deviation, the deviations of colour within a region half of it.
        """
        settings = self._settings
        offset = scale = np.zeros(0, np.float32)
        if settings.colour_weight > 0:
            total = max(self._regions, 1)
            mean = self._sums / total
            spread = np.sqrt(np.maximum(self._squares / total - mean**2, 0))
            # A channel that never varies says nothing; dividing by rounding errors would let it.
            weight = settings.colour_weight * np.repeat([1, WITHIN], 3)
            scale = np.where(spread > 1e-3, weight / np.maximum(spread, 1e-3), 0)
            offset = mean.astype(np.float32)
        known = self._segments > 0
        effect = self._position.solve() if settings.remove_position and known else None
        axes = None
        if settings.components and known:
            axes = whitening(self._position.covariance(effect), settings.components)
        return FeatureModel(
            settings.normalise,
            settings.centre_sources,
            effect,
            axes,
            offset,
            scale.astype(np.float32),
            settings.neighbours,
        )


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


def segment_columns(table: pa.Table, side: int) -> SegmentColumns:
    """What features are made from, of the segments of a window whose longer side is ``side``."""
    centre = [table.column(name).to_numpy() for name in ("centre_x", "centre_y")]
    return SegmentColumns(
        lists(table, "embedding"), np.stack(centre, axis=1) / side, table.column("area").to_numpy()
    )


def refuse_older(path: Path, names: Iterable[str]) -> None:
    """Raise RunFolderError for a table of a version that noted less."""
    try:
        there = pq.read_schema(path).names
    except (OSError, pa.ArrowInvalid):
        return  # reading it will say what is wrong
    missing = [name for name in names if name not in there]
    if missing:
        raise RunFolderError(
            f"{path} has no column `{missing[0]}`: an older version wrote it; delete {path.parent} "
            f"and give the command that made it again (alps segment SRC {path.parent.parent}), or "
            "label into another OUT"
        )


def refuse_unusable(values: np.ndarray, what: str, tile_id: int) -> None:
    """Say of which tile a number (n, …) is not finite: it would spread to all centroids."""
    unusable = ~np.isfinite(values).all(1)
    if unusable.any():
        raise RunFolderError(
            f"{unusable.sum()} of {len(values)} {what} of tile {tile_id} hold NaN or infinity, the "
            f"first that of segment {int(unusable.argmax())}; the model's weights are damaged, or "
            "its embeddings leave the range of float16: segment into another OUT with another "
            "--model"
        )


def present(table: pa.Table, name: str) -> pa.Array:
    """A column of lists in one piece. Raises RunFolderError where it lacks some."""
    column = table.column(name).combine_chunks()
    if column.null_count:
        raise RunFolderError(
            f"the column {name} of a table of this run lacks values; alps verify OUT --repair "
            "finds what is damaged"
        )
    return column


def lists(table: pa.Table, name: str) -> np.ndarray:
    """A column of lists of one length as (n, length). Errors as ``present``'s."""
    column = present(table, name)
    values = column.flatten() if table.num_rows else pa.array([], column.type.value_type)
    width = table.schema.field(name).type.list_size
    return values.to_numpy(zero_copy_only=False).reshape(-1, width)
