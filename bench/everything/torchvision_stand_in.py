"""What stands in for torchvision, which does not import beside every build of torch.

``segment_anything`` and packages made of it import it for a few functions; these are here.
"""

import sys
import types
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@contextmanager
def torchvision_provided(package: str = "segment_anything") -> Generator[None, None, None]:
    """Within it torchvision imports: itself, or else a stand-in, of which nobody knows later.

    package: what is imported within it.
    """
    if package in sys.modules:  # it has taken what it needs
        yield
        return
    try:
        import torchvision.ops.boxes
        import torchvision.transforms.functional  # noqa: F401
    except Exception:  # any way in which a broken build may fail
        _forget_torchvision()
        _stand_in()
        try:
            yield
        finally:
            _forget_torchvision()
    else:
        yield


def _forget_torchvision() -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _stand_in() -> None:
    parts = ["", ".ops", ".ops.boxes", ".transforms", ".transforms.functional"]
    modules: dict[str, Any] = {part: types.ModuleType("torchvision" + part) for part in parts}
    modules[".ops.boxes"].batched_nms = batched_nms
    modules[".ops.boxes"].box_area = box_area
    modules[".transforms.functional"].resize = resize
    modules[".transforms.functional"].to_pil_image = Image.fromarray
    for part, module in modules.items():
        module.__path__ = []
        sys.modules["torchvision" + part] = module


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """As torchvision's: indices of the boxes that stay, by descending score.

    boxes (N, 4), scores (N,), idxs (N,): categories, all 0 in SAM. One sweep over all boxes left
    for each that stays; for a tile's boxes some milliseconds, like torchvision's compiled loop.
    """
    if idxs.any():
        raise ValueError("this stand-in knows one category of boxes; SAM has no more")
    order = scores.sort(descending=True, stable=True).indices.cpu().numpy()
    x0, y0, x1, y1 = boxes.cpu().numpy()[order].T
    areas = (x1 - x0) * (y1 - y0)
    left, kept = np.arange(len(order)), []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        width = np.minimum(x1[best], x1[left]) - np.maximum(x0[best], x0[left])
        height = np.minimum(y1[best], y1[left]) - np.maximum(y0[best], y0[left])
        overlap = width.clip(min=0) * height.clip(min=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = overlap / (areas[best] + areas[left] - overlap)
        # Compared as doubles, as there; two boxes without area (0 / 0) both stay.
        left = left[~(iou.astype(np.float64) > iou_threshold)]
    return torch.from_numpy(order[np.array(kept, np.int64)]).to(boxes.device)


def box_area(boxes: Tensor) -> Tensor:
    """Areas (N,) of boxes (N, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A PIL image in another size (height, width), as torchvision resizes one."""
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
