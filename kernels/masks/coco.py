"""COCO's compressed code of masks, bit-exact with pycocotools.

The code writes each run length, from the fourth on as its difference to the run two before, in
groups of 5 bits from the lowest, bit 5 of a byte meaning "more follows", the last group's top bit
giving the sign, 48 added to make it printable (cocoapi, common/maskApi.c: rleToString).

Bytes moved: 4 a run, and some 1.5 a run of code, each twice (once to count, once to write).
"""

from collections.abc import Sequence

import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.base.threads import spread
from alps.kernels.masks.pixels import mask_of, runs_of
from alps.kernels.masks.runs import Runs, checked_size, starts_of

_FIRST_DELTA = 3  # runs 0, 1 and 2 are written as they are
_OFFSET = 48  # a byte less it is a group of bits and a mark that more follow
_BITS, _SIGN, _MORE = 5, 1 << 4, 1 << 5
_MOST_BITS = 60  # a longer code cannot be a run length
_GRAIN = 64  # masks of some KB of runs each

# What can be wrong with a code, as the compiled decoder reports it.
_SOUND, _BAD_BYTE, _CUT_OFF, _TOO_LONG, _NEGATIVE, _WRONG_TOTAL = range(6)


def encode(runs: Runs) -> list[bytes]:
    """COCO compressed counts of each mask, as pycocotools writes them."""
    sizes = np.zeros(len(runs), np.int64)
    lengths, starts = runs.lengths, runs.starts
    spread(lambda a, b: _code_sizes(lengths, starts, sizes, a, b), len(runs), _GRAIN)
    places = starts_of(sizes)
    code = np.empty(places[-1], np.uint8)
    spread(lambda a, b: _write_codes(lengths, starts, places, code, a, b), len(runs), _GRAIN)
    return [code[places[i] : places[i + 1]].tobytes() for i in range(len(runs))]


def encode_mask(mask: np.ndarray) -> bytes:
    """COCO compressed counts of one mask (H, W) bool."""
    return encode(runs_of(mask[None]))[0]


def decode_mask(counts: bytes, size: tuple[int, int]) -> np.ndarray:
    """One mask (H, W) bool of ``size`` from its COCO compressed counts; errors as ``decode``'s."""
    return mask_of(decode([counts], size), 0)


def reference_encode(lengths: np.ndarray) -> bytes:
    """As ``encode``, in NumPy, for the run lengths (R,) of one mask."""
    values = np.array(lengths, np.int64)
    values[_FIRST_DELTA:] -= np.asarray(lengths, np.int64)[_FIRST_DELTA - 2 : -2]
    code = bytearray()
    for value in values.tolist():
        more = True
        while more:
            group = value & 0x1F
            value >>= 5
            # Done where the rest is the sign of the group just taken.
            more = value != (-1 if group & 0x10 else 0)
            code.append(group + (0x20 if more else 0) + _OFFSET)
    return bytes(code)


def decode(counts: Sequence[bytes], size: tuple[int, int]) -> Runs:
    """Run lengths of M masks of ``size`` (H, W) from their COCO compressed counts.

    Raises:
        ValueError: a code is damaged, or is not of a mask of this size; or masks of that size
            have 2^31 pixels or more.
    """
    height, width = checked_size(size)
    code = np.frombuffer(b"".join(counts), np.uint8)
    places = starts_of(np.array([len(one) for one in counts], np.int64))
    runs = np.zeros(len(counts), np.int64)
    spread(lambda a, b: _count_runs(code, places, runs, a, b), len(counts), _GRAIN)
    starts = starts_of(runs)
    lengths = np.empty(starts[-1], np.int32)
    verdict = np.zeros((len(counts), 2), np.int64)
    total = height * width
    spread(
        lambda a, b: _read_codes(code, places, starts, total, lengths, verdict, a, b),
        len(counts),
        _GRAIN,
    )
    damaged = np.flatnonzero(verdict[:, 0] != _SOUND)
    if damaged.size:
        fault, number = verdict[damaged[0]].tolist()
        what = {
            _BAD_BYTE: f"the byte {number}, which no COCO run-length code has",
            _CUT_OFF: "an end in the middle of a run",
            _TOO_LONG: f"a run of more than {_MOST_BITS} bits",
            _NEGATIVE: f"a negative run, {number}",
            _WRONG_TOTAL: f"runs that add up to {number} pixels; a mask of {height} x {width} has "
            f"{total}",
        }[fault]
        raise ValueError(f"the counts of mask {damaged[0]} of {len(counts)} have {what}")
    return Runs((height, width), lengths, starts)


def reference_decode(counts: bytes) -> np.ndarray:
    """As ``decode``, in plain Python, for one sound code: run lengths (R,) int64."""
    values: list[int] = []
    value, groups = 0, 0
    for byte in counts:
        group = byte - _OFFSET
        value |= (group & 0x1F) << (5 * groups)
        groups += 1
        if not group & 0x20:
            if group & 0x10:
                value -= 1 << (5 * groups)
            values.append(value + (values[-2] if len(values) >= _FIRST_DELTA else 0))
            value, groups = 0, 0
    return np.array(values, np.int64)


# Inlined by force, and what is wrong with a code found out by ``_fault`` once something is: a call
# for each number, or more ways out of here, and decoding takes twice as long.
@njit(nogil=True, forceinline=True)
def read_number(code: np.ndarray, at: int, end: int) -> tuple[int | np.int64, int]:
    """The number whose code begins at ``at``, and where the next begins; -1 if it is damaged."""
    group = np.int64(code[at]) - _OFFSET
    at += 1
    if 0 <= group < _MORE:  # of the outlines of blobs nine in ten are so short
        return (group ^ _SIGN) - _SIGN, at
    number, bits = group & (_MORE - 1), _BITS
    while group & _MORE:
        if group < 0 or group >= 2 * _MORE or at == end or bits == _MOST_BITS:
            return 0, -1
        group = np.int64(code[at]) - _OFFSET
        at += 1
        number |= (group & (_MORE - 1)) << bits
        bits += _BITS
    if group < 0 or group >= 2 * _MORE:
        return 0, -1
    return (number - (np.int64(1) << bits) if group & _SIGN else number), at


@njit(nogil=True, cache=True)
def _fault(code: np.ndarray, at: int) -> tuple[int, int | np.int64]:
    """What is wrong with the damaged number that begins at ``at``, and its bad byte, if any."""
    for bits in range(0, _MOST_BITS, _BITS):
        if at + bits // _BITS == code.size:
            return _CUT_OFF, 0
        byte = np.int64(code[at + bits // _BITS])
        if byte < _OFFSET or byte >= _OFFSET + 2 * _MORE:
            return _BAD_BYTE, byte
    return _TOO_LONG, 0


@njit(nogil=True, cache=True)
def _value(lengths: np.ndarray, first: int, i: int) -> int | np.int64:
    """What is written for run i of the mask whose runs begin at ``first``: int64."""
    value = np.int64(lengths[i])
    return value - lengths[i - 2] if i - first >= _FIRST_DELTA else value


@njit(nogil=True, cache=True)
def _code_sizes(
    lengths: np.ndarray, starts: np.ndarray, sizes: np.ndarray, first: int, last: int
) -> None:
    """Bytes of the codes of masks [first, last)."""
    for m in range(first, last):
        size = 0
        for i in range(starts[m], starts[m + 1]):
            value = _value(lengths, starts[m], i)
            # k groups hold values from -2^(5k-1) up to 2^(5k-1) - 1.
            magnitude = ~value if value < 0 else value
            size += 1
            while magnitude > 0x0F:
                magnitude >>= 5
                size += 1
        sizes[m] = size


@njit(nogil=True, cache=True)
def _write_codes(
    lengths: np.ndarray,
    starts: np.ndarray,
    places: np.ndarray,
    code: np.ndarray,
    first: int,
    last: int,
) -> None:
    for m in range(first, last):
        at = places[m]
        for i in range(starts[m], starts[m + 1]):
            value = _value(lengths, starts[m], i)
            while value > 0x0F or value < -0x10:
                code[at] = (value & 0x1F) + 0x20 + _OFFSET
                at += 1
                value >>= 5
            code[at] = (value & 0x1F) + _OFFSET
            at += 1


@njit(nogil=True, cache=True)
def _count_runs(
    code: np.ndarray, places: np.ndarray, runs: np.ndarray, first: int, last: int
) -> None:
    for m in range(first, last):
        count = 0
        for at in range(places[m], places[m + 1]):
            count += ((code[at] - _OFFSET) & 0x20) == 0
        runs[m] = count


@njit(nogil=True, cache=True)
def _read_codes(
    code: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    total: int,
    lengths: np.ndarray,
    verdict: np.ndarray,
    first: int,
    last: int,
) -> None:
    """Lengths of masks [first, last), and what is wrong with each code with the number that
    says so.
    """
    for m in range(first, last):
        verdict[m, 0], verdict[m, 1] = _read_code(
            code[places[m] : places[m + 1]], total, lengths[starts[m] : starts[m + 1]]
        )


@njit(nogil=True, cache=True)
def _read_code(code: np.ndarray, total: int, lengths: np.ndarray) -> tuple[int, int | np.int64]:
    run, at = 0, 0
    pixels: int | np.int64 = 0
    while at < code.size:
        begin = at
        value, at = read_number(code, begin, code.size)
        if at < 0:
            return _fault(code, begin)
        if run >= _FIRST_DELTA:
            value += lengths[run - 2]
        if value < 0:
            return _NEGATIVE, value
        pixels += value
        if pixels > total:  # before a length that int32 cannot hold is stored
            return _WRONG_TOTAL, pixels
        lengths[run] = value
        run += 1
    if pixels != total:
        return _WRONG_TOTAL, pixels
    return _SOUND, 0
