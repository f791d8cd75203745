"""Every setting of a run with its one default; the command line and run.json read them from here.

A field that is None takes what suits the model (``ModelDefaults`` travel with the weights), and
where the model says nothing, stock SAM's value or the one of the method's paper.
"""

import dataclasses
import json
from dataclasses import dataclass, field, fields
from typing import Any

from alps.engine.base.errors import SettingsError
from alps.engine.images.windows import check_tiling
from alps.engine.sam.config import ModelDefaults


def setting(default: Any, text: str) -> Any:
    """A dataclass field with the sentence that ``--help`` shows."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class SourceSettings:
    """How images are cut and read."""

    tile: int | None = setting(None, "Side of a window in pixels. Default: the model's.")
    overlap: int | None = setting(None, "Least overlap of windows in pixels. Default: the model's.")
    bands: tuple[int, ...] | None = setting(
        None, "Bands to read as red, green, blue, counted from 1: 4,3,2 say. Default: the file's."
    )


@dataclass(frozen=True)
class SegmentSettings:
    """How SAM is asked, and which of its masks pass the gate."""

    points_per_side: int | None = setting(None, "Prompts a side of a window. Default: the model's.")
    points_per_batch: int = setting(64, "Prompts decoded at once; a GPU takes more.")
    pred_iou_thresh: float | None = setting(
        None, "Masks with a lower predicted IoU are dropped. Default: the model's."
    )
    stability_score_thresh: float | None = setting(
        None, "Masks with a lower stability score are dropped. Default: the model's."
    )
    stability_score_offset: float | None = setting(
        None, "How far logits move to and fro in that score. Default: the model's."
    )
    box_nms_thresh: float | None = setting(
        None, "Of two masks whose boxes overlap more, one is dropped. Default: the model's."
    )
    max_area: float | None = setting(
        None, "Masks with a larger share of their window are dropped. Default: the model's."
    )
    min_area: int = setting(0, "Masks with fewer pixels are dropped.")
    superpixels: float = setting(
        1000.0,
        "Cut masks, and what lies under none, along edges of colour, into at least so many parts a "
        "megapixel; 0 leaves masks whole and the rest unlabelled.",
    )
    # These two change masks; whoever asks for them has seen in `alps bench everything` what they
    # cost.
    precision: str = setting(
        "fp32",
        "Arithmetic of the network: fp32, or bf16, fp16 or (exported only) int8, which change "
        "some masks.",
    )
    coarse_to_fine: bool = setting(
        False, "Ask every other prompt first, and the rest only where no small mask lies yet."
    )
    # Exports round in another order, so what ran is part of what a run is.
    runtime: str = setting(
        "auto",
        "What runs the network: torch, onnxruntime, tensorrt, or two of them as encoder+decoder; "
        "auto takes the fastest that was exported and agrees with PyTorch.",
    )


PRECISIONS = ("fp32", "bf16", "fp16")

# What SegmentSettings and SourceSettings take where neither the user nor the model has a say:
# SAM's own values, and the area gate of the ALPS paper (arXiv 2406.10855). A test holds that they
# are those of EverythingSettings, which cannot be read here: it would bring torch along.
FALLBACKS = ModelDefaults(
    points_per_side=32,
    pred_iou_thresh=0.88,
    stability_score_thresh=0.95,
    stability_score_offset=1.0,
    box_nms_thresh=0.7,
    max_area=0.3,
    tile=1024,
    overlap=128,
)


@dataclass(frozen=True)
class ClusterSettings:
    """How segments become pseudo-classes."""

    clusters: int = setting(46, "Number of pseudo-classes, K.")
    remove_position: bool = setting(
        True, "Subtract from embeddings what their place in the window predicts."
    )
    normalise: bool = setting(True, "Scale each embedding to length 1 before clustering.")
    components: int = setting(
        32, "Principal components of embeddings to keep, each at variance 1; 0: as they are."
    )
    colour_weight: float = setting(
        0.6, "Weight of a segment's colour beside its embedding; 0 leaves it out."
    )
    weight_by_area: bool = setting(
        True, "Let a segment move its centroid by its number of pixels, instead of all alike."
    )
    passes: int = setting(12, "Passes over the archive at most; stops when inertia settles.")
    seed: int = setting(0, "Seed of everything random; the same seed gives the same labels.")


@dataclass(frozen=True)
class PaintSettings:
    """What of the segments' classes the label maps show."""

    min_margin: float = setting(
        0.0,
        "Leave pixels unlabelled whose segment is less sure of its class, 0 to 1: how much nearer "
        "the first centroid is than the second.",
    )


@dataclass(frozen=True)
class RunSettings:
    """All that decides what a run writes."""

    source: SourceSettings = field(default_factory=SourceSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    paint: PaintSettings = field(default_factory=PaintSettings)

    def for_model(self, model: ModelDefaults) -> "RunSettings":
        """Fill what was left open, and check everything."""
        choices = dataclasses.asdict(FALLBACKS) | model.given()
        filled = RunSettings(
            source=_fill(self.source, choices),
            segment=_fill(self.segment, choices),
            cluster=self.cluster,
            paint=self.paint,
        )
        check(filled)
        return filled

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunSettings":
        """Read what ``to_dict`` wrote."""
        source = dict(values["source"])
        source["bands"] = tuple(source["bands"]) if source["bands"] else None
        return cls(
            SourceSettings(**source),
            SegmentSettings(**values["segment"]),
            ClusterSettings(**values["cluster"]),
            PaintSettings(**values.get("paint", {})),
        )


def _fill(settings: Any, choices: dict[str, Any]) -> Any:
    open_fields = [f.name for f in fields(settings) if getattr(settings, f.name) is None]
    return dataclasses.replace(
        settings, **{name: choices[name] for name in open_fields if name in choices}
    )


def check(settings: RunSettings) -> None:
    """Refuse values that cannot work, naming the option."""
    source, segment, cluster = settings.source, settings.segment, settings.cluster
    check_paint(settings.paint)
    check_tiling(source.tile, source.overlap)
    if source.bands is not None and (len(source.bands) not in (1, 3) or min(source.bands) < 1):
        raise SettingsError(
            f"--bands {','.join(map(str, source.bands))}: give one band or three, counted from 1"
        )
    _in_range("--points-per-side", segment.points_per_side, 1, 512)
    _in_range("--points-per-batch", segment.points_per_batch, 1, 1 << 16)
    _in_range("--pred-iou-thresh", segment.pred_iou_thresh, 0, 1)
    _in_range("--stability-score-thresh", segment.stability_score_thresh, 0, 1)
    _in_range("--stability-score-offset", segment.stability_score_offset, 0, 100)
    _in_range("--box-nms-thresh", segment.box_nms_thresh, 0, 1)
    _in_range("--max-area", segment.max_area, 0, 1)
    _in_range("--superpixels", segment.superpixels, 0, 100_000)
    _in_range("--min-area", segment.min_area, 0, 1 << 40)
    known = (*PRECISIONS, "int8")
    if segment.precision not in known:
        raise SettingsError(f"--precision {segment.precision}: give {', '.join(known)}")
    _in_range("--clusters", cluster.clusters, 2, 65_535)
    _in_range("--components", cluster.components, 0, 1 << 16)
    _in_range("--colour-weight", cluster.colour_weight, 0, 1000)
    _in_range("--passes", cluster.passes, 1, 10_000)
    _in_range("--seed", cluster.seed, 0, (1 << 63) - 1)


def check_paint(settings: PaintSettings) -> None:
    """Refuse values that cannot work, naming the option."""
    _in_range("--min-margin", settings.min_margin, 0, 1)


def _in_range(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SettingsError(f"{option} {value}: must be between {low} and {high}")
