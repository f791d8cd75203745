"""The objects that an address names: one, all below a prefix, or those that fit a pattern.

A store lists keys in the order of their bytes, which is the order that sources have in a plan, so
nothing is held or sorted here but a page of the listing.
"""

import glob
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

from alps.engine.stores.address import WEB, Address
from alps.engine.stores.client import Bucket, Stored

JOURNAL = "journal/plan.parquet"  # below a prefix that is a run folder


def objects_at(
    address: Address, wanted: Callable[[str], bool], exclude: Address | None = None
) -> Iterator[tuple[str, Stored]]:
    """Names and objects below a prefix, or that fit a pattern, in order; one listing for each.

    A name is relative to the prefix, or to the part of the pattern above its first wildcard. Hidden
    names are left out, and run folders with all that is below them. Raises StoreError.

    Args:
        address: its key may have wildcards; ``**`` crosses folders.
        wanted: of a name's last part.
        exclude: a place that is passed over.
    """
    pattern = address.key.split("/") if glob.has_magic(address.key) else []
    fixed = _fixed(pattern) if pattern else address.key
    start = f"{fixed}/" if fixed else ""
    rest = pattern[len(fixed.split("/")) if fixed else 0 :]
    run = None  # a run folder that the listing is inside of
    for entry in Bucket(address).objects(fixed):
        name = entry.key.removeprefix(start)
        if entry.key.endswith(f"/{JOURNAL}") or entry.key == JOURNAL:
            run = entry.key.removesuffix(JOURNAL)
        if run is not None and entry.key.startswith(run):
            continue
        if exclude is not None and exclude.holds(address.at(entry.key)):
            continue
        parts = name.split("/")
        if not name or not wanted(parts[-1]):
            continue
        fits = _fits(parts, rest) if pattern else not any(part.startswith(".") for part in parts)
        if fits:
            yield name, entry


def is_prefix(address: Address, is_image: Callable[[str], bool]) -> bool:
    """Whether an address stands for several objects."""
    if address.scheme in WEB:
        return False
    return glob.has_magic(address.key) or not is_image(address.name)


def _fixed(pattern: Sequence[str]) -> str:
    """The folders of a pattern above its first wildcard."""
    parts = []
    for part in pattern[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return "/".join(parts)


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a key, in parts, is one that a pattern names; as ``glob`` has it."""
    if not pattern:
        return not parts
    if not parts:
        return list(pattern) == ["**"]
    is_hidden = parts[0].startswith(".")
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or (not is_hidden and _fits(parts[1:], pattern))
    if is_hidden and not pattern[0].startswith("."):
        return False
    return fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
