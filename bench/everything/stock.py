"""The original: ``segment_anything``'s SamAutomaticMaskGenerator, unchanged, with a clock on it."""

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alps.bench.everything.sides import (
    STAGES,
    Job,
    TileMasks,
    warm_up_picture,
)
from alps.bench.everything.torchvision_stand_in import torchvision_provided
from alps.engine.base.errors import SettingsError
from alps.engine.models.checkpoints import load_network
from alps.engine.sam import Sam, SamConfig
from alps.engine.sam.model import PIXEL_MEAN, PIXEL_STD, MobileSam

# --- the original's network and generator


def require_original() -> None:
    """Raise SettingsError where the original is not installed."""
    if find_spec("segment_anything") is None:
        raise SettingsError(
            "segment_anything, the original, is not installed: pip install 'alps-engine[bench]'"
        )


def original_generator() -> type:
    """The class segment_anything.SamAutomaticMaskGenerator."""
    with torchvision_provided():
        from segment_anything import SamAutomaticMaskGenerator

    return SamAutomaticMaskGenerator


def stock_network(config: SamConfig) -> Any:
    """The original segment_anything network in these dimensions, as it initialises itself."""
    with torchvision_provided():
        from segment_anything import modeling

    side = config.embedding_size
    return modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.encoder_width,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            out_chans=config.embedding_channels,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=config.relative_positions,
            global_attn_indexes=config.global_blocks,
            window_size=config.window_size,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=config.embedding_channels,
            image_embedding_size=(side, side),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_input_channels,
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=config.multimask_outputs,
            transformer_dim=config.embedding_channels,
            transformer=modeling.TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.embedding_channels,
                num_heads=config.decoder_heads,
                mlp_dim=config.decoder_hidden,
            ),
            iou_head_depth=config.iou_head_depth,
            iou_head_hidden_dim=config.iou_head_hidden,
        ),
    ).eval()


def stock_like(sam: Sam) -> Any:
    """The original network with the very tensors of ours: no second copy of the weights."""
    with torch.device("meta"):
        stock = stock_network(sam.config)
    stock.load_state_dict(sam.state_dict(), assign=True)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
    stock.pixel_mean, stock.pixel_std = mean.to(sam.device), std.to(sam.device)
    return stock.requires_grad_(False)


# --- with a clock


class StockGenerator:
    """The original generator; tells the seconds of each stage.

    encode: set_image; decode: prompt encoder and mask decoder; runs: mask_to_rle_pytorch (which
    stock calls for every stable mask, before NMS) and COCO's encoding; pool: stock has none, so the
    plain way, ``pool_one_by_one``; filter: all else, upscaling, stability, boxes, NMS, records.

    Args:
        network: what ``stock_network`` or ``stock_like`` returns.
        make: the class of the generator; None: ``original_generator``.
        settings: SamAutomaticMaskGenerator's keyword arguments, with its defaults.
    """

    def __init__(self, network: Any, make: type | None = None, **settings: Any) -> None:
        generator = (make or original_generator())(network, output_mode="coco_rle", **settings)
        self.put_clock(generator, network, (network.prompt_encoder, network.mask_decoder))

    def put_clock(self, generator: Any, network: Any, decoding: Sequence[Any]) -> None:
        """Time a generator and those modules of its network that decode."""
        self.generator, self.network = generator, network
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.features: list[Tensor] = []  # (1, C, h, w) of each crop
        self.prompts_left = self.masks_left = 0
        predictor = self.generator.predictor
        predictor.set_image = self._timed("encode", predictor.set_image, self._keep_features)
        for part in decoding:
            part.forward = self._timed("decode", part.forward, self._count_left)

    @torch.inference_mode()
    def segment(self, image: np.ndarray) -> TileMasks:
        """Masks of an image (H, W, 3) uint8 RGB."""
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.features, self.prompts_left, self.masks_left = [], 0, 0
        started = self._now()
        with self._timing_runs():
            records = self.generator.generate(image)
        self.seconds["filter"] = self._now() - started - sum(self.seconds.values())
        # Read back here, off the clock: the other output mode hands out arrays at once.
        codes = [record["segmentation"] for record in records]
        for code in codes:
            code["counts"] = code["counts"].encode("ascii")
        self.seconds["pool"] = self._pool(codes, image.shape[:2])
        return TileMasks(
            size=image.shape[:2],
            counts=[code["counts"] for code in codes],
            seconds=self.seconds,
            total=sum(self.seconds.values()),
            prompted=sum(len(grid) for grid in self.generator.point_grids[:1]),
            prompts_left=self.prompts_left,
            masks_left=self.masks_left,
        )

    def warm_up(self) -> None:
        """Run once on a few pixels: threads, buffers and imports are not what is measured."""
        grids, self.generator.point_grids = self.generator.point_grids, [np.full((1, 2), 0.5)]
        self.segment(warm_up_picture())
        self.generator.point_grids = grids

    def _pool(self, codes: list[dict[str, Any]], size: tuple[int, int]) -> float:
        from pycocotools import mask as coco

        seconds = 0.0
        for code in codes:
            mask = torch.from_numpy(np.ascontiguousarray(coco.decode(code))).bool()
            mask = mask.to(self.features[0].device)
            started = self._now()
            pool_one_by_one(self.features[0][0], mask)
            seconds += self._now() - started
        return seconds

    def _keep_features(self, _: Any) -> None:
        self.features.append(self.generator.predictor.features)

    def _count_left(self, returned: Any) -> None:
        """Note how many prompts and masks pass the predicted IoU; off the clock."""
        iou = returned[1]
        if iou.ndim == 2:  # the mask decoder's, not the prompt encoder's dense embedding
            threshold = self.generator.pred_iou_thresh
            passed = iou > threshold if threshold > 0 else torch.ones_like(iou).bool()
            self.prompts_left += int(passed.any(1).sum())
            self.masks_left += int(passed.sum())

    def _timed(
        self, stage: str, work: Callable, then: Callable[[Any], None] | None = None
    ) -> Callable:
        @wraps(work)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = self._now()
            returned = work(*args, **kwargs)
            self.seconds[stage] += self._now() - started
            if then is not None:
                then(returned)
            return returned

        return timed

    @contextmanager
    def _timing_runs(self) -> Generator[None, None, None]:
        """Put the clock on the two functions that the generator's module looks up by name."""
        module = sys.modules[type(self.generator).__module__]
        names = ("mask_to_rle_pytorch", "coco_encode_rle")
        originals = {name: getattr(module, name) for name in names}
        for name, original in originals.items():
            setattr(module, name, self._timed("runs", original))
        try:
            yield
        finally:
            for name, original in originals.items():
                setattr(module, name, original)

    def _now(self) -> float:
        if self.network.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def pool_one_by_one(embedding: Tensor, mask: Tensor) -> Tensor:
    """The mean embedding of a mask the plain way: the mask brought to the embedding's grid.

    embedding: (C, h, w) of an image whose longer side fills the grid; mask: (H, W) bool of it.
    Returns (C,). With mode "area" a cell's weight is the mask's share of it, what ours computes.
    """
    height, width = mask.shape
    longer = max(height, width)
    square = F.pad(mask.float(), (0, longer - width, 0, longer - height))
    weights = F.interpolate(square[None, None], embedding.shape[1:], mode="area")[0, 0]
    return (embedding * weights).sum((1, 2)) / weights.sum()


def build(job: Job) -> StockGenerator:
    """The side "stock" of a comparison."""
    network, _ = load_network(job.checkpoint, device=job.device)
    options = job.settings | job.options
    if isinstance(network, MobileSam):
        from alps.bench.everything.mobile_sam import authors_generator, authors_network

        return StockGenerator(authors_network(network), authors_generator(), **options)
    if not isinstance(network, Sam):
        raise SettingsError(f"{job.checkpoint}: there is no original here of a {type(network)}")
    return StockGenerator(stock_like(network), **options)
