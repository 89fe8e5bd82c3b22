"""IoU equals torchmetrics' and a loop over pixels; the interval is that of the bootstrap."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from isometry.evaluation.dense.segmentation import class_iou, class_pixels, confusion, iou_scores, mean_iou

NAMES = ["a", "b", "c", "d"]


def pictures(count=12, seed=0, classes=(0, 1, 2)):
    """Masks with ignored pixels, and answers that are right in most places; class d occurs in neither."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        height, width = generator.integers(5, 12, 2)
        mask = generator.choice(classes, (height, width))
        answer = np.where(generator.random(mask.shape) < 0.7, mask, generator.choice(classes, mask.shape))
        yield torch.tensor(answer), torch.tensor(np.where(generator.random(mask.shape) < 0.1, 255, mask))


def by_loop(pairs, classes):
    """From the definition, pixel by pixel."""
    both, either = [0] * classes, [0] * classes
    for answer, mask in pairs:
        for given, true in zip(answer.flatten().tolist(), mask.flatten().tolist(), strict=True):
            if true == 255:
                continue
            for k in range(classes):
                both[k] += given == k and true == k
                either[k] += given == k or true == k
    return [b / e if e else None for b, e in zip(both, either, strict=True)]


def scored(pairs):
    return iou_scores(np.stack([class_pixels(confusion(*pair, 4)) for pair in pairs]), NAMES)


@pytest.mark.parametrize("seed", range(3))
def test_iou_is_that_of_a_loop_and_of_torchmetrics(seed):
    pairs = list(pictures(seed=seed))
    found, wanted = scored(pairs), by_loop(pairs, 4)
    for row, value in zip(found["classes"], wanted, strict=True):
        assert row["value"] == (None if value is None else pytest.approx(100 * value))
    present = [value for value in wanted if value is not None]
    assert found["miou"] == pytest.approx(100 * sum(present) / len(present))
    metric = MulticlassJaccardIndex(4, average="macro", ignore_index=255)
    for answer, mask in pairs:
        metric.update(answer, mask)
    assert found["miou"] == pytest.approx(100 * float(metric.compute()), abs=1e-3)
    assert found["images"] == 12
    assert found["classes"][3] == {"name": "d", "pixels": 0, "value": None}


def test_a_class_that_is_only_answered_counts_as_wrong():
    answer, mask = torch.tensor([[0, 3]]), torch.tensor([[0, 0]])
    found = scored([(answer, mask)])
    assert [row["value"] for row in found["classes"]] == [50.0, None, None, 0.0]
    assert found["miou"] == 25.0


def test_pictures_without_pixels_that_count():
    found = scored([(torch.zeros(2, 2), torch.full((2, 2), 255))])
    assert (found["miou"], found["miou_low"], found["miou_high"]) == (None, None, None)


def test_the_interval_is_that_of_resampled_pictures():
    """Against resamples drawn one by one; equal pictures leave nothing to vary."""
    pairs = list(pictures(30, seed=5))
    found = scored(pairs)
    pixels = np.stack([class_pixels(confusion(*pair, 4)) for pair in pairs])
    generator = np.random.default_rng(7)
    drawn = [float(mean_iou(pixels[generator.integers(0, 30, 30)].sum(0))) for _ in range(2000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found["miou_low"] == pytest.approx(100 * low, abs=0.4)
    assert found["miou_high"] == pytest.approx(100 * high, abs=0.4)
    assert found["miou_low"] < found["miou"] < found["miou_high"]
    same = scored(pairs[:1] * 5)
    assert same["miou_low"] == pytest.approx(same["miou"])
    assert same["miou_high"] == pytest.approx(same["miou"])


def test_stacked_pictures_have_the_iou_of_each():
    pixels = np.stack([class_pixels(confusion(*pair, 4)) for pair in pictures(3)])
    np.testing.assert_array_equal(class_iou(pixels), np.stack([class_iou(each) for each in pixels]))
