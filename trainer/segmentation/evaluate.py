"""Measures a saved model on real labels, and writes what it predicts."""

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from alps.engine.base.errors import ModelError
from alps.engine.images.georeference import Georeference
from alps.engine.images.raster import RasterReader
from alps.engine.images.sources import TIFF_SUFFIXES
from alps.engine.labels.palette import palette
from alps.engine.labels.writer import LabelMapWriter
from alps.trainer.data.arrays import CachedPair
from alps.trainer.data.cache import Cache
from alps.trainer.data.find import find_data
from alps.trainer.numerics import autocast_for, choose_precision
from alps.trainer.processes import joined
from alps.trainer.segmentation.card import read_card
from alps.trainer.segmentation.metrics import Scores, scores
from alps.trainer.segmentation.models import class_names, located, open_model
from alps.trainer.segmentation.predict import measure
from alps.trainer.segmentation.run import Recipe, prepared


def evaluate(
    data: str | Path,
    checkpoint: str | Path,
    settings: Recipe | None = None,
    *,
    crop: int | None = None,
    device: str = "auto",
    predictions: Path | None = None,
) -> Scores | None:
    """Measure a model on the test images of DATA: those named so, or the scenes held out.

    Args:
        data: a folder of images and labels.
        checkpoint: an OUT of ours, a folder of transformers, or a name on the hub.
        settings: ``data`` and ``evaluation`` are used.
        crop: side of the windows; None: that of the training, else the default of trainings.
        device: as ``--device``.
        predictions: folder for label maps of what the model predicts; None: none are written.

    Returns:
        The measures; None in all processes but the first.

    Raises:
        SourceError: something is wrong with the data.
        ModelError: the checkpoint cannot be used, or has other classes than the data.
    """
    settings = settings or Recipe()
    trained = read_card(checkpoint, located(checkpoint))
    crop = crop or trained.crop
    with joined(device, None) as group, ExitStack() as stack:
        model = open_model(checkpoint).to(group.device).eval()
        names = class_names(model)
        asked = settings.data
        if not find_data(data, asked).rules.classes:  # DATA does not say what its labels mean
            asked = replace(asked, classes=",".join(names))
        settings = replace(settings, data=asked, train=replace(settings.train, crop=crop))

        def prepare() -> Cache:
            where = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alps-")))
            return prepared(settings, data, where / "cache", ("test",), where / "report.txt")

        cache = group.on_first(prepare)
        if len(cache.rules.classes) != len(names):
            raise ModelError(
                f"{checkpoint} knows {len(names)} classes ({', '.join(names[:8])}…) and the data "
                f"{len(cache.rules.classes)}; name the data's classes with --classes, or give the "
                "model that was fine-tuned on it"
            )
        precision = choose_precision(group.device, trained.precision)
        autocast = autocast_for(group.device, precision)
        writer = _Predictions(predictions, cache, settings) if predictions is not None else None
        counts = measure(model, cache, crop, settings.evaluation, autocast, group, writer)
        group.wait()
        return scores(counts, cache.rules.classes, cache.rules.left_out) if group.is_first else None


class _Predictions:
    """Writes predicted rows as label maps, one after the other."""

    def __init__(self, folder: Path, cache: Cache, settings: Recipe) -> None:
        self._folder, self._classes = folder, len(cache.rules.classes)
        self._shrink = settings.data.shrink
        self._writer: LabelMapWriter | None = None

    def __call__(self, pair: CachedPair, y: int, classes: np.ndarray) -> None:
        if self._writer is None:
            place = self._place(pair)
            is_tiff = Path(pair.source).suffix.lower() in TIFF_SUFFIXES or place.is_known
            self._writer = LabelMapWriter(
                self._folder / f"{pair.name}{'.tif' if is_tiff else '.png'}",
                pair.width,
                pair.height,
                palette(self._classes),
                georeference=place,
            )
            self._writer.__enter__()
        self._writer.write_rows(y, classes)
        if y + len(classes) == pair.height:
            self._writer.__exit__(None, None, None)
            self._writer = None

    def _place(self, pair: CachedPair) -> Georeference:
        if self._shrink > 1:
            return Georeference()  # its pixels are others than the source's
        with RasterReader(pair.source) as reader:
            return Georeference.of(reader)
