"""What a pass of k-means should take on a GPU, from shapes, by the way its products are made.

    python -m alps.bench.gpu.clustering

float16 vectors. Beside it stands what the memory alone would take if each vector were read once. As
in ``prediction``, a prediction is held against the first run on a GPU, not believed.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from alps.bench.gpu.prediction import H100, Card, Work

if TYPE_CHECKING:
    from alps.kernels.base.triton import Resources

OUTPUTS = 12  # bytes a vector: label and two distances
# Instructions of a thread, a channel of a vector: two distances, and what is summed.
MEASURE, ADD = 5, 8
LOOK = 6  # a product of a vector and a centroid, compared
AGAIN = 1  # a channel of a vector, on its way from the cache to where products take it
MINE = 4  # whether a vector is a centroid's, as an operand of the products that sum
TILED = 2.5  # a multiply-add with its loads from shared memory, of products without tensor cores


def ways(vectors: int, clusters: int, channels: int) -> Iterator[Work]:
    """Each way of a pass; the last as ``kernels.kmeans.fused`` does it, where it can."""
    from alps.kernels.kmeans.fused import fits, shape_of

    read = 2.0 * vectors * channels
    macs = float(vectors) * clusters * channels
    rest = float(vectors) * (channels * (MEASURE + ADD) + clusters * LOOK)
    written = float(OUTPUTS * vectors)
    yield Work("tiles of products in one kernel, float32", moved=read + written,
               instructions=rest + TILED * macs)  # fmt: skip
    products = 2 * clusters * 4.0 * vectors  # float32, of both halves
    yield Work("products by cuBLAS, then a kernel", 2 * macs,
               moved=2 * read + 2 * products + written, instructions=rest)  # fmt: skip
    rows, columns = shape_of(clusters, channels)
    if fits(clusters, channels):
        inside = float(vectors) * (channels * (MEASURE + AGAIN) + rows * (LOOK + MINE))
        yield Work("all in one kernel", 3.0 * vectors * rows * columns, moved=read + written,
                   instructions=inside)  # fmt: skip


def table(vectors: int, clusters: int, channels: int, card: Card = H100) -> list[str]:
    """Rows of Markdown."""
    least = (2.0 * vectors * channels + OUTPUTS * vectors) / card.memory
    lines = [
        "| way | TFLOP of products | GB moved | ms | over the memory's least |",
        "|---|---|---|---|---|",
    ]
    for work in ways(vectors, clusters, channels):
        seconds = work.seconds(card)
        lines.append(
            f"| {work.name} | {2 * work.macs / 1e12:.2f} | {work.moved / 1e9:.1f} "
            f"| {1000 * seconds:.1f} | {seconds / least:.1f} |"
        )
    return [*lines, f"\nThe memory's least: {1000 * least:.2f} ms."]


def resources(clusters: int, channels: int, weighted: bool, capability: int) -> "Resources":
    """What the one kernel takes of a GPU that need not be there; compiled for it, in seconds."""
    from alps.kernels.base.triton import compile_for
    from alps.kernels.kmeans.fused import LAUNCH, constants, fused_kernel

    arrays = {
        **dict.fromkeys(("vectors", "halves"), "*fp16"),
        **dict.fromkeys(("weights", "offsets", "centroids", "unit", "nearest", "second"), "*fp32"),
        **dict.fromkeys(("sums", "of_cluster", "inertia"), "*fp64"),
        "labels": "*i32",
        "count": "i32",
    }
    own = constants(clusters, channels, weighted)
    return compile_for(fused_kernel, capability, arrays, own, **LAUNCH)


@click.command()
@click.option("--vectors", default=10_000_000, show_default=True, help="How many.")
@click.option("--clusters", default=46, show_default=True, help="How many.")
@click.option("--channels", default=256, show_default=True, help="Of a vector.")
def main(vectors: int, clusters: int, channels: int) -> None:
    """Print what a pass of k-means should take."""
    print("\n".join(table(vectors, clusters, channels)))


if __name__ == "__main__":
    main()
