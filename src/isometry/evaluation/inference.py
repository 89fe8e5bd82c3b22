"""Predictions and features of a network over a split."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from isometry.config import DataConfig
from isometry.data import Batch, ImageSpec, Preprocess, Sources, make_loaders
from isometry.data.splits import Part
from isometry.evaluation.scores import Predictions
from isometry.models.finite import check_answers
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

    With ``skip_bad_images``, names of unreadable images, which are left out, are added to ``unreadable``.
    """
    preprocess = Preprocess(config, spec, sources.num_classes if sources.labelled else None, device)

    def normalised(batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            if unreadable is not None:
                unreadable.update(batch.unreadable)
            yield preprocess.normalise(batch)

    # The seed matters to training batches only.
    with closing(make_loaders(replace(sources, val=part), config, spec, seed=0)) as loaders:
        assert loaders.val is not None
        yield normalised(loaders.val)


@torch.no_grad()
def predict(network: nn.Module, pairs: Pairs) -> Predictions:
    """Predictions of a network with K classes, in eval mode, on labelled images.

    Raises:
        UserError: answers to the first images that are not finite.
    """
    batches: list[tuple[Tensor, ...]] = []
    classes = 0
    for images_BCHW, labels_B in pairs:
        logits_BK = network(images_BCHW)
        if not batches:
            check_answers([logits_BK], "the network")
        probabilities_BK = logits_BK.double().softmax(1)
        classes = probabilities_BK.shape[1]
        best_B5 = probabilities_BK.topk(min(5, classes), dim=1)
        within_five_B = (best_B5.indices == labels_B[:, None]).any(1)
        batches.append((labels_B, best_B5.indices[:, 0], best_B5.values[:, 0], within_five_B))
    labels, predictions, confidences, within_five = map(_joined, zip(*batches, strict=True))
    return Predictions(labels, predictions, confidences, within_five, classes)


@torch.no_grad()
def features_of(network: nn.Module, pairs: Pairs) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features of images by name, float32 (N, D), and the images' classes, int64 (N,).

    ``POOLED``: the last block's feature map (after the final norm, where timm applies one), averaged over its patches,
    without prefix tokens: trained by the terms on tokens. ``HEAD``: the classifier's input, which also depends on
    layers that only terms on logits train (a class token, a convolution in the head). If an architecture has only one
    of them, or both are equal, there is one. ``network`` is a timm model in eval mode.
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
    pooled, head = features.get(POOLED), features[HEAD]
    if pooled is not None and pooled.shape == head.shape and np.allclose(pooled, head, rtol=1e-4, atol=1e-5):
        del features[HEAD]
    return features, _joined(labels)


def _joined(batches: Sequence[Tensor]) -> np.ndarray:
    return torch.cat(list(batches)).cpu().numpy()
