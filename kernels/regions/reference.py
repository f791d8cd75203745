"""The region kernels in NumPy and plain Python."""

import numpy as np

from alps.kernels.regions.rules import CONTRAST_UNITS, LAB_UNITS, NOWHERE, Borders, Moments


def reference_pieces(values: np.ndarray, nothing: int = NOWHERE) -> tuple[np.ndarray, np.ndarray]:
    """As ``pieces``: a flood from each pixel that lies in no piece yet."""
    height, width = values.shape
    found = np.full(values.shape, NOWHERE, np.int32)
    first: list[int] = []
    for y, x in np.ndindex(height, width):
        if values[y, x] == nothing or found[y, x] >= 0:
            continue
        waiting = [(y, x)]
        found[y, x] = len(first)
        while waiting:
            v, u = waiting.pop()
            for b, a in ((v - 1, u), (v + 1, u), (v, u - 1), (v, u + 1)):
                inside = 0 <= b < height and 0 <= a < width
                if inside and found[b, a] < 0 and values[b, a] == values[y, x]:
                    found[b, a] = len(first)
                    waiting.append((b, a))
        first.append(y * width + x)
    return found, np.array(first, np.int64)


def reference_borders(regions: np.ndarray, lab: np.ndarray) -> Borders:
    """As ``borders``."""
    found: dict[tuple[int, int], list[int]] = {}
    for down, across in ((0, 1), (1, 0)):
        height, width = regions.shape[0] - down, regions.shape[1] - across
        for y, x in np.ndindex(max(height, 0), max(width, 0)):
            here, there = int(regions[y, x]), int(regions[y + down, x + across])
            if here < 0 or there < 0 or here == there:
                continue
            difference = lab[y, x].astype(np.int64) - lab[y + down, x + across]
            distance = np.sqrt(np.float64((difference**2).sum()))
            entry = found.setdefault((min(here, there), max(here, there)), [0, 0])
            entry[0] += 1
            entry[1] += int(distance * CONTRAST_UNITS / LAB_UNITS)
    pairs = sorted(found)
    sums = np.array([found[pair] for pair in pairs], np.int64).reshape(-1, 2)
    return Borders(np.array(pairs, np.int64).reshape(-1, 2), sums[:, 0], sums[:, 1])


def reference_moments(regions: np.ndarray, lab: np.ndarray, count: int) -> Moments:
    """As ``moments``."""
    own = [lab[regions == region].astype(np.int64) for region in range(count)]
    return Moments(
        np.array([len(pixels) for pixels in own], np.int64),
        np.array([pixels.sum(0) for pixels in own], np.int64).reshape(-1, 3),
        np.array([(pixels**2).sum(0) for pixels in own], np.int64).reshape(-1, 3),
    )


def reference_boxes(regions: np.ndarray, count: int) -> np.ndarray:
    """As ``boxes``."""
    found = np.empty((count, 4), np.int64)
    for region in range(count):
        y, x = np.nonzero(regions == region)
        none = (max(regions.shape), max(regions.shape), -1, -1)
        found[region] = (x.min(), y.min(), x.max(), y.max()) if len(y) else none
    return found


def reference_join_small(
    regions: np.ndarray, lab: np.ndarray, least: int, family: np.ndarray
) -> np.ndarray:
    """As ``join_small``: candidates in a list, sorted."""
    count = len(family)
    found = reference_moments(regions, lab, count)
    area, sums = found.area.copy(), found.sums.astype(np.float64)
    pairs = reference_borders(regions, lab).pairs
    owner = np.arange(count)
    for last in range(2):
        small = (area < least) & (area > 0)
        if not small.any() or not len(pairs):
            break
        low, high = np.sort(owner[pairs], axis=1).T
        keys = np.unique((low * count + high)[low != high])
        ends = np.stack(np.divmod(keys, count), axis=1)
        a, b = np.concatenate([ends, ends[:, ::-1]]).T
        larger = (area[b] > area[a]) | ((area[b] == area[a]) & (b < a))
        allowed = small[a] & (larger if last else ~small[b])
        a, b = a[allowed], b[allowed]
        if not len(a):
            continue
        mean = sums / np.maximum(area, 1)[:, None]
        distance = ((mean[a] - mean[b]) ** 2).sum(1)
        order = np.lexsort((b, distance, family[a] != family[b], a))
        best = order[np.flatnonzero(np.diff(a[order], prepend=-1))]
        goes = np.arange(count)
        goes[a[best]] = b[best]
        while not np.array_equal(further := goes[goes], goes):  # chains of the second round
            goes = further
        moved = np.flatnonzero(goes != np.arange(count))
        np.add.at(area, goes[moved], area[moved])
        np.add.at(sums, goes[moved], sums[moved])
        area[moved], sums[moved] = 0, 0
        owner = goes[owner]
    return owner
