"""What a tile asks of a GPU: launches, waits, allocations and bytes, counted without one.

    python -m alps.bench.gpu.counts --model vit_b --precision fp16 --json counts.json

Counted on a fake card (``fake_card``), of tiles of the network's own size with 32 x 32 points, of
which half have a mask and 1000 masks pass the predicted IoU. Run it in another checkout to see what
changed since.
"""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from alps.bench.gpu.fake_card import Counts, FakeCard

MODELS = ("vit_b", "vit_l", "vit_h")
POINTS_PER_SIDE = 32
THRESHOLD = 0.88  # any that is above 0: what passes is said by the card's scenario


def count_tile(
    config: Any, precision: str, images: int, per_side: int = POINTS_PER_SIDE
) -> dict[str, Counts]:
    """Counts of each part, for ``images`` tiles in a batch; installs the fake card.

    config: a ``SamConfig``, or the name of an official one. per_side: points.
    """
    card = FakeCard.install()
    import torch

    from alps.engine.masks.generator import MaskGenerator
    from alps.engine.runtimes.pytorch import TorchRuntime
    from alps.engine.sam import OFFICIAL
    from alps.engine.sam.empty import empty_sam

    config = OFFICIAL[config] if isinstance(config, str) else config
    side = config.image_size
    image = np.zeros((side, side, 3), np.uint8)
    parts: dict[str, Counts] = {}
    with card.counting():  # what is made and tried once, whatever it takes
        runtime = TorchRuntime(empty_sam(config).eval(), precision=precision)
        # Stability 0 keeps what the stand-ins answer: as many masks as a real tile has are written.
        generator = MaskGenerator(
            runtime,
            points_per_side=per_side,
            pred_iou_thresh=THRESHOLD,
            stability_score_thresh=0.0,
        )
        gate = generator.gate(image, None, 1.0, 0)
        generator.embed([image] * images)
    with card.counting() as parts["encode"]:
        embeddings = [own[0] for own in generator.embed([image] * images)]
    place = (np.arange(per_side) + 0.5) / per_side * side
    points = torch.from_numpy(np.stack(np.meshgrid(place, place), -1).reshape(-1, 2))

    def decode() -> None:
        if _decoded_together(runtime, embeddings, points):
            return
        for embedding in embeddings:
            for _ in runtime.decode(embedding, points, THRESHOLD, 64):
                pass

    with card.counting():
        decode()
        decode()  # the second captures a graph
    with card.counting() as parts["decode"]:
        decode()
    with card.counting():
        decode_and_follow = _rest(card, generator, image, gate, embeddings)
        decode_and_follow()
    with card.counting() as whole:
        decode_and_follow()
    parts["after the masks"] = _less(whole, parts["decode"])
    return parts


def _decoded_together(runtime: Any, embeddings: list[Any], points: Any) -> bool:
    """Decode all images at once, if this checkout and the runtime can."""
    try:
        from alps.engine.runtimes.protocol import Asked, DecodesBatches
    except ImportError:
        return False
    if not isinstance(runtime, DecodesBatches):
        return False
    asked = [Asked(embedding, points) for embedding in embeddings]
    return runtime.decode_batch(asked, THRESHOLD, len(points)) is not None


def _rest(
    card: FakeCard, generator: Any, image: np.ndarray, gate: Any, embeddings: list[Any]
) -> Callable[[], Any]:
    """Decode and what follows, as ``alps label`` has it done."""
    try:
        from alps.engine.masks.postprocess import arrays
        from alps.engine.masks.postprocess.device import DevicePostprocessor
        from alps.engine.masks.postprocess.protocol import ToSegment
    except ImportError:  # a checkout in which it is the host's

        def by_the_host() -> None:
            for embedding in embeddings:
                found = generator.find(image, gate, [embedding], with_rest=True)
                generator.describe(image, found, 4)

        return by_the_host
    vars(arrays)["shown"] = card.array
    after = DevicePostprocessor(generator, 4, len(embeddings))
    images = [ToSegment(image, gate, [embedding]) for embedding in embeddings]
    return partial(after.find, images)


def _less(whole: Counts, part: Counts) -> Counts:
    """What is in the one and not in the other."""
    found = Counts()
    for name in vars(found):
        left: Counter[str] = Counter(getattr(whole, name))
        left.subtract(getattr(part, name))
        setattr(found, name, +left)
    return found


def table(parts: dict[str, Counts], tiles: int) -> list[str]:
    """Rows of Markdown, a part each and their sum."""
    rows = {name: counts.row(tiles) for name, counts in parts.items()}
    names = list(next(iter(rows.values())))
    rows["a tile"] = {name: sum(row[name] for row in rows.values()) for name in names}
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for title, row in rows.items():
        values = (f"{row[n]:.2f}" if n.startswith("GB") else f"{row[n]:.1f}" for n in names)
        lines.append(f"| {title} | " + " | ".join(values) + " |")
    return lines


@click.command(help=__doc__)
@click.option("--model", type=click.Choice(MODELS), default="vit_b", show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@click.option("--images", default=8, show_default=True, help="Tiles of a batch.")
@click.option("--most", default=0, help="Name so many of what is the most.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Where all counts go.")
def main(model: str, precision: str, images: int, most: int, out: Path | None) -> None:
    """Count, and print a table."""
    parts = count_tile(model, precision, images)
    for line in table(parts, images):
        click.echo(line)
    for name, counts in parts.items():
        for launched, number in counts.launches.most_common(most):
            click.echo(f"{name}: {number / images:.1f} {launched}")
        for launched, size in counts.by_name.most_common(most):
            click.echo(f"{name}: {size / images / 1e9:.2f} GB by {launched}")
        for waited, number in counts.waits.most_common(most):
            click.echo(f"{name}: waits {number / images:.1f} {waited}")
    if out is not None:
        out.write_text(json.dumps({name: vars(counts) for name, counts in parts.items()}, indent=1))


if __name__ == "__main__":
    main()
