"""The pass of k-means on a GPU in one Triton kernel, of float16 vectors and not too many centroids.

A program takes tiles of vectors one after the other, which memory gives once and caches twice more.
Tensor cores multiply a tile with the halves of all centroids; the two nearest of each vector are
measured directly; and a product with what each vector counts for which cluster adds the tile to
the clusters' sums, which stay in registers. Every ROUND tiles those are added in float64 to the
program's own, and programs are added in order: the same vectors give the same sums each time.

Sums are right to float32's rounding over a round, about 1e-6 of the largest: what counts for a
cluster is multiplied exactly, a weight as two float16, and added in float32.

Bytes moved: N x C x 2 read once; N x 12 written; a program and round K x C x 8 of sums read and
written, which the second-level cache holds. Work: N x K x C x 2 multiply-adds of nearness, K to the
next power of two, and N x K x C of sums, twice that with weights.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import triton
import triton.language as tl

BLOCK = 64  # vectors of a tile
PART = 32  # channels that are multiplied or measured at a time
LAUNCH = {"num_warps": 8, "num_stages": 2}
ROUND = 128  # tiles whose sums are float32
PROGRAMS = 264  # two for each multiprocessor of a large GPU, if registers allow it
MOST_SUMS = 1 << 14  # that stay in registers: clusters x channels, to powers of two
MOST_ROWS, MOST_COLUMNS = 128, 256  # of them
LARGEST_WEIGHT = 1 << 14  # that weights are scaled to: near float16's most


@dataclass(frozen=True)
class Found:
    """What a pass yields, as PyTorch's tensors where the vectors lie; see ``rules.Assignment``."""

    labels: Any  # (N,) int32
    nearest: Any  # (N,) float32
    second: Any  # (N,) float32
    sums: Any  # (K, C) float64
    counts: Any  # (K,) int64
    weights: Any  # (K,) float64
    inertia: Any  # () float64


def shape_of(clusters: int, channels: int) -> tuple[int, int]:
    """Clusters and channels as the kernel has them: powers of two that tensor cores take."""
    return max(16, triton.next_power_of_2(clusters)), max(16, triton.next_power_of_2(channels))


def fits(clusters: int, channels: int) -> bool:
    """Whether the sums of so many clusters stay in registers."""
    rows, columns = shape_of(clusters, channels)
    return rows <= MOST_ROWS and columns <= MOST_COLUMNS and rows * columns <= MOST_SUMS


def assign_tensors(vectors: Any, halves: Any, offsets: Any, centroids: Any, weights: Any) -> Found:
    """Assign vectors, on PyTorch's current stream.

    Args:
        vectors: (N, C) float16, in C order; N at least 1.
        halves: (2 K, C) float16, scaled centroids as sums of two, the greater ones first.
        offsets: (K,) float32, scaled likewise: offset - product tells how near.
        centroids: (K, C) float32.
        weights: (N,) float32, or None.
    """
    import torch

    count, channels = vectors.shape
    clusters = len(centroids)
    rows, columns = shape_of(clusters, channels)
    device = vectors.device
    of_centroids = torch.zeros((2, rows, columns), dtype=torch.float16, device=device)
    of_centroids[:, :clusters, :channels] = halves.reshape(2, clusters, channels)
    padded = torch.full((rows,), np.inf, dtype=torch.float32, device=device)
    padded[:clusters] = offsets
    measured = torch.zeros((rows, columns), dtype=torch.float32, device=device)
    measured[:clusters, :channels] = centroids
    tiles = triton.cdiv(count, BLOCK)
    programs = min(tiles, PROGRAMS)
    labels = torch.empty(count, dtype=torch.int32, device=device)
    nearest, second = (torch.empty(count, dtype=torch.float32, device=device) for _ in range(2))
    sums = torch.zeros((programs, rows, columns), dtype=torch.float64, device=device)
    of_cluster = torch.zeros((programs, 2, rows), dtype=torch.float64, device=device)
    inertia = torch.zeros(programs, dtype=torch.float64, device=device)
    unit = torch.ones(1, dtype=torch.float32, device=device)
    if weights is not None:
        # A power of two, found where the weights lie: nobody waits for it.
        largest = weights.max().clamp(min=1e-30).reshape(1)
        unit = torch.exp2(torch.floor(torch.log2(LARGEST_WEIGHT / largest)))
    fused_kernel[(programs,)](
        vectors, unit if weights is None else weights, of_centroids, padded, measured, unit,
        labels, nearest, second, sums, of_cluster, inertia, count,
        **constants(clusters, channels, weights is not None), **LAUNCH,
    )  # fmt: skip
    total = sums.sum(0)[:clusters, :channels] / unit.double()
    number, mass = of_cluster.sum(0)[:, :clusters]
    return Found(
        labels,
        nearest,
        second,
        total,
        number.round().long(),
        mass,
        inertia.sum(),
    )


def constants(clusters: int, channels: int, weighted: bool) -> dict[str, Any]:
    """What the kernel is compiled with."""
    rows, columns = shape_of(clusters, channels)
    return {
        "K": clusters,
        "C": channels,
        "ROWS": rows,
        "COLUMNS": columns,
        "BLOCK": BLOCK,
        "PART": min(PART, columns),
        "ROUND": ROUND,
        "WEIGHTED": weighted,
    }


@triton.jit
def fused_kernel(
    vectors: tl.tensor,
    weights: tl.tensor,
    halves: tl.tensor,
    offsets: tl.tensor,
    centroids: tl.tensor,
    unit: tl.tensor,
    labels: tl.tensor,
    nearest: tl.tensor,
    second: tl.tensor,
    sums: tl.tensor,
    of_cluster: tl.tensor,
    inertia: tl.tensor,
    count: tl.tensor,
    K: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    PART: tl.constexpr,
    ROUND: tl.constexpr,
    WEIGHTED: tl.constexpr,
) -> None:
    """A stretch of tiles of vectors."""
    program = tl.program_id(0).to(tl.int64)
    tiles = (count + BLOCK - 1) // BLOCK
    # Neighbouring tiles, so that the order of sums is that of the vectors.
    first_tile = program * tiles // tl.num_programs(0)
    last_tile = (program + 1) * tiles // tl.num_programs(0)
    k = tl.arange(0, ROWS)
    c = tl.arange(0, COLUMNS)
    offset = tl.load(offsets + k)
    scale = tl.load(unit)
    own_sums = sums + program * ROWS * COLUMNS + k[:, None] * COLUMNS + c[None, :]
    own_counts = of_cluster + program * 2 * ROWS + k
    energy = tl.full((), 0, tl.float64)
    for start in range(first_tile, last_tile, ROUND):
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        number = tl.zeros((ROWS,), tl.int32)
        mass = tl.zeros((ROWS,), tl.float64)
        for tile in range(start, min(start + ROUND, last_tile)):
            row = tile * BLOCK + tl.arange(0, BLOCK)
            valid = row < count
            here = vectors + row[:, None] * C
            # Some columns at a time, each time out of the cache: all would take all registers.
            value = tl.zeros((BLOCK, ROWS), tl.float32)
            for column in range(0, C, PART):
                part = column + tl.arange(0, PART)
                some = tl.load(
                    here + part[None, :], valid[:, None] & (part < C)[None, :], other=0.0
                )
                table = halves + part[:, None] + k[None, :] * COLUMNS
                value = tl.dot(some, tl.load(table), value)
                value = tl.dot(some, tl.load(table + ROWS * COLUMNS), value)
            value = offset[None, :] - value
            one = _least(value, k, ROWS)
            rest = tl.where(k[None, :] == one[:, None], float("inf"), value)
            other = _least(rest, k, ROWS)
            one = tl.where(one < K, one, 0)  # NaN is nearest to none; it shows in the sums
            other = tl.where(other < K, other, tl.where(one == 0, K > 1, 0))
            near = tl.zeros((BLOCK,), tl.float32)
            far = tl.zeros((BLOCK,), tl.float32)
            for column in range(0, C, PART):
                part = column + tl.arange(0, PART)
                own = tl.load(
                    here + part[None, :], valid[:, None] & (part < C)[None, :], other=0.0
                ).to(tl.float32)
                near += _distance(own, centroids + part, one, COLUMNS)
                far += _distance(own, centroids + part, other, COLUMNS)
            if K == 1:
                far = tl.full((BLOCK,), float("inf"), tl.float32)
            else:
                swapped = (far < near) | ((far == near) & (other < one))
                one = tl.where(swapped, other, one)
                near, far = tl.where(swapped, far, near), tl.where(swapped, near, far)
            tl.store(labels + row, one, valid)
            tl.store(nearest + row, near, valid)
            tl.store(second + row, far, valid)
            x = tl.load(here + c[None, :], valid[:, None] & (c < C)[None, :], other=0.0)
            mine = (k[:, None] == one[None, :]) & valid[None, :]
            number += tl.sum(mine.to(tl.int32), 1)
            if WEIGHTED:
                weight = tl.load(weights + row, valid, other=0.0)
                mass += tl.sum(tl.where(mine, weight[None, :], 0.0).to(tl.float64), 1)
                energy += tl.sum(tl.where(valid, near, 0.0).to(tl.float64) * weight.to(tl.float64))
                scaled = weight * scale
                high = scaled.to(tl.float16)
                low = (scaled - high.to(tl.float32)).to(tl.float16)
                zero = tl.zeros((ROWS, BLOCK), tl.float16)
                total = tl.dot(tl.where(mine, low[None, :], zero), x, total)
                total = tl.dot(tl.where(mine, high[None, :], zero), x, total)
            else:
                energy += tl.sum(tl.where(valid, near, 0.0).to(tl.float64))
                total = tl.dot(mine.to(tl.float16), x, total)
        tl.store(own_sums, tl.load(own_sums) + total.to(tl.float64))
        tl.store(own_counts, tl.load(own_counts) + number.to(tl.float64))
        mass = mass if WEIGHTED else number.to(tl.float64)
        tl.store(own_counts + ROWS, tl.load(own_counts + ROWS) + mass)
    tl.store(inertia + program, energy)


@triton.jit
def _least(value: tl.tensor, k: tl.tensor, ROWS: tl.constexpr) -> tl.tensor:
    """The lowest column that has the least of a row; ROWS where that is no number."""
    least = tl.min(value, 1)
    return tl.min(tl.where(value == least[:, None], k[None, :], ROWS), 1)


@triton.jit
def _distance(
    some: tl.tensor, centroids: tl.tensor, which: tl.tensor, COLUMNS: tl.constexpr
) -> tl.tensor:
    """What some columns of vectors add to their squared distances to a centroid."""
    difference = some - tl.load(centroids[None, :] + which[:, None] * COLUMNS)
    return tl.sum(difference * difference, 1)
