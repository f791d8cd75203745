"""The compiled parts of the network in an official SAM's shape, beside PyTorch, same weights."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from alps.bench.kernels.timed import Timed
from alps.engine.runtimes.protocol import DecodedMasks
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam import Sam
from alps.engine.sam.config import VIT_B
from alps.engine.sam.image_encoder import attend_compiled, attend_with_positions

POINTS = 16
ATTENTION = "attention over 64 x 64 tokens, 12 heads of 64, offset by place"
DECODER = f"decoder, {POINTS} points, all masks of each"


@pytest.fixture(scope="module")
def attended() -> list[Tensor]:
    """Query, key, value (1, 12, 4096, 64), offsets by row and by column (1, 12, 4096, 64)."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 12, 4096, 64, generator=generator) for _ in range(5)]


def attend_with_all_offsets(
    query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor
) -> Tensor:
    offsets = (by_row[..., :, None] + by_column[..., None, :]).flatten(3)  # (1, 12, 4096, 4096)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=offsets)


@pytest.mark.benchmark(group=ATTENTION)
@pytest.mark.parametrize(
    "attend", [attend_with_all_offsets, attend_with_positions, attend_compiled]
)
def test_attention(
    timed: Timed,
    attended: list[Tensor],
    attend: Callable[..., Tensor],
) -> None:
    timed.moves(
        6 * attended[0].nbytes,  # five read, one written
        baseline=attend is attend_with_all_offsets,
    )
    attend_compiled(*(part[..., :64, :] for part in attended[:3]), *[torch.zeros(1, 12, 64, 8)] * 2)
    with torch.inference_mode():
        got = timed(attend, *attended, rounds=5)
        torch.testing.assert_close(got, attend_with_positions(*attended), atol=1e-5, rtol=0)


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
