"""A linear probe on frozen patch features, trained on masks and judged by the mean intersection over union.

Shapes: K classes, D channels, a grid of h×w patches, masks of H×W pixels.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from torch import Tensor
from torch.nn import functional as F

from isometry.config import DataConfig
from isometry.data import ImageSpec, Preprocess
from isometry.data.dense.annotations import IGNORED, DenseImages, DensePart
from isometry.data.dense.batches import DenseBatch, dense_loaders
from isometry.data.dense.sources import DenseSources
from isometry.data.unreadable import left_out_of_figures
from isometry.evaluation.dense.feature_extractor import FeatureExtractor, common_grid
from isometry.evaluation.dense.intervals import bootstrap
from isometry.evaluation.probes import HELD_OUT, INVERSE_PENALTIES, fit_linear
from isometry.evaluation.scores import Row
from isometry.models.taps import Grid
from isometry.seeding import derive_seed

TRAINING_IMAGES, JUDGED_IMAGES = 1000, 500
"""Most images, drawn at random."""
PATCHES_OF_IMAGE = 10
"""Patches of each training image, drawn at random."""
FIGURE = "patch mIoU"


@torch.no_grad()
def patch_probe(
    networks: Mapping[str, FeatureExtractor],
    sources: DenseSources,
    config: DataConfig,
    spec: ImageSpec,
    device: torch.device,
) -> tuple[list[Row], list[str]]:
    """A row for each network, and notes: as :func:`isometry.evaluation.dense.figures.dense_figures`.

    The class of a training patch is that of most of its pixels (:func:`patch_classes`). The penalty of the probe
    (:func:`isometry.evaluation.probes.fit_linear`) is the one with the best accuracy on the patches of a held-out fifth
    of the training images, the strongest of equal ones. Logits are upsampled bilinearly to the mask. Chance is the
    figure of a mask that is all of the class that most training patches have.
    """
    judged = sources.test if sources.test is not None else sources.val
    if judged is None:
        return [], ["the masks have no test or validation split, so the patch probe is left out"]
    # The images themselves may have labels of their own, without the class 0.
    notes = [
        f"patch probe: {sources.description} of pixels, {sources.class_names[0]} is the first",
        *sources.notes,
    ]
    unreadable: set[str] = set()

    def batches(images: DenseImages, most: int) -> Iterator[DenseBatch]:
        chosen = np.random.default_rng(derive_seed("patch probe")).permutation(len(images))[:most]
        part: Any = DensePart(images, np.sort(chosen).tolist())
        with closing(dense_loaders(replace(sources, val=part), config, spec, seed=0)) as loaders:
            assert loaders.val is not None
            for batch in loaders.val:
                unreadable.update(batch.unreadable)
                yield batch

    preprocess = Preprocess(config, spec, None, device)
    first = next(batches(sources.train, 1))
    grid = common_grid(networks, preprocess.normalise(first)[0], notes)
    if grid is None:
        return [], notes
    features, labels_N, images_N = _training_patches(
        networks, grid, batches(sources.train, TRAINING_IMAGES), preprocess
    )
    if len(np.unique(labels_N)) < 2 or len(np.unique(images_N)) < 5:
        return [], [
            *notes,
            "patch probe: left out, since it needs five training images and patches of two classes",
        ]
    probes = {name: choose_probe(each_ND, labels_N, images_N) for name, each_ND in features.items()}
    classes = len(sources.class_names)
    common = int(np.bincount(labels_N).argmax())
    counts: dict[str, list[np.ndarray]] = {name: [] for name in [*networks, ""]}
    for batch in batches(judged, JUDGED_IMAGES):
        images_BCHW, _ = preprocess.normalise(batch)
        masks = [truth for truth in batch.truths if isinstance(truth, np.ndarray)]
        for name, network in networks.items():
            logits_BKhw = _logits(probes[name], network.map_on(grid, images_BCHW), classes)
            for place, mask_HW in enumerate(masks):
                predicted_HW = _predicted(logits_BKhw[place], batch, place)
                counts[name].append(overlap(predicted_HW, mask_HW, classes))
        counts[""] += [overlap(np.full_like(mask, common), mask, classes) for mask in masks]
    if not np.any(counts[""]):
        return [], [
            *notes,
            "patch probe: left out, since all pixels of the masks that it is judged by are ignored",
        ]
    notes += [f"patch probe: {note}" for note in left_out_of_figures(unreadable)]
    chance = 100 * mean_iou(np.sum(counts.pop(""), 0).ravel())
    return [_row(name, np.stack(found), chance) for name, found in counts.items()], notes


def patch_classes(masks_BHW: Tensor, grid: Grid, classes: int) -> Tensor:
    """The class of most pixels of each patch, int64 (B, h, w), the lowest of equal ones; IGNORED where all are ignored.

    Ignored pixels are not counted. Where the grid does not divide the mask, patches overlap by a pixel.
    """
    shares = [
        F.adaptive_avg_pool2d((masks_BHW == label).double()[:, None], grid)[:, 0] for label in range(classes)
    ]
    most_Bhw, classes_Bhw = torch.stack(shares).max(0)
    # max promises no order among equal values.
    for label in reversed(range(classes)):
        classes_Bhw[shares[label] == most_Bhw] = label
    return classes_Bhw.masked_fill(most_Bhw == 0, IGNORED)


def choose_probe(features_ND: np.ndarray, labels_N: np.ndarray, images_N: np.ndarray) -> Pipeline:
    """The probe with the best penalty, fitted on all patches; ``images_N`` are the numbers of their images."""
    images = np.unique(images_N)
    held = np.random.default_rng(derive_seed("held-out images")).permutation(images)
    inside_N = np.isin(images_N, held[: max(1, round(HELD_OUT * len(images)))])
    trials = []
    for penalty in INVERSE_PENALTIES:
        if len(np.unique(labels_N[~inside_N])) < 2:
            break
        fitted = fit_linear(penalty, features_ND[~inside_N], labels_N[~inside_N])
        trials.append(fitted.score(features_ND[inside_N], labels_N[inside_N]))
    best = INVERSE_PENALTIES[int(np.argmax(trials))] if trials else 1.0
    return fit_linear(best, features_ND, labels_N)


def overlap(predicted_HW: np.ndarray, mask_HW: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of each class that both have, that are predicted, and that are in the mask, int64 (3, K); without ignored
    ones."""
    counted = mask_HW != IGNORED
    predicted, wanted = predicted_HW[counted].astype(np.int64), mask_HW[counted].astype(np.int64)
    sides = (predicted[predicted == wanted], predicted, wanted)
    return np.stack([np.bincount(side, minlength=classes) for side in sides])


def mean_iou(sums_3K: np.ndarray) -> float:
    """mIoU = mean over classes of |P ∩ T| / |P ∪ T|, over the classes that are predicted or in the masks, in [0, 1];
    from the sums of :func:`overlap` over all images, (3·K,)."""
    both_K, predicted_K, wanted_K = sums_3K.reshape(3, -1)
    union_K = predicted_K + wanted_K - both_K
    there_K = union_K > 0
    return float((both_K[there_K] / union_K[there_K]).mean()) if there_K.any() else float("nan")


def _training_patches(
    networks: Mapping[str, FeatureExtractor],
    grid: Grid,
    batches: Iterator[DenseBatch],
    preprocess: Preprocess,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Features (N, D) of each network, classes (N,) and images (N,) of patches that are drawn from each image."""
    features: dict[str, list[np.ndarray]] = {name: [] for name in networks}
    labels: list[np.ndarray] = []
    images: list[np.ndarray] = []
    seen = 0
    for batch in batches:
        images_BCHW, masks_BHW = preprocess.normalise(batch)
        classes_BN = patch_classes(masks_BHW, grid, _classes_in(masks_BHW)).flatten(1).cpu().numpy()
        chosen = [_drawn(row_N, seen + place) for place, row_N in enumerate(classes_BN)]
        for name, network in networks.items():
            tokens_BNC = network.map_on(grid, images_BCHW).flatten(2).mT.cpu().numpy()
            features[name] += [tokens_BNC[place, numbers] for place, numbers in enumerate(chosen)]
        labels += [classes_BN[place, numbers] for place, numbers in enumerate(chosen)]
        images += [np.full(len(numbers), seen + place) for place, numbers in enumerate(chosen)]
        seen += len(chosen)
    joined = {name: np.concatenate(found) for name, found in features.items()}
    return joined, np.concatenate(labels), np.concatenate(images)


def _classes_in(masks_BHW: Tensor) -> int:
    """One more than the highest class."""
    known = masks_BHW[masks_BHW != IGNORED]
    return int(known.max()) + 1 if len(known) else 1


def _drawn(classes_N: np.ndarray, image: int) -> np.ndarray:
    """The numbers of the patches of an image that are trained on."""
    labelled = np.flatnonzero(classes_N != IGNORED)
    return np.random.default_rng(derive_seed("patches", image)).permutation(labelled)[:PATCHES_OF_IMAGE]


def _logits(probe: Pipeline, map_BChw: Tensor, classes: int) -> Tensor:
    """The probe's log-probabilities, float32 (B, K, h, w); -inf for classes that it was not trained on."""
    tokens_NC = map_BChw.flatten(2).mT.flatten(0, 1).cpu().double().numpy()
    found_NK = np.full((len(tokens_NC), classes), -np.inf)
    found_NK[:, probe.classes_] = probe.predict_log_proba(tokens_NC)
    batch, _, *grid = map_BChw.shape
    return torch.from_numpy(found_NK).float().unflatten(0, (batch, *grid)).movedim(3, 1)


def _predicted(logits_Khw: Tensor, batch: DenseBatch, place: int) -> np.ndarray:
    """The class of each pixel of the image; one class at a time, since the image may be large. Classes that were not
    trained have no finite logits."""
    placement, size = batch.placements[place], batch.images.shape[2:]
    best = torch.full(placement.size[::-1], -torch.inf)
    classes = torch.zeros(best.shape, dtype=torch.int64)
    for label in logits_Khw.isfinite().all(2).all(1).nonzero().flatten().tolist():
        large = F.interpolate(logits_Khw[None, None, label], size=size, mode="bilinear")[0]
        values = placement.map_to_image(large)[0]
        classes[values > best] = label
        best = best.maximum(values)
    return classes.numpy()


def _row(name: str, counts_N3K: np.ndarray, chance: float) -> Row:
    flat_NM = counts_N3K.reshape(len(counts_N3K), -1)
    low, high = bootstrap(flat_NM, mean_iou)
    value = 100 * mean_iou(flat_NM.sum(0))
    figures = {"value": value, "low": 100 * low, "high": 100 * high, "chance": chance}
    return {"figure": FIGURE, "of": name, **figures, "images": len(counts_N3K)}
