"""Which asset of an item is labelled, and by which rule."""

from collections.abc import Iterable
from dataclasses import dataclass

from alps.engine.base.errors import SourceError
from alps.engine.images.facts.bands import bands_by_name
from alps.engine.images.sources import IMAGE_SUFFIXES
from alps.engine.stac.bands import band_names
from alps.engine.stac.item import Item, is_image, roles_of

# Of images that are there beside the ones with the values.
ASIDE = frozenset({"thumbnail", "overview", "metadata", "data-mask", "cloud", "snow-ice"})
MOST_NAMED = 12  # keys that an error lists


@dataclass(frozen=True)
class Chosen:
    """An asset, by its key, and the rule that decided."""

    key: str
    rule: str


def choose_asset(item: Item, asked: str | None) -> Chosen:
    """The asset that was asked for, else by its role. Raises SourceError where there is none.

    The first rule that one asset alone fits: role ``data`` and bands named red, green and blue;
    role ``data``; role ``visual``; bands named so; an image of no other role.
    """
    if asked is not None:
        if asked not in item.assets:
            raise SourceError(f"it has no asset {asked!r:.80}, only {_listed(item.assets)}")
        return Chosen(asked, "--asset")
    images = {
        key: set(roles_of(asset))
        for key, asset in item.assets.items()
        if is_image(asset, IMAGE_SUFFIXES)
    }
    data = [key for key, roles in images.items() if "data" in roles]
    coloured = [key for key in images if bands_by_name(band_names(item, key)) is not None]
    rules = (
        ("role data, with red, green and blue", [key for key in data if key in coloured]),
        ("role data", data),
        ("role visual", [key for key, roles in images.items() if "visual" in roles]),
        ("red, green and blue", [key for key in coloured if not images[key] & ASIDE]),
        ("the only image", [key for key, roles in images.items() if not roles & ASIDE]),
    )
    for rule, fitting in rules:
        if len(fitting) == 1:
            return Chosen(fitting[0], rule)
    if not images:
        raise SourceError(f"none of its assets is an image: {_listed(item.assets) or 'none'}")
    raise SourceError(
        f"{len(data or images)} of its assets could be meant ({_listed(data or images)}); "
        "say which by --asset"
    )


def _listed(keys: Iterable[str]) -> str:
    names = [f"{key:.40}" for key in keys]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
