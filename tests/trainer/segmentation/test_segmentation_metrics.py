"""Measures beside scikit-learn's, and whole images predicted window by window."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score
from torch import nn

from alps.trainer.segmentation.loss import class_weights, pixel_weights, weighted_sum
from alps.trainer.segmentation.metrics import Confusion, Scores, scores
from alps.trainer.segmentation.predict import predict
from alps.trainer.segmentation.recipe import EvaluationSettings

NAMES = ("road", "roof", "tree", "car", "clutter")


def made(seed, classes=5, pixels=4000):
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, pixels).astype(np.uint8)
    predicted = np.where(random.random(pixels) < 0.6, truth, random.integers(0, classes, pixels))
    truth[:100] = 255
    return truth, predicted.astype(np.uint8)


def counted(truth, predicted, classes=5):
    confusion = Confusion(classes)
    for part in range(3):
        confusion.add(truth[part::3], predicted[part::3])
    return confusion.counts


@pytest.mark.parametrize("seed", [0, 1])
def test_measures_are_those_of_scikit_learn(seed):
    truth, predicted = made(seed)
    found = scores(counted(truth, predicted), NAMES)
    truth, predicted = truth[100:], predicted[100:]
    assert found.iou == pytest.approx(jaccard_score(truth, predicted, average=None))
    assert found.mean_iou == pytest.approx(jaccard_score(truth, predicted, average="macro"))
    assert found.f1 == pytest.approx(f1_score(truth, predicted, average=None))
    assert found.mean_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert found.overall_accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert found.pixels == 3900 and found.without is None


def test_with_and_without_clutter():
    truth, predicted = made(2)
    found = scores(counted(truth, predicted), NAMES, left_out=("clutter",))
    some = [0, 1, 2, 3]
    truth, predicted = truth[100:], predicted[100:]
    assert found.without.classes == NAMES[:4]
    assert found.without.mean_iou == pytest.approx(
        jaccard_score(truth, predicted, average="macro", labels=some)
    )
    assert found.without.mean_f1 == pytest.approx(
        f1_score(truth, predicted, average="macro", labels=some)
    )
    assert found.mean_iou == pytest.approx(np.mean(found.iou))  # the first line has all classes
    assert "without clutter" in found.table()
    assert Scores.from_dict(found.to_dict()) == found


def test_a_class_that_is_nowhere_does_not_count():
    found = scores(counted(np.array([0, 0, 1]), np.array([0, 1, 1]), 3), NAMES[:3])
    assert math.isnan(found.iou[2]) and found.mean_iou == pytest.approx(0.5)
    assert found.to_dict()["iou"]["tree"] is None
    nothing = scores(np.zeros((3, 3), np.int64), NAMES[:3])
    assert math.isnan(nothing.mean_iou) and math.isnan(nothing.overall_accuracy)


# --- the loss


def test_the_loss_is_torchs_with_weights():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 5, generator=generator)
    labels = torch.randint(-1, 3, (2, 6, 5), generator=generator)
    of_class = torch.tensor([0.5, 1.0, 2.0])
    counts = pixel_weights(labels, torch.ones(2, 6, 5), of_class)
    ours = weighted_sum(logits, labels, counts) / counts.sum()
    theirs = nn.functional.cross_entropy(logits, labels, of_class, ignore_index=-1)
    torch.testing.assert_close(ours, theirs)


def test_class_weights_are_one_on_average():
    pixels = np.array([900, 90, 10, 0])
    for how in ("none", "root", "inverse"):
        weights = class_weights(pixels, how).numpy()
        assert (weights * pixels).sum() / 1000 == pytest.approx(1) and weights[3] == 0
    assert class_weights(pixels, "root")[2] / class_weights(pixels, "root")[0] == pytest.approx(
        90**0.5
    )
    assert (class_weights(pixels, "none")[:3] == 1).all()


# --- sliding windows


CPU = torch.device("cpu")


class ByColour(nn.Module):
    """Calls a pixel what its red says; at half the size, as real networks do."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, pixel_values):
        self.seen.append(tuple(pixel_values.shape))
        red = pixel_values[:, 0] * 0.229 * 255 + 0.485 * 255
        logits = torch.stack([-(red - centre).abs() for centre in (20.0, 120.0, 220.0)], dim=1)
        return type("Output", (), {"logits": logits})


@pytest.mark.parametrize(
    ("size", "crop"), [((100, 70), 32), ((31, 64), 32), ((20, 9), 32), ((64, 64), 64)]
)
def test_windows_together_give_the_whole_image(size, crop):
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, size)
    pixels = np.repeat((20 + 100 * classes)[..., None], 3, axis=2).astype(np.uint8)
    model = ByColour().eval()
    settings = EvaluationSettings(overlap=0.34, eval_batch=3)
    rows = list(
        predict(model, pixels, crop, settings, lambda: torch.autocast("cpu", enabled=False))
    )
    assert [y for y, _ in rows] == np.cumsum([0, *(len(part) for _, part in rows[:-1])]).tolist()
    assert (np.concatenate([part for _, part in rows]) == classes).all()
    assert all(shape[2:] == (crop, crop) and shape[0] <= 3 for shape in model.seen)


class BySide(nn.Module):
    """Surely class 0 in a window's left half; in its right 1 rather than 2, and never 0."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, pixel_values):
        count, _, height, width = pixel_values.shape
        logits = torch.zeros(count, 3, height, width)
        logits[:, 0, :, : width // 2] = 4
        # Logits would outvote the surer window, probabilities do not.
        for number, logit in enumerate((-20.0, 2.0, 1.5)):
            logits[:, number, :, width // 2 :] = logit
        return type("Output", (), {"logits": logits})


def test_where_windows_overlap_the_surer_one_wins_whichever_comes_last():
    """Columns 20 to 31 lie in the right half of the first window, in the left of the second."""
    pixels = np.zeros((32, 52, 3), np.uint8)
    settings = EvaluationSettings(overlap=0.4, eval_batch=2)
    whole = lambda: torch.autocast("cpu", enabled=False)  # noqa: E731
    ((_, found),) = predict(BySide().eval(), pixels, 32, settings, whole)
    assert (found[:, 20:32] == 0).all() and (found[:, 36:] == 1).all()
    assert (found[:, 16:20] == 1).all()  # in the first window alone
    ((_, found),) = predict(Mirrored().eval(), pixels, 32, settings, whole)
    assert (found[:, 20:32] == 0).all() and (found[:, :16] == 1).all()


class Mirrored(BySide):
    """The other way round."""

    def forward(self, pixel_values):
        output = super().forward(pixel_values)
        output.logits = output.logits.flip(3)
        return output
