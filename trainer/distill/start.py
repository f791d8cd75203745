"""The student's start, before the first step: what a few windows can settle without learning.

Two closed forms, each from one look at the first windows:

- *Balance.* Blocks normalise what they read, so the stream of tokens may have any scale; only the
  neck knows it. It is brought to a root mean square of 1, and the neck's first convolution divided
  by as much: the same function. An optimiser of Adam's kind moves all weights by like amounts;
  where tokens are small (0.04 in `tiny`, whose DINOv2 layers carry folded-in layer scales) any rate
  that moves the neck tears the layers apart: 16 steps at 1e-4 took the loss from 0.4 to 1.6.
- *Fit.* The neck's first convolution is the least-squares map from the student's tokens to what the
  teacher's makes of its own. The first 3 of 6 layers of `tiny`, not trained: cosine of
  the embeddings, channels standardised, 0.86 with it and 0.47 without.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, islice

import torch
from torch import Tensor, nn

from alps.engine.base.device import sum_type
from alps.engine.sam.image_encoder import ImageEncoder
from alps.engine.sam.model import Encoder, SamLike
from alps.engine.sam.tiny_vit import TinyViT, WindowBlock, measure_norms
from alps.trainer.distill.data import NetworkWindow
from alps.trainer.distill.loss import Statistics, measure_statistics

RIDGE = 1e-2  # of the variance of each token channel
WINDOWS_A_PASS = 4


@dataclass
class FirstLook:
    """What the first windows show of teacher and student."""

    statistics: Statistics
    second_moments: Tensor  # (D + 1, D + 1) float64, of the student's tokens and a constant 1
    products: Tensor  # (D + 1, C) float64, of those with the teacher's first convolution
    weight: float  # cells that show something
    reasons: list[str]  # of windows that could not be read


def settled(
    encoder: Encoder, windows: Iterable[NetworkWindow], device: torch.device
) -> Iterable[NetworkWindow]:
    """Let the norms of an encoder with random weights be measured on the first of these windows.

    Returns all of them. A ViT has none to be measured.
    """
    if not isinstance(encoder, TinyViT):
        return windows
    rest = iter(windows)
    first = list(islice(rest, WINDOWS_A_PASS))
    measure_norms(encoder, torch.stack([window.pixels for window in first]).to(device))
    return chain(first, rest)


@torch.no_grad()
def look(
    teacher: SamLike,
    encoder: Encoder,
    windows: Iterable[NetworkWindow],
    autocast: Callable[[], torch.autocast],
) -> FirstLook:
    """Run teacher and student over windows; both lie on one device."""
    device, width = teacher.device, _first_convolution(encoder).in_channels
    channels = teacher.config.embedding_channels
    exact = sum_type(device)
    moments = torch.zeros(width + 1, width + 1, dtype=exact, device=device)
    products = torch.zeros(width + 1, channels, dtype=exact, device=device)
    embeddings, weights, reasons = [], [], []
    for some in _passes(windows):
        reasons += [window.reason for window in some if window.reason]
        pixels = torch.stack([window.pixels for window in some]).to(device)
        weight = torch.stack([window.weight for window in some])
        reduce, *rest = teacher.image_encoder.neck
        with autocast():
            wanted = reduce(teacher.image_encoder.tokens(pixels).permute(0, 3, 1, 2))
            embedding = torch.nn.Sequential(*rest)(wanted)
            tokens = encoder.tokens(pixels)
        share = weight.to(device).reshape(-1, 1).to(exact).sqrt()
        x = tokens.flatten(0, 2).to(exact) * share
        x = torch.cat([x, share], dim=1)
        y = wanted.permute(0, 2, 3, 1).flatten(0, 2).to(exact) * share
        moments += x.T @ x
        products += x.T @ y
        embeddings.append(embedding.float().cpu())
        weights.append(weight)
    shown = torch.cat(weights)
    total = float(shown.sum())
    nothing = Statistics(torch.zeros(channels), torch.ones(channels))
    statistics = measure_statistics(torch.cat(embeddings), shown) if total else nothing
    return FirstLook(statistics, moments.cpu().double(), products.cpu().double(), total, reasons)


@torch.no_grad()
def balance(encoder: Encoder, seen: FirstLook) -> None:
    """Bring the tokens before the neck to a root mean square of 1; the function stays.

    A TinyViT needs none of it: its convolutions normalise what they hand on.
    """
    if isinstance(encoder, TinyViT):
        return
    mean_square = seen.second_moments.diagonal()[:-1].mean() / seen.weight
    scale = float(mean_square.clamp(min=1e-12).rsqrt())
    patches, reduce = encoder.patch_embed.proj, _first_convolution(encoder)
    assert patches.bias is not None
    written = [patches.weight, patches.bias, encoder.pos_embed]
    for block in encoder.blocks:
        for layer in (block.attn.proj, block.mlp.lin2):
            written += [layer.weight, layer.bias]
    for parameter in written:
        parameter.mul_(scale)
    reduce.weight.div_(scale)
    grown = torch.full_like(seen.second_moments[0], scale)
    grown[-1] = 1
    seen.second_moments *= grown[:, None] * grown
    seen.products *= grown[:, None]


@torch.no_grad()
def fit_neck(encoder: Encoder, seen: FirstLook) -> None:
    """Let the neck's first convolution give what the teacher's gives, as nearly as it can.

    The convolution has no bias; a constant goes into what the last layer adds to the tokens.
    """
    ridge = RIDGE * seen.second_moments.diagonal()
    ridge[-1] = 0
    solution = torch.linalg.solve(seen.second_moments + torch.diag(ridge), seen.products)
    weight, constant = solution[:-1].T, solution[-1]  # (C, D), (C,)
    _first_convolution(encoder).weight.copy_(weight[:, :, None, None])
    added = torch.linalg.pinv(weight) @ constant
    last = _last_layer(encoder)
    last.bias.add_(added.to(last.bias))


def _first_convolution(encoder: Encoder) -> nn.Conv2d:
    """The neck's."""
    reduce = encoder.neck[0]
    assert isinstance(reduce, nn.Conv2d)
    return reduce


def _last_layer(encoder: Encoder) -> nn.Linear:
    """What writes to the tokens last."""
    if isinstance(encoder, ImageEncoder):
        return encoder.blocks[-1].mlp.lin2
    block = encoder.layers[-1].blocks[-1]
    assert isinstance(block, WindowBlock)
    return block.mlp.fc2


def _passes(windows: Iterable[NetworkWindow]) -> Iterable[list[NetworkWindow]]:
    some: list[NetworkWindow] = []
    for window in windows:
        some.append(window)
        if len(some) == WINDOWS_A_PASS:
            yield some
            some = []
    if some:
        yield some
