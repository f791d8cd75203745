"""The original of SAM 2: facebookresearch/sam2's SAM2AutomaticMaskGenerator, with a clock on it.

The package is not among the bench's requirements, for it brings a CUDA build of PyTorch along. Put
its checkout on PYTHONPATH; stand-ins take the places of hydra, iopath and torchvision, of which the
network and its generator use little.
"""

import importlib.util
import sys
import types
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alps.bench.everything.sides import Job
from alps.bench.everything.stock import StockGenerator
from alps.bench.everything.torchvision_stand_in import torchvision_provided
from alps.engine.base.errors import SettingsError
from alps.engine.models.checkpoints import load_network
from alps.engine.sam2 import Sam2, Sam2Config

PACKAGE = "sam2"


@contextmanager
def original() -> Generator[None, None, None]:
    """Within it the original's modules import, whatever of their requirements is missing.

    Raises:
        SettingsError: its checkout is not to be found.
    """
    if PACKAGE not in sys.modules:
        found = importlib.util.find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise SettingsError(
                "the original of SAM 2 is not here: put a checkout of "
                "https://github.com/facebookresearch/sam2 on PYTHONPATH"
            )
        # Its __init__ would start hydra.
        package = types.ModuleType(PACKAGE)
        package.__path__ = [str(Path(place)) for place in found.submodule_search_locations]
        sys.modules[PACKAGE] = package
    _stand_in_for_iopath()
    with torchvision_provided(f"{PACKAGE}.automatic_mask_generator"):
        _stand_in_for_transforms()
        yield


def _stand_in_for_iopath() -> None:
    """It opens weights of the encoder alone, which nobody asks for here."""
    name = "iopath.common.file_io"
    if name not in sys.modules:
        module: Any = types.ModuleType(name)
        module.g_pathmgr = None
        sys.modules[name] = module
        for parent in ("iopath", "iopath.common"):
            sys.modules.setdefault(parent, types.ModuleType(parent))


def _stand_in_for_transforms() -> None:
    transforms: Any = sys.modules.get("torchvision.transforms")
    for kind in (ToTensor, Resize, Normalize):
        if transforms is not None and not hasattr(transforms, kind.__name__):
            setattr(transforms, kind.__name__, kind)


class ToTensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in 0...1, as torchvision's."""

    def __call__(self, image: np.ndarray) -> Tensor:
        """Convert."""
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float().div(255)


class Resize(nn.Module):
    """Bilinear and smoothed where it shrinks, as torchvision's for tensors."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.height, self.width = size

    def forward(self, image: Tensor) -> Tensor:
        """(C, H, W) -> (C, *size)."""
        size = (self.height, self.width)
        return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


class Normalize(nn.Module):
    """Less the mean, over the deviation, as torchvision's."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(C, H, W) -> (C, H, W)."""
        return (image - self.mean) / self.std


def stock_network(config: Sam2Config) -> Any:
    """The original network in these dimensions without its memory, as it initialises itself."""
    with original():
        from sam2.modeling.backbones.hieradet import Hiera
        from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
        from sam2.modeling.position_encoding import PositionEmbeddingSine
        from sam2.modeling.sam2_base import SAM2Base

    channels = config.embedding_channels
    trunk = Hiera(
        embed_dim=config.encoder_width,
        num_heads=config.encoder_heads,
        stages=config.stage_blocks,
        window_spec=config.window_sizes,
        global_att_blocks=config.global_blocks,
        window_pos_embed_bkg_spatial_size=(config.position_size,) * 2,
    )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(num_pos_feats=channels),
        d_model=channels,
        backbone_channel_list=list(config.stage_widths[::-1]),
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    return SAM2Base(
        image_encoder=ImageEncoder(trunk=trunk, neck=neck, scalp=1),
        memory_attention=None,
        memory_encoder=types.SimpleNamespace(),
        image_size=config.image_size,
        directly_add_no_mem_embed=True,
        no_obj_embed_spatial=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
        use_mlp_for_obj_ptr_proj=True,
    ).eval()


def stock_like(sam: Sam2, checkpoint: str) -> Any:
    """The original network with the weights of a checkpoint in its own layout."""
    network = stock_network(sam.config)
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]
    known = network.state_dict().keys()
    network.load_state_dict({k: v for k, v in stored.items() if k in known})
    return network.requires_grad_(False)


class Sam2StockGenerator(StockGenerator):
    """The original generator of SAM 2; stages and arguments as of ``StockGenerator``."""

    def __init__(self, network: Any, **settings: Any) -> None:
        with original():
            from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

        generator = SAM2AutomaticMaskGenerator(network, output_mode="coco_rle", **settings)
        self.put_clock(generator, network, (network.sam_prompt_encoder, network.sam_mask_decoder))

    def _keep_features(self, _: Any) -> None:
        self.features.append(self.generator.predictor._features["image_embed"])


def build(job: Job) -> Sam2StockGenerator:
    """The side "stock" of a comparison."""
    sam, _ = load_network(job.checkpoint, device=job.device)
    assert isinstance(sam, Sam2)
    return Sam2StockGenerator(
        stock_like(sam, job.checkpoint).to(job.device), **job.settings, **job.options
    )
