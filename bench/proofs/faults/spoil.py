"""Ways in which a file is spoilt."""

import os
import random
from collections.abc import Callable
from pathlib import Path


def truncated(content: bytes, rng: random.Random) -> bytes:
    """Cut short."""
    return content[: rng.randrange(len(content))] if content else content


def flipped(content: bytes, rng: random.Random) -> bytes:
    """One bit is another."""
    if not content:
        return b"\0"
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def emptied(content: bytes, rng: random.Random) -> bytes:
    """Of no bytes."""
    return b""


def junk(content: bytes, rng: random.Random) -> bytes:
    """As long as it was, of random bytes."""
    return rng.randbytes(len(content))


def zeroed(content: bytes, rng: random.Random) -> bytes:
    """A stretch of zeros, as a crash leaves blocks that never came to the disk."""
    begin, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:begin] + bytes(end - begin) + content[end:]


def longer(content: bytes, rng: random.Random) -> bytes:
    """With something behind its end."""
    return content + rng.randbytes(rng.randrange(1, 64))


def noisy(content: bytes, rng: random.Random) -> bytes:
    """Several bytes are others, most of them near the beginning, where headers are."""
    spoilt = bytearray(content)
    for _ in range(rng.randrange(1, 12)):
        if spoilt:
            reach = min(len(spoilt), rng.choice([64, 512, len(spoilt)]))
            spoilt[rng.randrange(reach)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(spoilt)


def moved(content: bytes, rng: random.Random) -> bytes:
    """A piece lies elsewhere."""
    if len(content) < 4:
        return content
    begin, end = sorted(rng.sample(range(len(content)), 2))
    rest = content[:begin] + content[end:]
    at = rng.randrange(len(rest) + 1)
    return rest[:at] + content[begin:end] + rest[at:]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncated,
    flipped,
    emptied,
    junk,
    zeroed,
    longer,
)
NOISES = (*DAMAGES, noisy, noisy, noisy, moved)


def removed(path: Path, victim: Path) -> None:
    """It is not there."""
    path.unlink()


def linked(path: Path, victim: Path) -> None:
    """Its name leads to a file that is none of the run's."""
    path.unlink()
    path.symlink_to(victim)


def piped(path: Path, victim: Path) -> None:
    """Whoever opens it waits for a writer that never comes."""
    path.unlink()
    os.mkfifo(path)


def foldered(path: Path, victim: Path) -> None:
    """It is a folder, and not an empty one."""
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


REPLACED: tuple[Callable[[Path, Path], None], ...] = (removed, linked, piped, foldered)
# All ways by their names: of contents, and of what lies under the name.
WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {way.__name__: way for way in NOISES}
OTHERS = {way.__name__: way for way in REPLACED}


def spoil(path: Path, how: str, rng: random.Random, victim: Path) -> None:
    """Do to a file what ``how`` names."""
    if how in OTHERS:
        OTHERS[how](path, victim)
    else:
        path.write_bytes(WAYS[how](path.read_bytes(), rng))
