"""Everything mode beside transformers' mask-generation pipeline, from one folder of Hugging Face's.

    python -m alps.bench.proofs.mask_generation WORK IMAGE --model vit_b --points-per-side 16

WORK receives the folder that transformers writes, which both sides open. Official sizes get random
weights and thresholds that suit them; other models are taken as they are. The pipeline tells masks,
scores and boxes alone, so these are compared.
"""

import inspect
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from alps.bench.everything.matching import LEVELS, agreement
from alps.bench.everything.random_weights import save_random_sam
from alps.bench.everything.thresholds import keep_all, thresholds_of
from alps.bench.everything.torchvision_stand_in import torchvision_provided
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.checkpoints import load_sam
from alps.engine.models.convert import convert_model
from alps.engine.models.folder import CONFIG, PREPROCESSOR
from alps.engine.sam import OFFICIAL, Sam
from alps.kernels.masks import coco
from alps.kernels.masks.pixels import runs_of

# What MaskGenerator calls a setting -> what the pipeline does.
NAMES = {
    "points_per_side": "points_per_crop",
    "points_per_batch": "points_per_batch",
    "pred_iou_thresh": "pred_iou_thresh",
    "stability_score_thresh": "stability_score_thresh",
    "stability_score_offset": "stability_score_offset",
    "box_nms_thresh": "crops_nms_thresh",
}


@dataclass(frozen=True)
class Records:
    """Masks of an image as one side has them, M of them, in its order."""

    counts: list[bytes]  # COCO compressed codes
    boxes: np.ndarray  # (M, 4) x0, y0, last column, last row
    scores: np.ndarray  # (M,) predicted IoU


class Theirs:
    """transformers' pipeline over a folder that it can open."""

    def __init__(self, folder: Path) -> None:
        from transformers import SamImageProcessorPil, SamModel, pipeline

        processor = SamImageProcessorPil.from_pretrained(folder)
        # Its last step refuses to run without torchvision, of which it needs one function.
        last = inspect.unwrap(type(processor).post_process_for_mask_generation)
        processor.post_process_for_mask_generation = last.__get__(processor)
        model = SamModel.from_pretrained(folder).eval()
        self.pipeline = pipeline(
            "mask-generation", model=model, image_processor=processor, device="cpu"
        )

    def records(self, image: np.ndarray, settings: dict[str, Any]) -> Records:
        """Masks of an image (H, W, 3) uint8 RGB with MaskGenerator's settings."""
        named = {NAMES[name]: value for name, value in settings.items()}
        with torchvision_provided("torchvision"):
            found = self.pipeline(Image.fromarray(image), output_bboxes_mask=True, **named)
        masks = np.array(found["masks"], bool).reshape(-1, *image.shape[:2])
        boxes = found["bounding_boxes"].numpy()
        return Records(coco.encode(runs_of(masks)), boxes, found["scores"].numpy())


def our_records(sam: Sam, image: np.ndarray, settings: dict[str, Any]) -> Records:
    """Masks of an image (H, W, 3) uint8 RGB as MaskGenerator has them."""
    records = MaskGenerator(sam, output_mode="coco_rle", **settings).generate(image)
    boxes = np.array([record["bbox"] for record in records]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([record["predicted_iou"] for record in records], np.float32)
    counts = [record["segmentation"]["counts"].encode("ascii") for record in records]
    return Records(counts, boxes, scores)


def their_folder(work: Path, model: str, image: np.ndarray, seed: int) -> Path:
    """What transformers writes of a model: of an official size with random weights."""
    from transformers import SamModel

    converted, written = work / "converted", work / "theirs"
    if model in OFFICIAL:
        work.mkdir(parents=True, exist_ok=True)
        save_random_sam(OFFICIAL[model], work / "random.pth", image, seed)
        convert_model(work / "random.pth", converted)
    else:
        convert_model(model, converted)
    if model in OFFICIAL:
        about = json.loads((converted / CONFIG).read_text(encoding="utf-8"))
        about["mask_decoder_config"].pop("layer_norm_eps")  # as their own files are
        (converted / CONFIG).write_text(json.dumps(about), encoding="utf-8")
    SamModel.from_pretrained(converted).save_pretrained(written)
    (converted / PREPROCESSOR).rename(written / PREPROCESSOR)
    return written


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path, exists=True))
@click.option("--model", default="tiny", show_default=True, help="A size, a name or a checkpoint.")
@click.option("--points-per-side", type=int, help="Default: the model's, SAM's with a size.")
@click.option("--points-per-batch", default=64, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(
    work: Path,
    image: Path,
    model: str,
    points_per_side: int | None,
    points_per_batch: int,
    seed: int,
) -> None:
    """Print how many masks each side found, and how far they are alike."""
    pixels = np.asarray(Image.open(image).convert("RGB"))
    folder = their_folder(work, model, pixels, seed)
    sam, info = load_sam(folder)
    known = {name: value for name, value in info.defaults.given().items() if name in NAMES}
    settings = {"points_per_side": 32} | known | {"points_per_batch": points_per_batch}
    if points_per_side is not None:
        settings["points_per_side"] = points_per_side
    if model in OFFICIAL:
        settings |= thresholds_of(MaskGenerator(sam, **keep_all(settings)).segment(pixels))
    click.echo(f"{model}, {pixels.shape[1]} x {pixels.shape[0]} pixels, {settings}")
    our_records(sam, pixels, settings)  # kernels are compiled before the clock runs
    pipeline = Theirs(folder)
    started = time.perf_counter()
    ours = our_records(sam, pixels, settings)
    between = time.perf_counter()
    theirs = pipeline.records(pixels, settings)
    seconds = time.perf_counter() - between, between - started
    size = pixels.shape[:2]
    found = agreement([theirs.counts], [ours.counts], [size])
    own = agreement([ours.counts], [theirs.counts], [size])
    click.echo(
        f"seconds: {seconds[0]:.1f} of theirs, {seconds[1]:.1f} of ours, "
        f"{seconds[0] / seconds[1]:.1f} times"
    )
    click.echo(f"masks: {len(theirs.counts)} of theirs, {len(ours.counts)} of ours")
    for level in LEVELS:
        click.echo(f"alike at IoU {level}: {found.shares[level]:.2%}, {own.shares[level]:.2%}")
    if len(theirs.counts) == len(ours.counts):
        same = sum(a == b for a, b in zip(theirs.counts, ours.counts, strict=True))
        boxes = (theirs.boxes == ours.boxes).all(1).sum()
        off = np.abs(theirs.scores - ours.scores).max(initial=0)
        click.echo(
            f"in their order: {same} the same pixels, {boxes} the same box, scores {off:.1e}"
        )


if __name__ == "__main__":
    main()
