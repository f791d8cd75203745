"""Go on with the decoder of an earlier `tiny` on an encoder that has changed.

The new neck is fitted so that what the old decoder saw comes again, as far as it lies in the
directions that matter most and does not depend on the place in the tile. The other directions
are free for the cells that the new encoder carries; the decoder has to learn what they mean.
"""

import numpy as np
import torch
from torch import Tensor

from alps.engine.errors import ModelError
from alps.engine.sam import Sam

_CELLS = 0.2  # variance of carried cells over that of the rest
_STEPS = 120
_IMAGES = 5  # a step
_RATE = 4e-4


def graft(model: Sam, earlier: Sam, tokens: Tensor, images: np.ndarray, carried: int) -> float:
    """Give ``model`` the decoder of ``earlier``, and a neck that speaks to it.

    Args:
        model: as ``initialise`` leaves it (cells are the last channels of its neck), changed in
            place.
        earlier: of the same dimensions.
        tokens: (N, P, width) centred tokens of the new encoder, at least five images'.
        images: (N, S, S, 3) uint8, the images that they came from.
        carried: how many channels are cells.

    Returns:
        The share of the old embedding's variance, place left out, that the new one explains in
        the directions kept.

    Raises:
        ModelError: ``earlier`` has other dimensions.
    """
    if earlier.config != model.config:
        raise ModelError(
            f"the earlier model has other dimensions: {earlier.config}, wanted {model.config}; "
            "start without it"
        )
    wanted = _embeddings(earlier, images)
    placed = wanted.mean(0)
    wanted = wanted - placed + placed.mean(0)
    with torch.no_grad():
        axes = _fit(model, earlier, tokens, wanted, carried)
        model.mask_decoder.load_state_dict(earlier.mask_decoder.state_dict())
        model.prompt_encoder.load_state_dict(earlier.prompt_encoder.state_dict())
    return _refine(model, tokens, wanted, axes)


@torch.no_grad()
def _embeddings(model: Sam, images: np.ndarray) -> Tensor:
    """Embeddings of images (N, S, S, 3) as (N, P, C)."""
    found = []
    for image in images:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        found.append(model.encode(model.normalise(pixels)).flatten(2).transpose(1, 2))
    return torch.cat(found)


def _fit(model: Sam, earlier: Sam, tokens: Tensor, wanted: Tensor, carried: int) -> Tensor:
    """Set the neck by least squares; returns the directions (C, kept) that it fits."""
    reduce, _, mix, norm = model.image_encoder.neck
    norm.load_state_dict(earlier.image_encoder.neck[3].state_dict())
    gain = norm.weight.where(norm.weight.abs() > 0.05, torch.tensor(0.05))
    target = ((wanted - norm.bias) / gain).flatten(0, 1)
    target = target - target.mean(0)
    content = (tokens - tokens.mean(0)).flatten(0, 1)  # place left out
    gram = content.T @ content
    gram += 1e-4 * gram.diagonal().mean() * torch.eye(len(gram))
    fit = torch.linalg.solve(gram, content.T @ target)  # (width, C)
    fitted = content @ fit
    axes = torch.linalg.eigh(fitted.T @ fitted)[1].flip(1)  # strongest first
    kept = axes.shape[1] - carried
    rows = (fit @ axes[:, :kept]).T
    cells = reduce.weight[-carried:, :, 0, 0]
    share = (content @ rows.T).var(0).sum() / (content @ cells.T).var(0).sum()
    reduce.weight.copy_(torch.cat([rows, cells * (_CELLS * share).sqrt()])[:, :, None, None])
    mix.weight.zero_()
    mix.weight[:, :, 1, 1] = axes
    return axes[:, :kept].contiguous()


def _refine(model: Sam, tokens: Tensor, wanted: Tensor, axes: Tensor) -> float:
    """Bring the neck nearer, its layer norms included; the share of variance explained at last."""
    neck = model.image_encoder.neck
    side = model.config.embedding_size
    optimiser = torch.optim.Adam([neck[0].weight, neck[2].weight], lr=_RATE)
    generator = torch.Generator().manual_seed(0)
    variance = ((wanted - wanted.mean((0, 1))) @ axes).square().mean()
    left = torch.tensor(0.0)
    for _ in range(_STEPS):
        rows = torch.randperm(len(tokens), generator=generator)[:_IMAGES]
        grid = tokens[rows].transpose(1, 2).unflatten(2, (side, side))
        with torch.autocast("cpu", torch.bfloat16):
            found = neck(grid).flatten(2).transpose(1, 2)
        left = ((found - wanted[rows]) @ axes).square().mean() / variance
        left.backward()
        optimiser.step()
        optimiser.zero_grad()
    return 1 - left.item()
