"""What a tile should take on a GPU, from shapes: products, bytes, and instructions of each stage.

    python -m alps.bench.gpu.prediction

A prediction is held against the first run on a GPU (``alps.bench.gpu_check``), not believed. A
stage takes the longer of moving its bytes and of computing, where products and other instructions
come one after the other, and a quarter more for waiting. What a card can do is given by ``Card``;
1 MAC = 2 FLOP.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import click

from alps.bench.everything.flops import absorbed_macs
from alps.engine.sam.config import OFFICIAL, NetworkConfig, SamConfig

WAITING = 1.25
POINTS, WITH_MASK, MASKS = 1024, 512, 1000  # asked, those with a mask, and these
KEPT, PARTS, SEEDS = 512, 4096, 4096  # masks that stay, parts and superpixels of a tile
BATCH = 8  # tiles
ROWS, LOOKS, LAST_LOOKS, HEAD_ROWS = 64, 64, 32, 8  # of a point's rows in a decoder's pass
# Instructions a value, as they stand in machine code for compute capability 9.0.
SOFTMAX, LOOK, NORM, GELU, ROUND = 7, 6, 5, 14, 1
# Between the passes a point's rows, in float32, are read or written so many times, and there are so
# many operators a tile, as counted for the code that stands (``counts``).
ROW_PASSES, OPERATORS = 110, 290
COUNT_PIXEL, WRITE_PIXEL = 32, 20  # bilinear, three cuts; one cut and a bit
SEED_PIXEL = 60  # a pass of superpixels: nine seeds looked at, sums in shared memory
SEED_PASSES = 5


@dataclass(frozen=True)
class Card:
    """A GPU as a set of rates a second."""

    name: str
    halves: float  # FLOP of products of float16 on tensor cores, measured
    singles: float  # of float32 without them
    memory: float  # bytes
    instructions: float  # of one thread, all schedulers busy
    launch: float  # seconds between two kernels of a graph


# Products, float32 products and memory were measured on one; 132 multiprocessors of four schedulers
# of 32 threads at 1.755 GHz by its datasheet.
H100 = Card("NVIDIA H100 SXM", 798e12, 52e12, 3.0e12, 132 * 4 * 32 * 1.755e9, 1.5e-6)


@dataclass(frozen=True)
class Work:
    """What a stage has to do for a tile."""

    name: str
    macs: float = 0.0  # products on tensor cores
    share: float = 1.0  # of the rate that products of this kind reach
    moved: float = 0.0  # bytes of memory
    instructions: float = 0.0  # beside products
    launches: float = 0.0
    exact: bool = False  # each product as three
    singles: bool = False  # products without tensor cores

    def seconds(self, card: Card) -> float:
        """On a card."""
        rate = card.singles if self.singles else card.halves * self.share
        products = 2 * self.macs * (3 if self.exact else 1) / rate
        computing = WAITING * (products + self.instructions / card.instructions)
        return max(computing, self.moved / card.memory) + self.launches * card.launch


def encoder_work(config: SamConfig, exact: bool = False) -> Iterator[Work]:
    """The image encoder's stages; float16 in products, residual stream in float32."""
    side, width, window = config.embedding_size, config.encoder_width, config.window_size
    tokens = side * side
    padded = (-(-side // window) * window) ** 2
    everywhere = len(config.global_blocks)
    windowed = config.encoder_depth - everywhere
    in_blocks = everywhere * tokens + windowed * padded
    head = width // config.encoder_heads
    linear = 4 * width**2 * in_blocks + 8 * width**2 * tokens * config.encoder_depth
    patch = 3 * config.patch_size**2 * width * tokens
    neck = tokens * config.embedding_channels * (width + 9 * config.embedding_channels)
    weights = 12 * width**2 * config.encoder_depth
    size = 4 if exact else 2
    # A block reads and writes the residual stream twice, norms' outputs, q, k, v, what attention
    # gives, and the feed-forward part's inner values.
    values = config.encoder_depth * tokens * width * (4 * 4 + size * (2 + 2 * 4 + 2 + 2 * 8))
    per_pair = 2 * head * config.encoder_heads
    yield Work(
        "encoder: linear layers", linear + patch + neck, share=0.70, singles=exact,
        moved=values + size * weights / BATCH, launches=8 * config.encoder_depth / BATCH,
    )  # fmt: skip
    pairs = everywhere * tokens**2
    offsets = 2 * everywhere * tokens * side * width
    yield Work(
        "encoder: global attention", pairs * per_pair + offsets, share=0.55, exact=exact,
        instructions=pairs * config.encoder_heads * SOFTMAX, launches=2 * everywhere / BATCH,
    )  # fmt: skip
    pairs = windowed * padded * window**2
    channels = -(-(head + 2 * window) // 16) * 16  # offsets folded into channels of q and k
    yield Work(
        "encoder: windows", pairs * (head + channels) * config.encoder_heads, share=0.35,
        exact=exact, instructions=pairs * config.encoder_heads * SOFTMAX,
        moved=windowed * padded * size * 4 * channels * config.encoder_heads,
        launches=3 * windowed / BATCH,
    )  # fmt: skip


def decoder_work(config: NetworkConfig, exact: bool = False) -> Iterator[Work]:
    """The fused decoder's passes over all points of a tile."""
    pixels, channels = config.embedding_size**2, config.embedding_channels
    inner, heads = channels // 2, config.decoder_heads
    tokens = ROWS // HEAD_ROWS - 1
    passes = 2.2 if exact else 1.0  # halves are split, and added again
    stored = 4 if exact else 2
    macs = absorbed_macs(config)
    on_pixels = _on_pixels(config)
    yield Work(
        "decoder: tokens", POINTS * (macs.per_prompt - on_pixels), share=0.25,
        moved=POINTS * ROWS * channels * 4 * ROW_PASSES, launches=OPERATORS, exact=exact,
    )  # fmt: skip
    yield Work(
        "decoder: pass 1", POINTS * 2 * tokens * pixels * inner, share=0.5, exact=exact,
        instructions=POINTS * tokens * heads * pixels * SOFTMAX, launches=1 / BATCH,
    )  # fmt: skip
    one = pixels * (inner * ROWS + ROWS * channels)
    two = pixels * 3 * ROWS * channels
    block_1 = pixels * (ROWS * (SOFTMAX + ROUND) + channels * (NORM + 2 * ROUND))
    block_2 = pixels * (ROWS * (SOFTMAX + ROUND) + channels * (NORM + 3 + 2 * ROUND))

    def look(rows: int) -> tuple[float, float]:
        return pixels * 3 * channels * rows, pixels * rows * LOOK + 32 * channels * rows

    for name, layers, rows, points in (
        ("pass 2", one, LOOKS, POINTS),
        ("pass 3", one + two, LAST_LOOKS, POINTS),
    ):
        products, others = look(rows)
        others += block_1 + (block_2 if layers > one else 0)
        yield Work(
            f"decoder: {name}", points * (layers + products), exact=exact,
            instructions=passes * points * others, launches=1 / BATCH,
        )  # fmt: skip
    yield Work(
        "decoder: pass 4a", WITH_MASK * (one + two), exact=exact,
        moved=WITH_MASK * pixels * channels * stored,
        instructions=passes * WITH_MASK * (block_1 + block_2), launches=16 / BATCH,
    )  # fmt: skip
    first, second = channels // 4, channels // 8
    upscaling = 4 * pixels * (channels * first + first * 4 * second + 4 * second * 16)
    values = 4 * pixels * (first * (GELU + NORM + ROUND) + 4 * second * (GELU + 2 * ROUND))
    yield Work(
        "decoder: pass 4b", WITH_MASK * upscaling, exact=exact,
        moved=WITH_MASK * pixels * channels * stored + MASKS * 16 * pixels * 4,
        instructions=passes * WITH_MASK * values, launches=16 / BATCH,
    )  # fmt: skip


def _on_pixels(config: NetworkConfig) -> float:
    """Of the absorbed decoder's products a point, those that meet all pixels."""
    pixels, channels = config.embedding_size**2, config.embedding_channels
    tokens = ROWS // HEAD_ROWS - 1
    rows = tokens * config.decoder_heads
    read = 4 / tokens  # tokens that the last look is for
    shared = 3 * tokens * pixels * (channels // 2)
    return shared + pixels * channels * rows * (1 + 4 * (config.decoder_depth - 1) + 2 * read)


def after_work(config: NetworkConfig) -> Iterator[Work]:
    """What follows the masks, on the card."""
    logits, side = config.low_resolution_size**2 * 4, config.image_size
    pixels, channels = side * side, config.embedding_channels
    cells, bits = config.embedding_size**2, pixels / 8
    yield Work(
        "after: counts", moved=MASKS * logits, instructions=MASKS * pixels * COUNT_PIXEL,
        launches=8 / BATCH,
    )  # fmt: skip
    yield Work(
        "after: gate, NMS, bits", moved=MASKS**2 / 8 + KEPT * (logits + bits),
        instructions=MASKS**2 * 12 + KEPT * pixels * WRITE_PIXEL / 3, launches=24 / BATCH,
    )  # fmt: skip
    yield Work(
        "after: superpixels, parts", moved=SEED_PASSES * pixels * 10 + KEPT * bits * 2,
        instructions=pixels * (SEED_PASSES * SEED_PIXEL + KEPT / 8), launches=32 / BATCH,
    )  # fmt: skip
    yield Work(
        "after: runs, codes, colours", moved=3 * (KEPT * bits) + pixels * 6 * 2,
        instructions=KEPT * pixels / 32 * 40, launches=24 / BATCH,
    )  # fmt: skip
    yield Work(
        "after: pool", KEPT * cells * channels, singles=True, moved=3 * KEPT * cells * 8,
        instructions=KEPT * pixels / 32 * 8, launches=8 / BATCH,
    )  # fmt: skip


def predicted_ms(model: str, precision: str, card: Card = H100) -> dict[str, float]:
    """Milliseconds a tile to encode and to decode, of an official model."""
    config, exact = OFFICIAL[model], precision == "fp32"
    parts = {"encode": encoder_work(config, exact), "decode": decoder_work(config, exact)}
    return {name: 1e3 * sum(work.seconds(card) for work in works) for name, works in parts.items()}


def table(card: Card = H100) -> list[str]:
    """Rows of Markdown: milliseconds a stage, of each model in float16, and ViT-B's exact."""
    columns = [(f"{name}, fp16", OFFICIAL[name], False) for name in ("vit_b", "vit_l", "vit_h")]
    columns.append(("vit_b, exact", OFFICIAL["vit_b"], True))
    works = [
        [
            *encoder_work(config, exact),
            *decoder_work(config, exact),
            *(replace(work, exact=False) for work in after_work(config)),
        ]
        for _, config, exact in columns
    ]
    lines = ["| ms a tile | " + " | ".join(name for name, *_ in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    totals = [0.0] * len(columns)
    group, sums = "", [0.0] * len(columns)
    for row in [*zip(*works, strict=True), None]:
        mine = row[0].name.partition(":")[0] if row else ""
        if group and mine != group:
            lines.append(f"| **{group}** | " + " | ".join(f"**{s:.1f}**" for s in sums) + " |")
            sums = [0.0] * len(columns)
        group = mine
        if row is None:
            break
        each = [1e3 * work.seconds(card) for work in row]
        lines.append(f"| {row[0].name} | " + " | ".join(f"{value:.2f}" for value in each) + " |")
        sums = [a + b for a, b in zip(sums, each, strict=True)]
        totals = [a + b for a, b in zip(totals, each, strict=True)]
    lines.append("| **a tile** | " + " | ".join(f"**{value:.1f}**" for value in totals) + " |")
    lines.append("| tiles/s | " + " | ".join(f"{1e3 / value:.0f}" for value in totals) + " |")
    return lines


@click.command(help=__doc__)
def main() -> None:
    """Print the table."""
    click.echo(f"Predicted, {H100.name}, {POINTS} points, {MASKS} masks, {BATCH} tiles a batch:\n")
    for line in table():
        click.echo(line)


if __name__ == "__main__":
    main()
