"""Our decoder beside Segment Anything's ONNX example in ONNX Runtime, the same weights and points.

    python -m alps.bench.proofs.exported_decoder WORK --model vit_b --prompts 64

The example's decoder takes a prompt a call and gives four masks of it at the image's size; ours
gives three, those of everything mode, as logits at a quarter of it, every one of them made. An
official size gets random weights. WORK receives them and the exported file.
"""

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch

from alps.bench.everything.random_weights import save_random_sam
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.masks.crops import Crop, network_pixels
from alps.engine.models.checkpoints import load_sam
from alps.engine.models.registry import find_model
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam import OFFICIAL, Sam
from alps.export.sam_layout import export_decoder
from alps.export.settings import ExportSettings


def in_onnx_runtime(file: Path, embedding: np.ndarray, points: np.ndarray, side: int) -> np.ndarray:
    """Low-resolution logits (N, 3, h, w) of points (N, 2), one call each."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    low = 4 * embedding.shape[-1]
    found = []
    for point in points:
        coordinates = np.array([[point, [0, 0]]], np.float32)  # the second says: no box
        given = {
            "image_embeddings": embedding[None],
            "point_coords": coordinates,
            "point_labels": np.array([[1, -1]], np.float32),
            "mask_input": np.zeros((1, 1, low, low), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([side, side], np.float32),
        }
        found.append(session.run(["masks", "low_res_masks"], given)[1][0, 1:])
    return np.stack(found)


def in_ours(runtime: TorchRuntime, embedding: torch.Tensor, points: np.ndarray) -> np.ndarray:
    """The same of our runtime."""
    parts = list(runtime.decode(embedding, torch.from_numpy(points), 0.0))
    logits = torch.cat([part.logits for part in parts])
    return logits.unflatten(0, (len(points), -1)).numpy()


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """What it gives, and the seconds that the faster of two calls took."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - started)
    return found, min(seconds)


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--model", default="tiny", show_default=True, help="A size, a name or a checkpoint.")
@click.option("--prompts", default=64, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(work: Path, model: str, prompts: int, seed: int) -> None:
    """Print seconds a point of each side, and how far apart their logits are."""
    work.mkdir(parents=True, exist_ok=True)
    config = OFFICIAL.get(model)
    image = make_scene(seed, SceneSettings(size=config.image_size if config else 512)).image
    checkpoint = work / "random.pth" if config else find_model(model)
    if config is not None:
        save_random_sam(config, checkpoint, image, seed)
    sam, _ = load_sam(checkpoint)
    assert isinstance(sam, Sam)
    side = sam.config.image_size
    runtime = TorchRuntime(sam)
    whole = Crop(0, 0, image.shape[1], image.shape[0], layer=0)
    embedding = runtime.encode(network_pixels(image, whole, side)[None])[0]
    points = np.random.default_rng(seed).uniform(0, side, (prompts, 2)).astype(np.float32)
    exported = work / "decoder.onnx"
    export_decoder(checkpoint, exported, ExportSettings())
    theirs, their_seconds = timed(
        lambda: in_onnx_runtime(exported, embedding.numpy(), points, side)
    )
    ours, our_seconds = timed(lambda: in_ours(runtime, embedding, points))
    apart = np.abs(ours - theirs).max() / np.abs(theirs).max()
    click.echo(f"{model}, {prompts} points, {torch.get_num_threads()} threads")
    click.echo(f"ONNX Runtime, a prompt a call: {their_seconds / prompts * 1e3:.1f} ms a point")
    click.echo(f"ours, all masks made: {our_seconds / prompts * 1e3:.1f} ms a point")
    click.echo(f"{their_seconds / our_seconds:.1f} times; logits {apart:.1e} of the largest apart")


if __name__ == "__main__":
    main()
