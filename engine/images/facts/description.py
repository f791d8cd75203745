"""What is read of a source and why: for a run, for run.json and for `alps inspect`."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Doubt:
    """Something that a person should know, said once a kind and not once a file."""

    kind: str
    text: str


@dataclass(frozen=True)
class HeaderFacts:
    """What a file's header says and what is made of it; no pixel was read.

    kind: the same for sources that are read alike.
    """

    driver: str
    width: int
    height: int
    dtype: str
    band_count: int
    bands: tuple[int, ...]  # read as red, green, blue, or as grey
    bands_why: str
    validity: tuple[str, ...]  # what says which pixels hold data
    place: str
    orientation: int
    doubts: tuple[Doubt, ...]
    asset: str = ""  # of a catalogue's item, and the rule by which it was taken

    def kind(self) -> dict[str, Any]:
        """What sources that are read alike have in common, as plain values for JSON."""
        own = {"asset": self.asset} if self.asset else {}
        return own | {
            "driver": self.driver,
            "dtype": self.dtype,
            "band_count": self.band_count,
            "bands": list(self.bands),
            "bands_why": self.bands_why,
            "validity": list(self.validity),
            "place": self.place,
            "orientation": self.orientation,
        }


@dataclass(frozen=True)
class PixelFacts:
    """What a sample of the pixels shows.

    low, high: what becomes black and white, a value a band; None where values stay as they are.
    """

    valid_share: float
    stretch: str
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    doubts: tuple[Doubt, ...]

    def plain(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self)


def in_words(kind: dict[str, Any]) -> str:
    """One line on sources that are read alike."""
    bands = kind["bands"]
    colours = "as red, green, blue" if len(bands) == 3 else "as grey"
    numbers = f"band{'s' if len(bands) > 1 else ''} {','.join(map(str, bands))}"
    turned = "" if kind["orientation"] == 1 else f"; turned (EXIF {kind['orientation']})"
    asset = f"asset {kind['asset']}: " if "asset" in kind else ""
    return (
        f"{asset}{kind['driver']} {kind['dtype']}, {numbers} of {kind['band_count']} "
        f"{colours} ({kind['bands_why']}); data: {', '.join(kind['validity'])}; "
        f"place: {kind['place']}{turned}"
    )
