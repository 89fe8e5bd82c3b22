"""Predictions and features of a network over a split."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from isometry.config import DataConfig
from isometry.data import Batch, ImageSpec, Preprocess, Sources, make_loaders
from isometry.data.splits import Part
from isometry.evaluation.scores import Predictions
from isometry.models.taps import pooled_features

POOLED, HEAD = "last block, mean", "before the head"
"""Names of the features for probes."""

Pairs = Iterable[tuple[Tensor, Tensor]]
"""Normalised images (B, C, H, W) and their classes (B,), on the network's device."""


@contextmanager
def labelled_batches(
    part: Part,
    sources: Sources,
    spec: ImageSpec,
    config: DataConfig,
    device: torch.device,
    unreadable: set[str] | None = None,
) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
    """All images of ``part`` without augmentation, as a network of this ``spec`` expects them.

    With ``skip_bad_images``, names of unreadable images that were replaced are added to ``unreadable``.
    """
    # The seed matters to training batches only.
    loaders = make_loaders(replace(sources, val=part), config, spec, seed=0)
    preprocess = Preprocess(config, spec, sources.num_classes if sources.labelled else None, device)
    try:
        assert loaders.val is not None
        yield (_noting(batch, unreadable, preprocess) for batch in loaders.val)
    finally:
        loaders.close()


def _noting(batch: Batch, unreadable: set[str] | None, preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    if unreadable is not None:
        unreadable.update(batch.unreadable)
    return preprocess.normalise(batch)


@torch.no_grad()
def predict(network: nn.Module, pairs: Pairs) -> Predictions:
    """Predictions of a network with K classes, in eval mode, on labelled images."""
    labels, predictions, confidences, within_five = [], [], [], []
    classes = 0
    for images_BCHW, labels_B in pairs:
        probabilities_BK = network(images_BCHW).double().softmax(1)
        classes = probabilities_BK.shape[1]
        best_B5 = probabilities_BK.topk(min(5, classes), dim=1)
        labels.append(labels_B)
        predictions.append(best_B5.indices[:, 0])
        confidences.append(best_B5.values[:, 0])
        within_five.append((best_B5.indices == labels_B[:, None]).any(1))
    return Predictions(
        _joined(labels), _joined(predictions), _joined(confidences), _joined(within_five), classes
    )


@torch.no_grad()
def features_of(network: nn.Module, pairs: Pairs) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features of images by name, float32 (N, D), and the images' classes, int64 (N,).

    ``POOLED``: the last block's feature map (after the final norm, where timm applies one), averaged over its patches,
    without prefix tokens: trained by the terms on tokens. ``HEAD``: the classifier's input, which also depends on
    layers that only terms on logits train (a class token, a convolution in the head). If an architecture has only one
    of them, or both are equal, there is one.

    Args:
        network: a timm model in eval mode.
        pairs: as yielded by :func:`labelled_batches`.
    """
    found: dict[str, list[Tensor]] = {POOLED: [], HEAD: []}
    labels = []
    for images_BCHW, labels_B in pairs:
        pooled_BC, given_BD = pooled_features(network, images_BCHW)
        found[HEAD].append(given_BD.float())
        if pooled_BC is not None:
            found[POOLED].append(pooled_BC.float())
        labels.append(labels_B)
    features = {name: _joined(batches) for name, batches in found.items() if batches}
    if len(features) == 2 and _equal(features[POOLED], features[HEAD]):
        del features[HEAD]
    return features, _joined(labels)


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and np.allclose(first, second, rtol=1e-4, atol=1e-5)


def _joined(batches: list[Tensor]) -> np.ndarray:
    return torch.cat(batches).cpu().numpy()
