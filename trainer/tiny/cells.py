"""Let colours inside a patch pass through the encoder, so that masks can have finer edges.

A token stands for 16 x 16 pixels; a mask has 4 x 4 logits there. What separates those is in the
patch embedding without loss, but the blocks write over it: a least-squares fit finds 58 % of the
variance of 4 x 4 colours in the tokens of DINOv2's layer 6. So a few directions of the residual
stream, those in which tokens vary least, are taken from the blocks (they neither read nor write
them any more) and carry the patch's cells instead, from the patch embedding straight to the neck.
The layout of the network stays SAM's; only weights change.
"""

import math

import torch
from torch import Tensor, nn

from alps.engine.sam import Sam
from alps.engine.sam.image_encoder import ImageEncoder

CELLS = 4  # a side of a patch; SAM's decoder makes this many logits of a token
_OPPONENTS = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]])  # light, red-blue, green
_CHROMA = 2.0  # colours vary less than light
_DETAIL = 2.0  # how much what varies inside a patch is raised over its means
_SHARE = 0.02  # of the tokens' variance, which carried cells make up; more disturbs the blocks


def cell_basis(patch: int, count: int) -> Tensor:
    """The first ``count`` cosine coefficients of a patch's cells, coarse to fine, per opponent.

    Returns:
        (count, 3, patch, patch): multiplied with a normalised patch and summed, they give the mean
        light and colours of the patch first, then what varies inside it.
    """
    steps = (torch.arange(CELLS) + 0.5) * math.pi / CELLS
    waves = torch.stack([(k * steps).cos() for k in range(CELLS)])
    waves = waves / waves.norm(dim=1, keepdim=True)
    order = sorted((u + v, u, v) for u in range(CELLS) for v in range(CELLS))
    planes = torch.stack([torch.outer(waves[u], waves[v]) for _, u, v in order])  # (16, 4, 4)
    side = patch // CELLS
    large = planes.repeat_interleave(side, 1).repeat_interleave(side, 2) / side**2
    opponents = _OPPONENTS / _OPPONENTS.norm(dim=1, keepdim=True)
    opponents = opponents * torch.tensor([1.0, _CHROMA, _CHROMA])[:, None]
    return torch.einsum("oc,khw->kochw", opponents, large).flatten(0, 1)[:count]


def carried_cells(channels: int) -> int:
    """How many of the embedding's channels are given to cells."""
    return min(3 * CELLS**2, 3 * channels // 8)


@torch.no_grad()
def carry_cells(model: Sam, pixels: Tensor) -> Tensor:
    """Give some directions of the encoder's residual stream to the cells of each patch.

    Args:
        model: with a pre-trained encoder, changed in place.
        pixels: (B, 3, S, S), a sample of normalised images.

    Returns:
        (n, width): orthonormal directions that read the cells off the tokens, in the order of
        ``cell_basis``.
    """
    encoder = model.image_encoder
    count = carried_cells(model.config.embedding_channels)
    before = encoder.tokens(pixels).flatten(0, 2)
    directions, centre = _quiet_directions(encoder, pixels, count)
    basis = cell_basis(model.config.patch_size, count)
    cells = nn.functional.conv2d(pixels, basis, stride=model.config.patch_size)
    cells = cells.transpose(0, 1).flatten(1)
    scale = torch.full((count,), _DETAIL)
    scale[:3] = 1.0
    scale *= (_SHARE * before.var(0).sum() / (cells.var(1) * scale**2).sum()).sqrt()

    keep = torch.eye(directions.shape[1]) - directions.T @ directions  # (width, width)
    patch = encoder.patch_embed.proj
    assert patch.bias is not None
    written = directions.T @ (scale[:, None] * basis.flatten(1))  # (width, 3·p·p)
    patch.weight.copy_((keep @ patch.weight.flatten(1) + written).view_as(patch.weight))
    patch.bias.copy_(keep @ patch.bias - directions.T @ (scale * cells.mean(1)))
    encoder.pos_embed.copy_(encoder.pos_embed @ keep)
    for block, (seen_by_attention, seen_by_mlp) in zip(encoder.blocks, centre, strict=True):
        _forget(block.norm1, block.attn.qkv, keep, seen_by_attention)
        _forget(block.norm2, block.mlp.lin1, keep, seen_by_mlp)
        for layer in (block.attn.proj, block.mlp.lin2):
            layer.weight.copy_(keep @ layer.weight)
            layer.bias.copy_(keep @ layer.bias)
    return directions


def _forget(norm: nn.LayerNorm, layer: nn.Linear, keep: Tensor, seen: Tensor) -> None:
    """Make a layer blind to directions of its normalised input, whose mean it was used to."""
    gained = layer.weight * norm.weight
    blind = gained @ keep
    layer.bias.add_((gained - blind) @ seen)
    layer.weight.copy_(blind / norm.weight.where(norm.weight.abs() > 1e-6, torch.tensor(1.0)))


def _quiet_directions(
    encoder: ImageEncoder, pixels: Tensor, count: int
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The directions in which the normalised inputs of all blocks vary least, and their means."""
    inputs: list[Tensor] = []
    norms = [norm for block in encoder.blocks for norm in (block.norm1, block.norm2)]
    hooks = [
        norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0].flatten(0, -2)))
        for norm in norms
    ]
    encoder.tokens(pixels)
    for hook in hooks:
        hook.remove()
    width = inputs[0].shape[1]
    covariance, means = torch.zeros(width, width), []
    for tokens in inputs:
        normed = nn.functional.layer_norm(tokens, (width,))
        means.append(normed.mean(0))
        covariance += torch.cov(normed.T)
    # Not the mean over channels: layer norm takes it out of every token.
    flat = torch.full((width,), width**-0.5)
    covariance += covariance.trace() * torch.outer(flat, flat)
    quiet = torch.linalg.eigh(covariance)[1][:, :count].T.contiguous()
    return quiet, list(zip(means[::2], means[1::2], strict=True))
