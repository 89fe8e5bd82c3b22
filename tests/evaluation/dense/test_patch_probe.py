"""The linear probe on patches: classes of patches and mIoU by loops, and probes that can and can't succeed."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchmetrics.segmentation import MeanIoU

from helpers.mask_folders import write_masks
from isometry.config import RunConfig
from isometry.data import ImageSpec
from isometry.data.dense.annotations import IGNORED
from isometry.data.dense.sources import find_dense_sources
from isometry.evaluation.dense.feature_extractor import TEACHER, TRAINED, FeatureExtractor
from isometry.evaluation.dense.patch_probe import (
    FIGURE,
    choose_probe,
    mean_iou,
    overlap,
    patch_classes,
    patch_probe,
)

SPEC = ImageSpec((3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), crop_pct=1.0)
CPU = torch.device("cpu")


def test_classes_of_patches_are_those_of_most_pixels():
    random = np.random.default_rng(0)
    masks = random.integers(0, 4, size=(5, 12, 8)).astype(np.uint8)
    masks[random.random(masks.shape) < 0.3] = IGNORED
    masks[0, :4, :4] = IGNORED
    found = patch_classes(torch.from_numpy(masks), (3, 2), 4)
    for image in range(5):
        for row in range(3):
            for column in range(2):
                pixels = masks[image, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].ravel().tolist()
                counts = Counter(pixel for pixel in pixels if pixel != IGNORED)
                wanted = min(counts, key=lambda label: (-counts[label], label)) if counts else IGNORED
                assert found[image, row, column] == wanted


def iou_by_loop(predictions: list[np.ndarray], masks: list[np.ndarray], classes: int) -> float:
    found = []
    for label in range(classes):
        both = either = 0
        for predicted, mask in zip(predictions, masks, strict=True):
            for ours, theirs in zip(predicted.ravel().tolist(), mask.ravel().tolist(), strict=True):
                if theirs != IGNORED:
                    both += ours == label == theirs
                    either += label in (ours, theirs)
        if either:
            found.append(both / either)
    return sum(found) / len(found)


def test_mean_iou_is_that_of_a_loop_and_of_torchmetrics():
    random = np.random.default_rng(1)
    masks = [random.integers(0, 3, size=(9, 7)).astype(np.uint8) for _ in range(4)]
    predictions = [
        np.where(random.random(mask.shape) < 0.6, mask, random.integers(0, 3, mask.shape)) for mask in masks
    ]
    # Class 3 is predicted but in no mask, class 4 in neither.
    predictions[0][0, :3] = 3
    whole = mean_iou(np.sum([overlap(*each, 5) for each in zip(predictions, masks, strict=True)], 0).ravel())
    metric = MeanIoU(5, per_class=True, input_format="index")
    pairs = (
        torch.from_numpy(np.concatenate([each.ravel() for each in side]))[None].long()
        for side in (predictions, masks)
    )
    metric.update(*pairs)
    theirs = metric.compute()
    assert whole == pytest.approx(float(theirs[theirs >= 0][:4].mean()))
    masks[1][2:5] = IGNORED
    sums = np.sum([overlap(*each, 5) for each in zip(predictions, masks, strict=True)], 0)
    assert mean_iou(sums.ravel()) == pytest.approx(iou_by_loop(predictions, masks, 5))


class Colours(nn.Module):
    """A network whose patches are the mean colours of 8×8 pixels, or the same vector everywhere."""

    def __init__(self, constant: bool) -> None:
        super().__init__()
        self.constant = constant

    def forward_intermediates(self, images, indices, norm, output_fmt):
        cells = nn.functional.avg_pool2d(images, 8)
        return images, [torch.ones_like(cells) if self.constant else cells]

    def forward_head(self, last, pre_logits):
        return last


def probed(
    folder: Path, *, skip_bad_images: bool = False, **networks: FeatureExtractor
) -> tuple[dict[str, dict], list[str]]:
    config = RunConfig(data_dir=str(folder), workers=0, batch_size=7, skip_bad_images=skip_bad_images)
    sources = find_dense_sources(config, "segment")
    rows, notes = patch_probe(networks, sources, config, SPEC, CPU)
    return {row["of"]: row for row in rows}, notes


def test_colours_are_found_by_features_of_colour_only(tmp_path):
    write_masks(tmp_path, {"train": 30, "val": 12})
    rows, notes = probed(
        tmp_path, **{TRAINED: FeatureExtractor(Colours(False)), TEACHER: FeatureExtractor(Colours(True))}
    )
    assert set(rows) == {TRAINED, TEACHER}
    # The masks' classes are others than those of labelled images.
    assert re.search(r"patch probe: .*, \d+ classes of pixels, 0 is the first$", notes[0])
    row = rows[TRAINED]
    assert (row["figure"], row["images"]) == (FIGURE, 12)
    # The borders of squares are blurred by patches.
    assert row["value"] > 60
    assert row["low"] < row["value"] < row["high"]
    # One class everywhere: about a third of the pixels are right, and of three classes one is predicted.
    assert rows[TEACHER]["value"] == pytest.approx(100 / 9, abs=2)
    assert rows[TEACHER]["value"] == pytest.approx(row["chance"], abs=0.5)
    assert "30 training" in notes[0]
    again, _ = probed(tmp_path, **{TRAINED: FeatureExtractor(Colours(False))})
    assert again[TRAINED] == row


def test_too_few_training_images_are_a_note(tmp_path):
    write_masks(tmp_path, {"train": 3, "val": 2})
    rows, notes = probed(tmp_path, **{TRAINED: FeatureExtractor(Colours(False))})
    assert rows == {}
    assert "needs five training images" in notes[-1]


def test_pictures_that_can_not_be_read_are_named(tmp_path):
    write_masks(tmp_path, {"train": 6, "val": 2})
    broken = [tmp_path / split / "images" / "1.png" for split in ("train", "val")]
    for path in broken:
        path.write_bytes(b"no picture")
    networks = {TRAINED: FeatureExtractor(Colours(False))}
    rows, notes = probed(tmp_path, skip_bad_images=True, **networks)
    assert rows[TRAINED]["images"] == 1
    left_out = "patch probe: 2 unreadable images are left out of the figures"
    assert notes[-1] == f"{left_out}: {broken[0]}, {broken[1]}"


def test_masks_that_are_all_ignored_judge_nothing(tmp_path):
    write_masks(tmp_path, {"train": 6, "val": 1})
    (mask,) = (tmp_path / "val" / "masks").iterdir()
    Image.fromarray(np.full((40, 40), IGNORED, np.uint8)).save(mask)
    rows, notes = probed(tmp_path, **{TRAINED: FeatureExtractor(Colours(False))})
    assert rows == {}
    assert "ignored" in notes[-1]


def test_two_classes_have_a_probe_too():
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2 * 3
    features = random.normal(size=(200, 3)) + labels[:, None]
    probe = choose_probe(features, labels, np.arange(200) // 10)
    assert probe.predict_log_proba(features).shape == (200, 2)
    assert probe.score(features, labels) > 0.95
