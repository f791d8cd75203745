"""The compiled parts of the network in an official SAM's shape, beside PyTorch, same weights."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from alps.bench.kernels.timed import Timed
from alps.engine.runtimes.protocol import DecodedMasks
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam import Sam
from alps.engine.sam.config import VIT_B
from alps.engine.sam.image_encoder import attend_with_positions
from alps.kernels.encoder.attention import grid_attention

POINTS = 16
ATTENTION = "attention over 64 x 64 tokens, 12 heads of 64, offset by place"
DECODER = f"decoder, {POINTS} points, all masks of each"


@pytest.fixture(scope="module")
def attended() -> tuple[Tensor, list[Tensor]]:
    """Query, key and value (1, 64, 64, 3, 12, 64), offsets by row and by column (127, 64)."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(1, 64, 64, 3, 12, 64, generator=generator)
    return qkv, [0.1 * torch.randn(127, 64, generator=generator) for _ in range(2)]


def all_offsets(
    query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor
) -> Tensor:
    offsets = (by_row[..., :, None] + by_column[..., None, :]).flatten(3)  # (1, 12, 4096, 4096)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=offsets)


def in_pytorch(qkv: Tensor, tables: Sequence[Tensor], attend: Callable[..., Tensor]) -> Tensor:
    """From what a linear layer leaves to what the next one takes, as ``GridAttention`` does."""
    query, key, value = qkv.flatten(1, 2).permute(2, 0, 3, 1, 4)  # each (1, 12, 4096, 64)
    place = torch.arange(64)
    grid = query.unflatten(2, (64, 64))
    rows, columns = (table[place[:, None] - place + 63] for table in tables)
    by_row = torch.einsum("bnhwd,hkd->bnhwk", grid, rows).flatten(2, 3)
    by_column = torch.einsum("bnhwd,wkd->bnhwk", grid, columns).flatten(2, 3)
    return (
        attend(query, key, value, by_row, by_column)
        .transpose(1, 2)
        .reshape(qkv[..., 0, :, :].shape)
    )


def in_the_kernel(qkv: Tensor, tables: Sequence[Tensor]) -> Tensor:
    bias = np.zeros((3, 12, 64), np.float32)
    by_row, by_column = (table.numpy() for table in tables)
    return torch.from_numpy(grid_attention(qkv.numpy(), bias, by_row, by_column, (64, 64)))


ATTEND: dict[str, Callable[..., Tensor]] = {
    "all offsets": partial(in_pytorch, attend=all_offsets),
    "offsets in pieces": partial(in_pytorch, attend=attend_with_positions),
    "ours": in_the_kernel,
}


@pytest.mark.benchmark(group=ATTENTION)
@pytest.mark.parametrize("form", ATTEND)
def test_attention(timed: Timed, attended: tuple[Tensor, list[Tensor]], form: str) -> None:
    qkv, tables = attended
    timed.moves(qkv.nbytes * 4 // 3, baseline=form == "all offsets")  # read, and a third written
    with torch.inference_mode():
        ATTEND[form](qkv, tables)
        got = timed(ATTEND[form], qkv, tables, rounds=5)
        torch.testing.assert_close(got, in_the_kernel(qkv, tables), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def sam() -> Sam:
    """A decoder of official size; the encoder is not run, a single block of it will do."""
    torch.manual_seed(0)
    return Sam(replace(VIT_B, encoder_depth=1, global_blocks=())).eval()


@pytest.mark.benchmark(group=DECODER)
@pytest.mark.parametrize("decoder", ["plain", "absorbed", "compiled"])
def test_decoder(timed: Timed, sam: Sam, decoder: str) -> None:
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(256, 64, 64, generator=generator)
    points = 1024 * torch.rand(POINTS, 2, generator=generator)
    runtime = TorchRuntime(sam, decoder=decoder)

    def decode() -> DecodedMasks:
        (masks,) = runtime.decode(embedding, points, 0.0, POINTS)
        return masks

    decode()  # compile, or load what was compiled, before the clock runs
    got = timed(decode, rounds=3)
    # What any decoder must: the embedding read, the logits written.
    timed.moves(embedding.nbytes + got.logits.nbytes, baseline=decoder == "plain")
    (plain,) = TorchRuntime(sam, decoder="plain").decode(embedding, points, 0.0, POINTS)
    torch.testing.assert_close(got.logits, plain.logits, atol=1e-4, rtol=0)
