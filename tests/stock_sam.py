"""The original SAM, small and with random weights, to hold ours against.

``segment_anything`` imports torchvision, which does not import beside every build of torch; then
a stand-in with the few functions it calls takes that place.
"""

import sys
import types
from functools import partial

import numpy as np
import torch
from PIL import Image

from alps.engine.sam import Sam, SamConfig

SMALL = SamConfig(
    image_size=64,
    patch_size=8,
    encoder_width=32,
    encoder_depth=2,
    encoder_heads=2,
    window_size=3,
    global_blocks=(1,),
    embedding_channels=32,
    decoder_hidden=48,
    iou_head_hidden=24,
    mask_input_channels=8,
)


def provide_torchvision():
    try:
        import torchvision.ops.boxes
        import torchvision.transforms.functional  # noqa: F401

        return
    except Exception:  # any way in which a broken build may fail
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    parts = ["", ".ops", ".ops.boxes", ".transforms", ".transforms.functional"]
    modules = {part: types.ModuleType("torchvision" + part) for part in parts}
    modules[".ops.boxes"].batched_nms = batched_nms
    modules[".ops.boxes"].box_area = box_area
    modules[".transforms.functional"].resize = resize
    modules[".transforms.functional"].to_pil_image = Image.fromarray
    for part, module in modules.items():
        module.__path__ = []
        sys.modules["torchvision" + part] = module


def box_area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def resize(image, size):
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def batched_nms(boxes, scores, categories, iou_threshold):
    """The definition, box by box; all categories are 0 in SAM."""
    assert not categories.any()
    kept = []
    for i in scores.sort(descending=True, stable=True).indices.tolist():
        for j in kept:
            near = torch.maximum(boxes[i, :2], boxes[j, :2])
            far = torch.minimum(boxes[i, 2:], boxes[j, 2:])
            overlap = (far - near).clamp(min=0).prod()
            union = box_area(boxes[[i]])[0] + box_area(boxes[[j]])[0] - overlap
            if (overlap / union).item() > iou_threshold:
                break
        else:
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def original_generator():
    """The class segment_anything.SamAutomaticMaskGenerator."""
    provide_torchvision()
    from segment_anything import SamAutomaticMaskGenerator

    return SamAutomaticMaskGenerator


def stock_sam(config=SMALL, seed=5):
    """The original network in these dimensions, random weights that give varied masks."""
    provide_torchvision()
    from segment_anything import modeling

    torch.manual_seed(seed)
    side = config.embedding_size
    stock = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.encoder_width,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            out_chans=config.embedding_channels,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
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
    with torch.no_grad():
        for parameter in stock.parameters():
            if parameter.abs().max() == 0:  # positions start at zero: give them something to do
                parameter.normal_(std=0.2)
        for parameter in stock.mask_decoder.parameters():
            if parameter.ndim > 1:  # as initialised, every point gets the same pale mask
                parameter.mul_(2.5)
    return stock


def ours_like(stock, config=SMALL):
    """Our network with the original's weights."""
    sam = Sam(config).eval()
    sam.load_state_dict(stock.state_dict())
    return sam


def picture(height, width, seed=0):
    """(H, W, 3) uint8 with patches and texture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((9, 9, 1), np.uint8))[:height, :width].astype(int)
    return np.clip(image + rng.integers(-20, 21, image.shape), 0, 255).astype(np.uint8)
