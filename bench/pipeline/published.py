"""The published code's way from tiles to label maps, for a clock; figures are left out.

Written anew from the paper (ALPS, arXiv 2406.10855) and a description of its reference code, with
that code's order of work and its intermediate files:

1. the original SamAutomaticMaskGenerator, masks over 0.3 of the tile dropped, one PNG a mask and a
   CSV a tile;
2. each tile through the image encoder once more, blue before red and not normalised; all PNGs
   read back; for each mask the embedding is brought to a quarter of the network's input, the mask
   too, and their product is summed and divided by its number of values that are not zero; one .npy
   a mask, one JSON a tile;
3. mini-batch k-means, one pass over the .npy files, 512 at a time;
4. all .npy files read once more for the class of each mask, into one JSON;
5. PNGs read a third time and painted pixel by pixel in the order of their names, a later one over
   an earlier one, each pixel 1 times its class.

Where it differs, the published code would not be slower: figures of 20 x 20 inches a tile are
left out, there is no DataLoader that copies every mask once more, files come sorted. A tile that is
not square is padded as SAM does and one without a mask is passed over; the published code fails on
both.
"""

import json
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
import torch
from PIL import Image
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor
from torch.nn import functional as F

from alps.bench.everything.stock import original_generator, stock_like
from alps.engine.base.errors import AlpsError
from alps.engine.base.progress import Progress
from alps.engine.models.checkpoints import load_sam

MAX_AREA = 0.3  # share of the tile
BATCH = 512  # masks that k-means sees at once
FINER = 4  # masks are pooled on a grid of the network's input over this
STAGES = ("load", "masks", "mask files", "encode again", "read masks", "upscale", "pool",
          "k-means", "paint")  # fmt: skip
HEADER = (
    "id", "area", "bbox_x0", "bbox_y0", "bbox_w", "bbox_h", "point_input_x", "point_input_y",
    "predicted_iou", "stability_score", "crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h",
)  # fmt: skip


@dataclass
class Clock:
    """Seconds by stage."""

    device: str
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def of(self, stage: str) -> Generator[None, None, None]:
        """Add what happens within to a stage."""
        started = self._now()
        yield
        self.seconds[stage] += self._now() - started

    def _now(self) -> float:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass(frozen=True)
class Published:
    """The published pipeline on a folder of tiles.

    Attributes:
        tiles: folder of PNG files.
        out: receives ``masks``, ``vectors``, ``labels`` and files beside them.
        checkpoint: SAM's weights.
        settings: SamAutomaticMaskGenerator's keyword arguments.
        clusters: K.
        seed: of k-means.
    """

    tiles: Path
    out: Path
    checkpoint: str
    settings: dict[str, Any]
    clusters: int
    seed: int
    clock: Clock

    def run(self) -> int:
        """All five steps; returns the number of masks that passed the gate."""
        masks = self.write_masks()
        self.write_vectors()
        self.fit()
        self.assign()
        self.paint()
        return masks

    def write_masks(self) -> int:
        """Step 1: masks and their metadata; returns how many there are."""
        with self.clock.of("load"):
            generator = original_generator()(self._network(), **self.settings)
        written = 0
        for path in self._paths("masks"):
            image = cv2.cvtColor(read_png(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            with self.clock.of("masks"):
                records = generator.generate(image)
            with self.clock.of("mask files"):
                written += write_records(records, image.shape[:2], self.out / "masks" / path.stem)
        return written

    def write_vectors(self) -> None:
        """Step 2: one embedding a mask."""
        with self.clock.of("load"):
            encoder = self._network().image_encoder
        for path in self._paths("vectors"):
            folder = self.out / "vectors" / path.stem
            folder.mkdir(parents=True)
            files = {}
            with self.clock.of("encode again"), torch.no_grad():
                pixels = network_input(read_png(path, cv2.IMREAD_COLOR), encoder.img_size)
                embedding = encoder(pixels.to(self.clock.device))
            with self.clock.of("read masks"):
                names = sorted((self.out / "masks" / path.stem).glob("*.png"))
                masks = [
                    network_input(read_mask(name), encoder.img_size).to(self.clock.device)
                    for name in names
                ]
            for name, mask in zip(names, masks, strict=True):
                side = encoder.img_size // FINER
                with self.clock.of("upscale"):
                    fine = F.interpolate(embedding, size=(side, side), mode="bilinear")
                with self.clock.of("pool"):
                    files[name.stem] = str(folder / f"{name.stem}.npy")
                    np.save(files[name.stem], mean_of_products(fine, mask).cpu().numpy())
            self._write_json(folder.with_suffix(".json"), files)

    def fit(self) -> None:
        """Step 3: k-means in one pass."""
        with self.clock.of("k-means"):
            kmeans = MiniBatchKMeans(
                self.clusters, random_state=self.seed, batch_size=BATCH, n_init="auto"
            )
            for _, vectors in self._batches():
                kmeans.partial_fit(vectors)
            joblib.dump(kmeans, self.out / "k_means.pkl")

    def assign(self) -> None:
        """Step 4: the class of each mask."""
        with self.clock.of("k-means"):
            kmeans = joblib.load(self.out / "k_means.pkl")
            classes: dict[str, dict[str, int]] = {}
            for names, vectors in self._batches():
                found = kmeans.predict(vectors)
                for (tile, mask), label in zip(names, found.tolist(), strict=True):
                    classes.setdefault(tile, {})[mask] = label
            self._write_json(self.out / "classes.json", classes)

    def paint(self) -> None:
        """Step 5: label maps."""
        classes = json.loads((self.out / "classes.json").read_text(encoding="utf-8"))
        (self.out / "labels").mkdir()
        with Progress(len(classes), "tiles", "published: paint") as progress:
            for tile, labels in classes.items():
                with self.clock.of("paint"):
                    masks = self.out / "masks" / tile
                    painted = np.zeros(read_mask(masks / f"{next(iter(labels))}.png").shape)
                    for name, label in labels.items():
                        paint_mask(painted, read_mask(masks / f"{name}.png"), label)
                    cv2.imwrite(str(self.out / "labels" / f"{tile}.png"), painted)
                progress.advance(1)

    def _network(self) -> Any:
        sam, _ = load_sam(self.checkpoint, device=self.clock.device)
        return stock_like(sam)

    def _paths(self, step: str) -> Iterator[Path]:
        paths = sorted(self.tiles.glob("*.png"))
        with Progress(len(paths), "tiles", f"published: {step}") as progress:
            for path in paths:
                yield path
                progress.advance(1)

    def _batches(self) -> Iterator[tuple[list[tuple[str, str]], np.ndarray]]:
        """Tile and mask of so many vectors, and the vectors (n, C)."""
        files = []
        for described in sorted((self.out / "vectors").glob("*.json")):
            vectors = json.loads(described.read_text(encoding="utf-8"))
            files += [(described.stem, name, path) for name, path in vectors.items()]
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            yield (
                [(tile, name) for tile, name, _ in batch],
                np.concatenate([np.load(path) for _, _, path in batch]),
            )

    @staticmethod
    def _write_json(path: Path, plain: Any) -> None:
        path.write_text(json.dumps(plain), encoding="utf-8")


def write_records(records: list[dict[str, Any]], size: tuple[int, int], folder: Path) -> int:
    """One PNG a mask and a CSV of what is known of them; returns how many were small enough."""
    folder.mkdir(parents=True)
    lines = [",".join(HEADER)]
    kept = [r for r in records if np.sum(r["segmentation"]) <= MAX_AREA * size[0] * size[1]]
    for index, record in enumerate(kept):
        cv2.imwrite(str(folder / f"{index}.png"), record["segmentation"] * 255)
        values = (
            index, record["area"], *record["bbox"], *record["point_coords"][0],
            record["predicted_iou"], record["stability_score"], *record["crop_box"],
        )  # fmt: skip
        lines.append(",".join(map(str, values)))
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return len(kept)


def read_png(path: Path, flags: int) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8, blue first."""
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise AlpsError(f"{path} cannot be read as an image")
    return pixels


def read_mask(path: Path) -> np.ndarray:
    """A mask's PNG as (H, W) float32, 0 or 1."""
    return np.asarray(read_png(path, cv2.IMREAD_GRAYSCALE) / 255, np.float32)


def network_input(pixels: np.ndarray, side: int) -> Tensor:
    """(H, W, 3) uint8 or (H, W) float32 -> (1, C, side, side) float32 in 0…1, padded with zeros."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (round(width * scale), round(height * scale))
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    if resized.ndim == 3:
        resized = resized.astype(np.float32) / 255
    padded = np.zeros((side, side, *resized.shape[2:]), np.float32)
    padded[: size[1], : size[0]] = resized
    return torch.from_numpy(padded.reshape(side, side, -1)).permute(2, 0, 1)[None]


def mean_of_products(fine: Tensor, mask: Tensor) -> Tensor:
    """Embedding (1, C, s, s) and mask (1, 1, S, S) -> (1, C), as the published code has it."""
    small = F.interpolate(mask, size=fine.shape[2:], mode="bilinear")
    products = (fine * small).flatten(2)
    return torch.nan_to_num(products.sum(2) / torch.count_nonzero(products, dim=2), nan=0.0)


def paint_mask(painted: np.ndarray, mask: np.ndarray, label: int) -> None:
    """Paint a mask over what is there, in place, one pixel after the other."""
    values = mask * label  # class 0 leaves no trace
    for row, column in np.transpose(np.nonzero(values)):
        painted[row, column] = values[row, column]
