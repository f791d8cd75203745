"""Run-length codes of masks, bit-exact with COCO's (pycocotools).

A mask is read column by column; runs alternate between zeros and ones and start with zeros (a
first run of length 0 where the first pixel is set). The compressed form writes each run, from
the fourth on as its difference to the run two before, in groups of 5 bits from the lowest,
bit 5 of a byte meaning "more follows", the last group's top bit giving the sign, 48 added to
make it printable (cocoapi, common/maskApi.c: rleToString).

Bytes moved by ``encode``: 2 x H x W (transpose) + H x W (scan).
"""

import numpy as np

_FIRST_DELTA = 3  # runs 0, 1 and 2 are written as they are
_OFFSET = 48
_MAX_GROUPS = 12  # 60 bits: longer codes cannot be a run length


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """Return the runs of a mask (H, W) bool, column by column: (R,) int64, zeros first.

    The runs add up to H x W. A mask without pixels has the single run 0.
    """
    # C order of the transpose is column order; contiguous, so that the scan below is one sweep.
    flat = np.ascontiguousarray(mask.T).reshape(-1)
    if flat.size == 0:
        return np.zeros(1, np.int64)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lead = [0, 0] if flat[0] else [0]
    return np.diff(np.concatenate([lead, changes, [flat.size]])).astype(np.int64)


def mask_from_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the mask (height, width) bool, C order, whose ``run_lengths`` these are.

    Raises:
        ValueError: a run is negative, or they do not add up to height x width.
    """
    runs = np.asarray(runs)
    if runs.size and runs.min() < 0:
        raise ValueError(f"run lengths hold {runs.min()}; a run cannot be negative")
    if runs.sum() != height * width:
        raise ValueError(
            f"run lengths add up to {runs.sum()} pixels, a mask of {height} x {width} has "
            f"{height * width}"
        )
    flat = np.repeat(np.arange(runs.size) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def encode(mask: np.ndarray) -> bytes:
    """Return the COCO compressed counts of a mask (H, W) bool, as pycocotools writes them."""
    return encode_runs(run_lengths(mask))


def encode_runs(runs: np.ndarray) -> bytes:
    """Return the COCO compressed counts of runs (R,) int."""
    values = np.array(runs, np.int64)
    values[_FIRST_DELTA:] -= np.asarray(runs, np.int64)[_FIRST_DELTA - 2 : -2]
    # A value needs the least k groups with -2^(5k-1) <= value < 2^(5k-1).
    magnitude = np.where(values < 0, ~values, values)
    groups = np.ones(values.size, np.int64)
    for count in range(1, _MAX_GROUPS):
        longer = (magnitude >> (5 * count - 1)) > 0
        if not longer.any():
            break
        groups += longer
    start = np.cumsum(groups) - groups
    code = np.empty(int(groups.sum()), np.uint8)
    for group in range(int(groups.max(initial=0))):
        at = np.flatnonzero(groups > group)
        bits = (values[at] >> (5 * group)) & 0x1F
        more = np.where(groups[at] > group + 1, 0x20, 0)
        code[start[at] + group] = bits + more + _OFFSET
    return code.tobytes()


def decode_runs(counts: bytes) -> np.ndarray:
    """Return the runs (R,) int64 of COCO compressed counts.

    Raises:
        ValueError: the bytes are not such a code.
    """
    code = np.frombuffer(counts, np.uint8).astype(np.int64) - _OFFSET
    if code.size == 0:
        return np.zeros(0, np.int64)
    if code.min() < 0 or code.max() > 0x3F:
        raise ValueError("counts hold bytes that no COCO run-length code has")
    last = np.flatnonzero((code & 0x20) == 0)
    if last.size == 0 or last[-1] != code.size - 1:
        raise ValueError("counts end in the middle of a run")
    start = np.concatenate([[0], last[:-1] + 1])
    groups = last - start + 1
    if groups.max() > _MAX_GROUPS:
        raise ValueError("counts hold a run of more than 60 bits")
    place = np.arange(code.size) - np.repeat(start, groups)
    values = np.add.reduceat((code & 0x1F) << (5 * place), start)
    negative = (code[last] & 0x10) != 0
    values[negative] -= np.int64(1) << (5 * groups[negative])
    # Undo the differences: odd runs add up from run 1, even ones from run 2.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def decode(counts: bytes, height: int, width: int) -> np.ndarray:
    """Return the mask (height, width) bool, C order, of COCO compressed counts.

    Raises:
        ValueError: the bytes are not such a code, or not of a mask of this size.
    """
    return mask_from_runs(decode_runs(counts), height, width)


def area(counts: bytes) -> int:
    """Return the number of pixels in the mask of COCO compressed counts."""
    return int(decode_runs(counts)[1::2].sum())
