"""Every setting of a run, in one table: its default, its range and what `--help` says of it.

The command line, Python and run.json read them from here. A field whose default is None takes what
suits the model (``ModelDefaults`` travel with the weights) and, where the model says nothing, its
``stock`` value: stock SAM's, or that of the method's paper (ALPS, arXiv 2406.10855).
"""

import dataclasses
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from alps.engine.base.errors import SettingsError


def setting(
    default: Any,
    text: str,
    low: float | None = None,
    high: float | None = None,
    stock: Any = None,
    form: str | None = None,
    words: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with the sentence that ``--help`` shows.

    Args:
        default: None where the model decides.
        text: the sentence.
        low: the least value that can work.
        high: the largest.
        stock: taken where neither the user nor the model has a say.
        form: how the command line writes it, where its type does not say: ``numbers``.
        words: values that a shell offers.
    """
    about = {"help": text, "low": low, "high": high, "stock": stock, "form": form, "words": words}
    return field(default=default, metadata=about)


# A class of settings may have a SECTION: the heading of its options in ``--help``.

ALPHA = ("auto", "use", "ignore")
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")
STRETCHES = ("auto", "scene", "archive")


@dataclass(frozen=True)
class ReadSettings:
    """What of a file's word is believed, and what is said instead."""

    bands: tuple[int, ...] | None = setting(
        None, "Bands to read as red, green, blue, counted from 1: 4,3,2 say. Default: the file's."
    )
    alpha: str = setting(
        "auto",
        "What a band that the file calls alpha is: use (a mask), ignore (something else, near "
        "infrared say), or auto, which looks at its values.",
        words=ALPHA,
    )
    nodata: tuple[float, ...] | None = setting(
        None,
        "Value of pixels without data, in place of the file's; repeat it for several, or say none. "
        "Default: the file's, and fill values that no file would hold otherwise.",
        form="numbers",
    )
    stretch: str = setting(
        "auto",
        "What becomes black and white: LO,HI in the file's values; scene (each file's own 2nd and "
        "98th percentile), archive (one for all files of one type), or auto: one for pieces of one "
        "product in one folder, else scene. Without LO,HI 8 bits stay as they are.",
        words=STRETCHES,
    )

    def limits(self) -> tuple[float, float] | None:
        """What LO,HI says; None where ``stretch`` is a word. Raises SettingsError."""
        if self.stretch in STRETCHES:
            return None
        try:
            low, high = (float(part) for part in self.stretch.split(","))
        except ValueError:
            low, high = math.nan, math.nan
        if not low < high or not math.isfinite(high - low):
            raise SettingsError(
                f"--stretch {self.stretch}: give {', '.join(STRETCHES)} or two values LO,HI, "
                "the lower one first: 0,3000 say"
            )
        return low, high


def check_reading(settings: ReadSettings) -> None:
    """Refuse ways of reading that cannot work, naming the option."""
    bands = settings.bands
    if bands is not None and (len(bands) not in (1, 3) or min(bands) < 1):
        raise SettingsError(
            f"--bands {','.join(map(str, bands))}: give one band or three, counted from 1"
        )
    if settings.alpha not in ALPHA:
        raise SettingsError(f"--alpha {settings.alpha}: give {', '.join(ALPHA)}")
    if not all(math.isfinite(value) for value in settings.nodata or ()):
        raise SettingsError("--nodata: what is not finite never counts as data; give other values")
    settings.limits()


@dataclass(frozen=True)
class SourceSettings(ReadSettings):
    """How images are cut and read."""

    SECTION: ClassVar[str] = "Source"

    tile: int | None = setting(
        None, "Side of a window in pixels. Default: the model's.", 1, 1 << 20, stock=1024
    )
    overlap: int | None = setting(
        None, "Least overlap of windows in pixels. Default: the model's.", 0, 1 << 19, stock=128
    )
    asset: str | None = setting(
        None,
        "Key of the asset of STAC items that is read. Default: by its role, data before visual.",
    )
    allow_remote: bool = setting(
        False,
        "Let a .vrt, a STAC item or another file that names files read addresses over the network.",
    )
    allow_vrt_outside: bool = setting(
        False, "Let it read images outside SRC too: any that this machine has."
    )


# Settings that runs of before do not know, and that change nothing where they are off.
ALLOWANCES = ("allow_remote", "allow_vrt_outside", "asset")


def deciding(source: dict[str, Any]) -> dict[str, Any]:
    """Of the values of ``SourceSettings`` those that a result depends on."""
    return {name: value for name, value in source.items() if value or name not in ALLOWANCES}


PRECISIONS = ("fp32", "bf16", "fp16")
ALL_PRECISIONS = (*PRECISIONS, "int8")  # of exports too
RUNTIMES = ("auto", "torch", "onnxruntime", "tensorrt")


@dataclass(frozen=True)
class SegmentSettings:
    """How SAM is asked, and which of its masks pass the gate."""

    SECTION: ClassVar[str] = "Masks"

    points_per_side: int | None = setting(
        None, "Prompts a side of a window. Default: the model's.", 1, 512, stock=32
    )
    points_per_batch: int = setting(64, "Prompts decoded at once; a GPU takes more.", 1, 1 << 16)
    pred_iou_thresh: float | None = setting(
        None,
        "Masks with a lower predicted IoU are dropped. Default: the model's.",
        0,
        1,
        stock=0.88,
    )
    stability_score_thresh: float | None = setting(
        None,
        "Masks with a lower stability score are dropped. Default: the model's.",
        0,
        1,
        stock=0.95,
    )
    stability_score_offset: float | None = setting(
        None,
        "How far logits move to and fro in that score. Default: the model's.",
        0,
        100,
        stock=1.0,
    )
    box_nms_thresh: float | None = setting(
        None,
        "Of two masks whose boxes overlap more, one is dropped. Default: the model's.",
        0,
        1,
        stock=0.7,
    )
    max_area: float | None = setting(
        None,
        "Masks with a larger share of their window are dropped. Default: the model's.",
        0,
        1,
        stock=0.3,  # the paper's
    )
    min_area: int = setting(0, "Masks with fewer pixels are dropped.", 0, 1 << 40)
    superpixels: float = setting(
        4000.0,
        "Cut scenes along edges of colour, into about so many superpixels a megapixel, and these "
        "by the masks: label maps are made of such regions.",
        1,
        100_000,
    )
    # These two change masks; whoever asks for them has seen in `alps bench everything` what they
    # cost.
    precision: str = setting(
        "fp32",
        "Arithmetic of the network: fp32, or bf16, fp16 or (exported only) int8, which change "
        "some masks.",
        words=ALL_PRECISIONS,
    )
    coarse_to_fine: bool = setting(
        False, "Ask every other prompt first, and the rest only where no small mask lies yet."
    )
    # Exports round in another order, so what ran is part of what a run is.
    runtime: str = setting(
        "auto",
        "What runs the network: torch, onnxruntime, tensorrt, or two of them as encoder+decoder; "
        "auto takes the fastest that was exported and agrees with PyTorch.",
        words=RUNTIMES,
    )


@dataclass(frozen=True)
class ClusterSettings:
    """How regions become pseudo-classes."""

    SECTION: ClassVar[str] = "Clusters"

    clusters: int = setting(46, "Number of pseudo-classes, K.", 2, 65_535)
    remove_position: bool = setting(
        True, "Subtract from embeddings what their place in the window predicts."
    )
    centre_sources: bool = setting(
        False, "Subtract from embeddings what all of a source share, as far as it is large enough."
    )
    normalise: bool = setting(True, "Scale each embedding to length 1 before clustering.")
    components: int = setting(
        32,
        "Principal components of embeddings to keep, each at variance 1; 0: as they are.",
        0,
        1 << 16,
    )
    colour_weight: float = setting(
        0.6, "Weight of a region's colour beside its embedding; 0 leaves it out.", 0, 1000
    )
    neighbours: float = setting(
        0.7,
        "How much of a region's vector, 0 to 1, is at most taken from the regions beside it, the "
        "less the more colour differs across their borders.",
        0,
        1,
    )
    weight_by_area: bool = setting(
        True, "Let a region move its centroid by its number of pixels, instead of all alike."
    )
    passes: int = setting(
        12, "Passes over the archive at most; stops when inertia settles.", 1, 10_000
    )
    seed: int = setting(
        0, "Seed of everything random; the same seed gives the same labels.", 0, (1 << 63) - 1
    )


@dataclass(frozen=True)
class PaintSettings:
    """What of the regions' classes the label maps show."""

    SECTION: ClassVar[str] = "Label maps"

    min_patch: str = setting(
        "64",
        "Minimum mapping unit: patches of one class with fewer pixels join the neighbour most like "
        "them; an area, 25m2 say, where the source has a scale.",
    )
    agreement: float = setting(
        3.0,
        "How much dearer, in squared distance to the centroid, a class may be that a patch takes "
        "over from a neighbour where no border can be seen between them; 0: none.",
        0,
        1000,
    )
    objects: bool = setting(
        False, "Write OUT/objects too: the number of each pixel's object, 32 bits."
    )
    min_margin: float = setting(
        0.0,
        "Leave pixels unlabelled whose region is less sure of its class, 0 to 1: how much nearer "
        "the first centroid is than the second.",
        0,
        1,
    )
    cog: bool | None = setting(
        None,
        "Write GeoTIFFs as COG, with overviews of whole classes. Default: with OUT in a store.",
    )

    def deciding(self) -> dict[str, Any]:
        """The values that label maps depend on; runs of before know of no COG."""
        values = asdict(self)
        return values if self.cog else {k: v for k, v in values.items() if k != "cog"}


@dataclass(frozen=True)
class ModelDefaults:
    """Settings that belong to a set of weights, not to the method; None: the stock value."""

    points_per_side: int | None = None
    pred_iou_thresh: float | None = None
    stability_score_thresh: float | None = None
    stability_score_offset: float | None = None
    box_nms_thresh: float | None = None
    max_area: float | None = None
    tile: int | None = None
    overlap: int | None = None

    def given(self) -> dict[str, Any]:
        """Only the settings that this model fixes."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}


@dataclass(frozen=True, kw_only=True)
class FilledSourceSettings(SourceSettings):
    """``SourceSettings`` with the model's say."""

    tile: int
    overlap: int


@dataclass(frozen=True, kw_only=True)
class FilledSegmentSettings(SegmentSettings):
    """``SegmentSettings`` with the model's say."""

    points_per_side: int
    pred_iou_thresh: float
    stability_score_thresh: float
    stability_score_offset: float
    box_nms_thresh: float
    max_area: float


@dataclass(frozen=True)
class RunSettings:
    """All that decides what a run writes, as it was given."""

    source: SourceSettings = field(default_factory=SourceSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    paint: PaintSettings = field(default_factory=PaintSettings)

    def for_model(self, model: ModelDefaults) -> "FilledSettings":
        """Fill what was left open, and check everything."""
        filled = FilledSettings(
            FilledSourceSettings(**_filled(self.source, model)),
            FilledSegmentSettings(**_filled(self.segment, model)),
            self.cluster,
            self.paint,
        )
        check(filled)
        return filled

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


@dataclass(frozen=True)
class FilledSettings(RunSettings):
    """All that decides what a run writes, with the model's say: what stages work with."""

    source: FilledSourceSettings
    segment: FilledSegmentSettings
    cluster: ClusterSettings
    paint: PaintSettings


def stock(settings: type, name: str) -> Any:
    """The stock value of a setting that a model may decide."""
    return next(f.metadata["stock"] for f in fields(settings) if f.name == name)


def _filled(settings: Any, model: ModelDefaults) -> dict[str, Any]:
    values = {}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value is None:
            value = getattr(model, item.name, None)
        values[item.name] = item.metadata["stock"] if value is None else value
    return values


def check(settings: FilledSettings) -> None:
    """Refuse values that cannot work, naming the option."""
    check_ranges(settings.source, SourceSettings)
    check_ranges(settings.segment, SegmentSettings)
    check_ranges(settings.cluster, ClusterSettings)
    check_ranges(settings.paint, PaintSettings)
    check_tiling(settings.source.tile, settings.source.overlap)
    check_reading(settings.source)
    if settings.segment.precision not in ALL_PRECISIONS:
        raise SettingsError(
            f"--precision {settings.segment.precision}: give {', '.join(ALL_PRECISIONS)}"
        )


def check_ranges(settings: Any, table: type) -> None:
    """Refuse values outside the ranges of ``table``, the class whose fields have them."""
    for item in fields(table):
        low, high = item.metadata.get("low"), item.metadata.get("high")
        value = getattr(settings, item.name)
        if low is not None and value is not None and not low <= value <= high:
            option = "--" + item.name.replace("_", "-")
            raise SettingsError(f"{option} {value}: must be between {low} and {high}")


def check_defaults(defaults: ModelDefaults) -> None:
    """Refuse what a model says of itself where no setting may be so. Raises SettingsError."""
    given = defaults.given()
    for table in (SourceSettings, SegmentSettings):
        own = {item.name for item in fields(table)} & given.keys()
        check_ranges(table(**{name: given[name] for name in own}), table)
    check_tiling(
        given.get("tile", stock(SourceSettings, "tile")),
        given.get("overlap", stock(SourceSettings, "overlap")),
    )


def check_tiling(tile: int, overlap: int) -> None:
    """Raise SettingsError unless windows of this tile and overlap can cover an image."""
    if tile < 1:
        raise SettingsError(f"--tile {tile}: a window needs at least 1 pixel a side, 1024 is usual")
    if not 0 <= overlap < tile / 2:
        # At half a tile a pixel would lie in three windows of one row and cores could be empty.
        raise SettingsError(
            f"--overlap {overlap}: must be at least 0 and less than half of --tile {tile}"
        )
