"""Masks that a real image makes of itself: superpixels merged bottom-up into a hierarchy.

No annotation is used. Superpixels (Felzenszwalb) are described by colour, texture and the
features of the pre-trained backbone, and merged with Ward's criterion along the neighbourhood
graph; the tree is cut at several heights, so that parts, objects and groups nest. The idea of
training a SAM on such hierarchies is UnSAM's (NeurIPS 2024).
"""

import cv2
import numpy as np
from scipy import ndimage, sparse
from skimage.segmentation import felzenszwalb
from sklearn.cluster import ward_tree

from alps.trainer.tiny.recipe import RegionSettings


def region_hierarchy(
    rgb: np.ndarray, features: np.ndarray, settings: RegionSettings | None = None
) -> np.ndarray:
    """Nested partitions of an image.

    Args:
        rgb: (H, W, 3) uint8
        features: (h, w, D) float, backbone features on a coarser grid, unit variance a channel.

    Returns:
        (levels, H, W) int32 region ids from 1, fine to coarse; every region is connected.
    """
    settings = settings or RegionSettings()
    smooth = cv2.bilateralFilter(rgb, 5, 25, 3)
    superpixels = felzenszwalb(
        smooth,
        scale=settings.superpixel_scale,
        sigma=0.6,
        min_size=settings.superpixel_min_pixels,
        channel_axis=-1,
    )
    count = int(superpixels.max()) + 1
    if count < 2:
        return np.ones((len(settings.cuts), *superpixels.shape), dtype=np.int32)
    described = _describe(rgb, features, superpixels, count, settings)
    children, _, leaves, _, distances = ward_tree(
        described, connectivity=_neighbours(superpixels, count), return_distance=True
    )
    levels = [_cut(children, distances, leaves, height)[superpixels] for height in settings.cuts]
    return np.stack(levels).astype(np.int32)


def _describe(
    rgb: np.ndarray,
    features: np.ndarray,
    superpixels: np.ndarray,
    count: int,
    settings: RegionSettings,
) -> np.ndarray:
    """One row a superpixel: colour, texture, features, each group on a scale of about one."""
    height, width = superpixels.shape
    index = np.arange(count)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
    colour = np.stack([ndimage.mean(lab[..., c], superpixels, index) for c in range(3)], 1) / 12
    gray = lab[..., 0]
    contrast = np.abs(gray - cv2.GaussianBlur(gray, (0, 0), 2))
    texture = ndimage.mean(contrast, superpixels, index)[:, None] / 4
    large = cv2.resize(
        features.astype(np.float32), (width // 4, height // 4), interpolation=cv2.INTER_LINEAR
    )
    coarse = superpixels[2::4, 2::4][: large.shape[0], : large.shape[1]]
    # A superpixel between the samples of the coarse grid has no sum: it takes the image's mean, 0.
    samples = np.bincount(coarse.ravel(), minlength=count).clip(1)[:, None]
    sums = [ndimage.sum(large[..., d], coarse, index) for d in range(large.shape[2])]
    pooled = np.stack(sums, axis=1) / samples / np.sqrt(large.shape[2]) * 3
    return np.concatenate(
        [
            settings.colour_weight * colour,
            settings.texture_weight * texture,
            settings.feature_weight * pooled,
        ],
        axis=1,
    )


def _neighbours(labels: np.ndarray, count: int) -> sparse.coo_matrix:
    """Which regions touch, as a symmetric (count, count) 0/1 matrix."""
    pairs = np.concatenate(
        [
            np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()]),
            np.stack([labels[:-1].ravel(), labels[1:].ravel()]),
        ],
        axis=1,
    )
    pairs = np.unique(pairs[:, pairs[0] != pairs[1]], axis=1)
    ones = np.ones(2 * pairs.shape[1])
    rows, columns = np.concatenate([pairs[0], pairs[1]]), np.concatenate([pairs[1], pairs[0]])
    return sparse.coo_matrix((ones, (rows, columns)), shape=(count, count))


def _cut(children: np.ndarray, distances: np.ndarray, leaves: int, height: float) -> np.ndarray:
    """The region of each leaf, ids from 1, when merges above ``height`` are undone."""
    parent = np.arange(leaves + len(children))
    # Along neighbours a merge may cost less than one below it. It goes with that one all the same:
    # what it joined may touch only there.
    undone = np.zeros(len(parent), dtype=bool)
    for merge, (pair, distance) in enumerate(zip(children, distances, strict=True)):
        undone[leaves + merge] = distance > height or undone[pair].any()
        if not undone[leaves + merge]:
            parent[pair] = leaves + merge
    for node in range(len(parent) - 1, -1, -1):  # parents come after children
        parent[node] = parent[parent[node]]
    return np.unique(parent[:leaves], return_inverse=True)[1] + 1
