"""Rivals of the engine's label maps: superpixels whose mean colours are clustered.

    python -m alps.bench.labels.baselines SRC OUT --method slic --clusters 46
    alps quality OUT --truth DIR

The label maps have a run folder's layout (OUT/labels/…), so `alps quality` scores them as it
scores the engine's, at the same number of pseudo-classes. All but nodata is labelled.
K-means weights each segment by its pixels. On Dubai and OpenAerialMap that gave Felzenszwalb a
better mIoU in each trial, by up to 5 points, and SLIC as often a better as a worse one, by up to 3.
Whole images are held in memory.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
from sklearn.cluster import KMeans

from alps.engine.base.errors import AlpsError, RunFolderError, SettingsError
from alps.engine.base.progress import Progress
from alps.engine.images.raster import RasterReader
from alps.engine.images.sources import Source, find_sources
from alps.engine.images.windows import Window
from alps.engine.labels.writer import LabelMapWriter, unlabelled_value

METHODS = ("slic", "felzenszwalb")
KMEANS_STARTS = 4  # the best of so many k-means++ starts; one start varies by a point of mIoU


@dataclass(frozen=True)
class BaselineSettings:
    """How images are cut into segments, and into how many classes their colours are put."""

    method: str = "slic"
    clusters: int = 46
    seed: int = 0
    segments_per_megapixel: float = 1000.0  # SLIC: superpixels asked for
    compactness: float = 10.0  # SLIC: distance in colour against distance in the image
    scale: float = 100.0  # Felzenszwalb: larger means larger segments
    sigma: float = 0.8  # Felzenszwalb: blur before, in pixels
    min_size: int = 50  # Felzenszwalb: smallest segment, in pixels


def label_by_colour(src: str, out: Path, settings: BaselineSettings) -> int:
    """Write a label map for every image of `src` below `out`/labels; return the segments' number.

    Raises SettingsError without scikit-image or with more clusters than segments, SourceError for
    an image that cannot be read, RunFolderError where `out` has label maps already.
    """
    _scikit_image()
    if settings.method not in METHODS:
        raise SettingsError(f"method {settings.method!r} is none of {', '.join(METHODS)}")
    labels = out / "labels"
    if labels.exists() and any(labels.iterdir()):
        raise RunFolderError(f"{labels} is not empty; give another OUT, or remove it")
    sources = find_sources(src, exclude=out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".segments-", dir=out) as folder:
        files = [Path(folder) / f"{index}.npz" for index in range(len(sources))]
        colours, pixels = [], []
        with Progress(len(sources), "images", settings.method) as progress:
            for source, file in zip(sources, files, strict=True):
                own_colours, own_pixels = segment_to_file(source, file, settings)
                colours.append(own_colours)
                pixels.append(own_pixels)
                progress.advance()
        assigned = cluster_colours(np.concatenate(colours), np.concatenate(pixels), settings)
        first = 0
        with Progress(len(sources), "images", "paint") as progress:
            for source, file, own in zip(sources, files, colours, strict=True):
                classes = assigned[first : first + len(own)]
                first += len(own)
                paint_file(source, file, classes, labels, settings.clusters)
                progress.advance()
    return first


def segment_image(image: np.ndarray, settings: BaselineSettings) -> np.ndarray:
    """Cut an image (H, W, 3) uint8 into segments, (H, W) int32, numbered from 0 without gaps."""
    segmentation = _scikit_image().segmentation
    if settings.method == "slic":
        megapixels = image.shape[0] * image.shape[1] / 1e6
        segments = segmentation.slic(
            image,
            n_segments=max(1, round(settings.segments_per_megapixel * megapixels)),
            compactness=settings.compactness,
            start_label=0,
        )
    else:
        segments = segmentation.felzenszwalb(
            image, scale=settings.scale, sigma=settings.sigma, min_size=settings.min_size
        )
    _, numbered = np.unique(segments, return_inverse=True)
    return numbered.reshape(image.shape[:2]).astype(np.int32)


def mean_colours(
    image: np.ndarray, segments: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean CIE Lab colours (n, 3) float32 and numbers of valid pixels (n,) int64 of segments.

    image (H, W, 3) uint8, segments (H, W) int, valid (H, W) bool. A segment without a valid pixel
    has colour 0, which weighs nothing.
    """
    lab, flat = _scikit_image().color.rgb2lab(image)[valid], segments[valid]
    count = int(segments.max()) + 1
    pixels = np.bincount(flat, minlength=count)
    sums = [np.bincount(flat, lab[:, band], minlength=count) for band in range(3)]
    return (np.stack(sums, axis=1) / np.maximum(pixels, 1)[:, None]).astype(np.float32), pixels


def cluster_colours(
    colours: np.ndarray, pixels: np.ndarray, settings: BaselineSettings
) -> np.ndarray:
    """K-means over the segments of all images: (n, 3) float32, (n,) int64 → (n,) int32 classes."""
    if len(colours) < settings.clusters:
        raise SettingsError(
            f"--clusters {settings.clusters} is more than the {len(colours)} segments; "
            "ask for fewer clusters or smaller segments"
        )
    kmeans = KMeans(settings.clusters, n_init=KMEANS_STARTS, random_state=settings.seed)
    return kmeans.fit_predict(colours, sample_weight=pixels)


def _scikit_image() -> ModuleType:
    """Import scikit-image when it is needed: it is in the extra `dev` alone."""
    try:
        import skimage.color
        import skimage.segmentation
    except ImportError as error:
        raise SettingsError(
            "the baselines need scikit-image, which is in the extra `dev`: "
            "pip install 'alps-engine[dev]'"
        ) from error
    return skimage


def segment_to_file(
    source: Source, file: Path, settings: BaselineSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Keep an image's segments on disk, `valid` and what mean_colours returns beside them."""
    with RasterReader(source.path) as reader:
        tile = reader.read(Window(0, 0, reader.width, reader.height))
    segments = segment_image(tile.rgb, settings)
    colours, pixels = mean_colours(tile.rgb, segments, tile.valid)
    np.savez(file, segments=segments, valid=tile.valid, colours=colours, pixels=pixels)
    return colours, pixels


def paint_file(
    source: Source, file: Path, classes: np.ndarray, folder: Path, clusters: int
) -> None:
    """Write the label map of an image whose segments `segment_to_file` kept, (n,) their classes."""
    with np.load(file) as saved:
        labels, valid = classes[saved["segments"]], saved["valid"]
    labels[~valid] = unlabelled_value(clusters)
    with (
        RasterReader(source.path) as reader,
        LabelMapWriter.like(reader, folder / source.label_name, clusters) as writer,
    ):
        writer.write_rows(0, labels)


@click.command(context_settings={"show_default": True})
@click.argument("src")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--method", type=click.Choice(METHODS), default=BaselineSettings.method)
@click.option("--clusters", type=click.IntRange(1, 65535), default=BaselineSettings.clusters)
@click.option("--seed", type=int, default=BaselineSettings.seed)
@click.option(
    "--segments-per-megapixel",
    type=click.FloatRange(min=0, min_open=True),
    default=BaselineSettings.segments_per_megapixel,
    help="SLIC's number of superpixels.",
)
@click.option(
    "--compactness",
    type=click.FloatRange(min=0, min_open=True),
    default=BaselineSettings.compactness,
    help="SLIC: how square superpixels are.",
)
@click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True),
    default=BaselineSettings.scale,
    help="Felzenszwalb: larger means larger segments.",
)
@click.option("--sigma", type=click.FloatRange(min=0), default=BaselineSettings.sigma)
@click.option("--min-size", type=click.IntRange(min=1), default=BaselineSettings.min_size)
def main(src: str, out: Path, **options: Any) -> None:
    """Label the images of SRC by superpixels and k-means on their mean colours."""
    try:
        segments = label_by_colour(src, out, BaselineSettings(**options))
    except AlpsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{segments} segments in {options['clusters']} classes; label maps in {out}/labels")


if __name__ == "__main__":
    main()
