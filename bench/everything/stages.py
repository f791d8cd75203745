"""How near a side's stages come to what the machine can do: arithmetic, and bytes moved.

Multiply-adds are those of the formulation, padding of windows left out; bytes are the least that a
stage has to move between memory and processor: weights and inputs read once, results written once,
and what the decoder leaves of each point to be read later. What stays in a cache counts nowhere.
"""

from dataclasses import dataclass

from alps.bench.everything.flops import FORMS
from alps.bench.everything.sides import SideResult, TileMasks
from alps.engine.sam.config import SamConfig

FLOAT = 4  # bytes


@dataclass(frozen=True)
class StageWork:
    """What a stage of one tile takes at least."""

    flops: float
    bytes: float


def encoder_macs(config: SamConfig) -> int:
    """Multiply-adds of SAM's image encoder, one tile; only matrix products count."""
    side, width, out = config.embedding_size, config.encoder_width, config.embedding_channels
    tokens = side**2
    patches = tokens * 3 * config.patch_size**2 * width
    neck = tokens * (width * out + 9 * out**2)
    linear = 12 * tokens * width**2  # a block's: qkv, projection, an MLP of four times the width
    total = patches + neck
    for index in range(config.encoder_depth):
        everywhere = index in config.global_blocks or not config.window_size
        seen = side if everywhere else config.window_size  # keys are padded, queries are not
        offsets = 2 * tokens * seen * width if config.relative_positions else 0
        total += linear + 2 * tokens * seen**2 * width + offsets
    return total


def encoder_bytes(config: SamConfig) -> int:
    """Weights and pixels once, tokens in and out of each half of a block, the embedding."""
    tokens, width = config.embedding_size**2, config.encoder_width
    block = 12 * width**2 + 2 * 2 * tokens * width + 2 * 3 * tokens * width  # weights, tokens, qkv
    embedding = tokens * config.embedding_channels
    return FLOAT * (3 * config.image_size**2 + config.encoder_depth * block + embedding)


def work_of(config: SamConfig, form: str, counted: list[TileMasks]) -> dict[str, StageWork]:
    """Mean work of a tile by stage: encode, decode, filter.

    form: of the decoder, one of ``flops.FORMS``. counted: tiles with prompts and masks counted.
    """
    tokens, channels = config.embedding_size**2, config.embedding_channels
    logits = FLOAT * config.low_resolution_size**2
    prompts, survivors, masks = (
        sum(getattr(tile, name) or 0 for tile in counted) / len(counted)
        for name in ("prompted", "prompts_left", "masks_left")
    )
    decode = FORMS[form](config).of(prompts, survivors, masks)  # linear in all three
    kept = FLOAT * tokens * channels * (config.decoder_depth - 1)  # image tokens of a prompt
    marked = 0
    if form == "compiled":  # a weight for each row of heads' tokens, and the norm's two numbers
        heads = config.decoder_heads
        rows = heads * (2 + config.multimask_outputs + 1)
        marked = FLOAT * tokens * config.decoder_depth * (rows + 2)
    else:
        kept += FLOAT * tokens * channels
    moved = prompts * (2 * kept + marked) + survivors * marked + masks * logits
    return {
        "encode": StageWork(2 * encoder_macs(config), encoder_bytes(config)),
        "decode": StageWork(2 * decode, moved),
        "filter": StageWork(0, masks * logits),
    }


HEADINGS = ("stage", "side", "GFLOP", "GFLOP/s", "of GEMM", "GB", "GB/s", "of copy")


def stage_rows(
    config: SamConfig, sides: list[SideResult], counted: list[TileMasks], gemm: float, copy: float
) -> list[tuple[str, ...]]:
    """Rows of a table, a stage and a side each.

    gemm: FLOP a second of a matrix product; copy: bytes a second of a copy, both ways counted.
    """
    rows: list[tuple[str, ...]] = [HEADINGS]
    for stage in ("encode", "decode", "filter"):
        for side in sides:
            seconds = side.seconds(stage) if side.tiles else 0.0
            if not seconds or side.decoder_form not in FORMS:
                continue
            work = work_of(config, side.decoder_form, counted)[stage]
            flops, moved = work.flops / seconds, work.bytes / seconds
            arithmetic = (
                (f"{work.flops / 1e9:.0f}", f"{flops / 1e9:.0f}", f"{flops / gemm:.0%}")
                if work.flops
                else ("", "", "")
            )
            bandwidth = f"{work.bytes / 1e9:.2f}", f"{moved / 1e9:.2f}", f"{moved / copy:.0%}"
            rows.append((stage, side.label, *arithmetic, *bandwidth))
    return rows
