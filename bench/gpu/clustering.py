"""What a pass of k-means should take on a GPU, from shapes, by the way its products are made.

    python -m alps.bench.gpu.clustering

float16 vectors. Beside it stands what the memory alone would take if each vector were read once. As
in ``prediction``, a prediction is held against the first run on a GPU, not believed.
"""

from collections.abc import Iterator

import click

from alps.bench.gpu.prediction import H100, Card, Work

OUTPUTS = 12  # bytes a vector: label and two distances
# Instructions of a thread, a channel of a vector: two distances, and what is summed.
MEASURE, ADD = 5, 8
LOOK = 6  # a product of a vector and a centroid, compared
TILED = 2.5  # a multiply-add with its loads from shared memory, of products without tensor cores


def ways(vectors: int, clusters: int, channels: int) -> Iterator[Work]:
    """Each way of a pass."""
    read = 2.0 * vectors * channels
    macs = float(vectors) * clusters * channels
    rest = float(vectors) * (channels * (MEASURE + ADD) + clusters * LOOK)
    written = float(OUTPUTS * vectors)
    yield Work("tiles of products in one kernel, float32", moved=read + written,
               instructions=rest + TILED * macs)  # fmt: skip
    products = 2 * clusters * 4.0 * vectors  # float32, of both halves
    yield Work("products by cuBLAS, then a kernel", 2 * macs,
               moved=2 * read + 2 * products + written, instructions=rest)  # fmt: skip
    yield Work("both in one kernel, not written", 2 * macs, moved=read + written,
               instructions=rest)  # fmt: skip


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


@click.command()
@click.option("--vectors", default=10_000_000, show_default=True, help="How many.")
@click.option("--clusters", default=46, show_default=True, help="How many.")
@click.option("--channels", default=256, show_default=True, help="Of a vector.")
def main(vectors: int, clusters: int, channels: int) -> None:
    """Print what a pass of k-means should take."""
    print("\n".join(table(vectors, clusters, channels)))


if __name__ == "__main__":
    main()
