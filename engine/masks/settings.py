"""The settings of everything mode: stock SAM's names, order, defaults and meaning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from alps.engine.base.errors import SettingsError
from alps.engine.masks.crops import point_grid
from alps.engine.sam2.config import PRED_IOU_THRESH
from alps.engine.settings import SegmentSettings, stock

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")

PointGrid = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class EverythingSettings:
    """Settings of everything mode, with stock SAM's names, order and defaults.

    Raises:
        SettingsError: a value cannot work.
    """

    # Whether small regions go before masks are cut, or after all else.
    small_regions_in_logits: ClassVar[bool] = False

    # None: point_grids says which points
    points_per_side: int | None = stock(SegmentSettings, "points_per_side")
    points_per_batch: int = 64  # masks of so many are alive at once; a GPU and many cores take more
    pred_iou_thresh: float = stock(SegmentSettings, "pred_iou_thresh")
    stability_score_thresh: float = stock(SegmentSettings, "stability_score_thresh")
    stability_score_offset: float = stock(SegmentSettings, "stability_score_offset")
    box_nms_thresh: float = stock(SegmentSettings, "box_nms_thresh")
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: Sequence[Any] | None = None  # a grid (n, 2) in 0…1, x first, for each layer
    min_mask_region_area: int = 0  # pixels
    output_mode: str = "binary_mask"

    def __post_init__(self) -> None:
        _require(
            (self.points_per_side is None) != (self.point_grids is None),
            "give exactly one of points_per_side and point_grids",
        )
        for name, least in (
            ("points_per_side", 1),
            ("points_per_batch", 1),
            ("crop_n_layers", 0),
            ("crop_n_points_downscale_factor", 1),
            ("min_mask_region_area", 0),
        ):
            value = getattr(self, name)
            if value is not None:
                whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
                _require(
                    whole and value >= least,
                    f"{name} is {value!r}; it must be a whole number of at least {least}",
                )
        for name in ("pred_iou_thresh", "stability_score_thresh", "stability_score_offset"):
            value = getattr(self, name)
            _require(np.isfinite(value), f"{name} is {value!r}; it must be a finite number")
        for name in ("box_nms_thresh", "crop_nms_thresh", "crop_overlap_ratio"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"{name} is {value!r}; it must lie within 0 and 1")
        _require(
            self.output_mode in OUTPUT_MODES,
            f"output_mode is {self.output_mode!r}; it must be one of {', '.join(OUTPUT_MODES)}",
        )
        if self.point_grids is not None:
            object.__setattr__(self, "point_grids", tuple(map(_plain_grid, self.point_grids)))
            _require(
                len(self.point_grids) > self.crop_n_layers,
                f"point_grids has {len(self.point_grids)} grids; {self.crop_n_layers} crop layers "
                f"need {self.crop_n_layers + 1}, the first is for the whole image",
            )
        else:
            _require(
                self._per_side(self.crop_n_layers) >= 1,
                "crop_n_points_downscale_factor leaves no point in the last crop layer; lower it, "
                "or raise points_per_side",
            )

    @property
    def threshold(self) -> float:
        """A pixel belongs to a mask where its logit is greater."""
        return 0.0

    def grid(self, layer: int) -> np.ndarray:
        """Points of a crop of this layer, (n, 2) x, y in 0…1 of the crop's size."""
        if self.point_grids is not None:
            return np.array(self.point_grids[layer], np.float64).reshape(-1, 2)
        return point_grid(self._per_side(layer))

    def _per_side(self, layer: int) -> int:
        return int(self.points_per_side / self.crop_n_points_downscale_factor**layer)


@dataclass(frozen=True)
class Sam2EverythingSettings(EverythingSettings):
    """The same with the defaults of SAM 2's generator.

    It counts ``min_mask_region_area`` in pixels of the small logits.
    """

    small_regions_in_logits: ClassVar[bool] = True
    pred_iou_thresh: float = PRED_IOU_THRESH
    mask_threshold: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        super().__post_init__()
        value = self.mask_threshold
        _require(np.isfinite(value), f"mask_threshold is {value!r}; it must be a finite number")

    @property
    def threshold(self) -> float:
        """A pixel belongs to a mask where its logit is greater."""
        return self.mask_threshold


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SettingsError(otherwise)


def _plain_grid(grid: Any) -> PointGrid:
    """A grid as plain numbers, so that settings compare and go into JSON."""
    points = np.asarray(grid, np.float64)
    inside = points.ndim == 2 and points.shape[1] == 2 and ((points >= 0) & (points <= 1)).all()
    _require(bool(inside), "point_grids must hold arrays (n, 2) of x, y within 0 and 1")
    return tuple(map(tuple, points.tolist()))
