"""Average precision of resamples equals pycocotools' on data in which pictures are really repeated."""

import numpy as np
import pytest
import torch

from helpers.detections import NAMES, by_pycocotools, random_detections, random_truth
from isometry.evaluation.dense import precision_intervals as module
from isometry.evaluation.dense.detection import average_precision
from isometry.evaluation.dense.precision_intervals import (
    match_classes,
    precision_intervals,
    resampled_precision,
)


def pictures(seed, count=30):
    """Pictures without objects, without detections, and with crowds are among them."""
    generator = np.random.default_rng(seed)
    truths = [random_truth(generator, int(number)) for number in [0, 0, *generator.integers(1, 8, count - 2)]]
    detections = [random_detections(generator, truth) for truth in truths]
    nothing = {name: value[:0] for name, value in detections[1].items()}
    detections[1] = detections[5] = nothing
    for found in detections:
        low, high = found["boxes"][:, :2], found["boxes"][:, 2:]
        found["boxes"] = torch.cat([torch.minimum(low, high), torch.maximum(low, high)], 1)
    return detections, truths


def figures(detections, truths, times_RI):
    """AP and AP50 of each resample."""
    found_TR = resampled_precision(match_classes(detections, truths, len(NAMES)), times_RI)
    return np.stack([found_TR.mean(0), found_TR[0]], 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("together", [1, 2**22])
def test_resamples_are_those_of_repeated_pictures(seed, together, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", together)
    detections, truths = pictures(seed)
    generator = np.random.default_rng(seed)
    once = np.ones(len(truths), int)
    times_RI = np.stack([once, *generator.multinomial(len(truths), once / len(truths), size=4)])
    assert (times_RI == 0).any()
    assert (times_RI > 2).any()
    for found, times_I in zip(figures(detections, truths, times_RI), times_RI, strict=True):
        repeated = [
            [each for each, times in zip(part, times_I, strict=True) for _ in range(times)]
            for part in (detections, truths)
        ]
        wanted, _ = by_pycocotools(*repeated)
        assert found == pytest.approx(wanted[:2], abs=1e-9)


def test_more_than_100_detections_of_a_class_and_classes_without_any():
    generator = np.random.default_rng(0)
    detections, truths = pictures(0, 6)
    many = [random_detections(generator, random_truth(generator, 90)) for _ in truths]
    detections = [
        {name: torch.cat([each[name], more[name]]) for name in each}
        for each, more in zip(detections, many, strict=True)
    ]
    for found in detections:
        found["boxes"][:, 2:] = torch.maximum(found["boxes"][:, :2], found["boxes"][:, 2:])
        found["labels"] = torch.zeros_like(found["labels"])
    wanted, _ = by_pycocotools(detections, truths)
    assert figures(detections, truths, np.ones((1, 6), int))[0] == pytest.approx(wanted[:2], abs=1e-9)


def test_intervals_are_quantiles_over_resamples_and_shrink_with_more_pictures():
    detections, truths = pictures(1)
    found = average_precision(detections, truths, NAMES)
    for key, column in (("ap", 0), ("ap50", 1)):
        assert found[f"{key}_low"] < found[key] < found[f"{key}_high"]
        picks = np.random.default_rng(7).integers(len(truths), size=(2000, len(truths)))
        times_RI = np.stack([np.bincount(pick, minlength=len(truths)) for pick in picks])
        low, high = np.percentile(100 * figures(detections, truths, times_RI)[:, column], [2.5, 97.5])
        assert (found[f"{key}_low"], found[f"{key}_high"]) == pytest.approx((low, high), abs=0.8)
    four = average_precision(detections * 4, truths * 4, NAMES)
    assert four["ap_high"] - four["ap_low"] < 0.7 * (found["ap_high"] - found["ap_low"])
    assert average_precision(detections * 4, truths * 4, NAMES)["ap_low"] == four["ap_low"]
    assert "ap_low" not in average_precision(detections, truths, NAMES, intervals=False)


def test_without_objects_there_is_no_interval():
    detections, truths = pictures(2)
    for some in (0, 2):
        bare = [{name: value[:0] for name, value in truth.items()} for truth in truths[:some]]
        ends = precision_intervals(detections[:some], bare, len(NAMES))
        assert ends == dict.fromkeys(["ap_low", "ap_high", "ap50_low", "ap50_high"])
