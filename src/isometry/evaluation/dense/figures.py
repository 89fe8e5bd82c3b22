"""The dense figures of a network, of the same network before training, and of its teacher, on the same images."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from isometry.data import ImageSpec
from isometry.errors import UserError
from isometry.evaluation.dense.correspondence import matches
from isometry.evaluation.dense.feature_extractor import TEACHER, TRAINED, FeatureExtractor, common_grid
from isometry.evaluation.dense.intervals import mean_share, pooled_share
from isometry.evaluation.dense.kept_geometry import neighbours_compared, patch_agreement, shared
from isometry.evaluation.dense.neighbours import nearest
from isometry.evaluation.dense.retrieval import figures as retrieval_figures
from isometry.evaluation.dense.retrieval import rank
from isometry.evaluation.scores import Row
from isometry.models.taps import Grid
from isometry.seeding import derive_seed

IMAGES_OF_PATCHES = 500
"""Most images whose patches are looked at, drawn at random."""
PATCHES_TOGETHER = 8192
"""About so many patches of several images are neighbours of each other."""
BATCH = 32


@dataclass(frozen=True)
class Seen:
    """What networks made of N images: a vector each, (N, D) by network, labels (N,); and a sample of the images."""

    pooled: dict[str, Tensor]
    labels: np.ndarray
    sample: Tensor
    indices: list[int]

    def batches(self) -> Iterator[tuple[Tensor, list[int]]]:
        """The sample in batches, with the images' indices."""
        for first in range(0, len(self.indices), BATCH):
            yield self.sample[first : first + BATCH], self.indices[first : first + BATCH]


@torch.no_grad()
def dense_figures(
    networks: Mapping[str, FeatureExtractor],
    pairs: Iterable[tuple[Tensor, Tensor]],
    spec: ImageSpec,
    labelled: bool,
) -> tuple[list[Row], list[str]]:
    """The figures and notes on what was left out.

    A row for each figure and network: ``figure``; ``of``, the network's name; ``value``, ``low`` and ``high`` of its
    95 % interval, and ``chance`` (percent); ``images``; for kept geometry ``k``, the number of neighbours.

    Args:
        networks: by the names in :mod:`isometry.evaluation.dense.feature_extractor`; the trained one is needed.
        pairs: all images, normalised for the first network, and their labels, in batches.
        spec: of the images.
        labelled: whether the labels are known.

    Raises:
        UserError: features that are not finite, or fewer than three images.
    """
    seen = _see(networks, pairs)
    rows: list[Row] = []
    notes: list[str] = []
    if labelled:
        rows += _retrieval(seen, notes)
    else:
        notes.append("the images have no labels, so retrieval is left out")
    grid = common_grid(networks, seen.sample[:1], notes)
    if grid is not None:
        rows += _correspondence(networks, seen, spec, grid)
    if TEACHER in networks:
        rows += _kept_of_images(seen)
        rows += _kept_of_patches(networks, seen, grid) if grid is not None else []
    if grid is not None and len(seen.indices) < len(seen.labels):
        notes.append(f"figures of patches are of {len(seen.indices)} of the {len(seen.labels):,} images")
    order = list(dict.fromkeys(row["figure"] for row in rows))
    return sorted(rows, key=lambda row: order.index(row["figure"])), notes


def _see(networks: Mapping[str, FeatureExtractor], pairs: Iterable[tuple[Tensor, Tensor]]) -> Seen:
    random = np.random.default_rng(derive_seed("images of patches"))
    pooled: dict[str, list[Tensor]] = {name: [] for name in networks}
    labels: list[int] = []
    sample: dict[int, Tensor] = {}
    for images_BCHW, labels_B in pairs:
        for name, network in networks.items():
            pooled[name].append(network.features(images_BCHW)[1])
        for image_CHW, label in zip(images_BCHW, labels_B.tolist(), strict=True):
            if len(sample) == IMAGES_OF_PATCHES:
                # Each image so far stays with the same probability (algorithm R of J. S. Vitter, 1985).
                place = int(random.integers(len(labels) + 1))
                if place < IMAGES_OF_PATCHES:
                    del sample[list(sample)[place]]
            if len(sample) < IMAGES_OF_PATCHES:
                sample[len(labels)] = image_CHW.clone()
            labels.append(label)
    if len(labels) < 3:
        raise UserError(
            f"--dense: neighbours need 3 images, and the split has {len(labels)}; name more with --data-dir"
        )
    seen = Seen(
        {name: torch.cat(found) for name, found in pooled.items()},
        np.array(labels),
        torch.stack(list(sample.values())),
        list(sample),
    )
    for name, features_ND in seen.pooled.items():
        if not features_ND.isfinite().all():
            raise UserError(f"--dense: the features of the network ({name}) are not all finite")
    return seen


def _retrieval(seen: Seen, notes: list[str]) -> Iterator[Row]:
    for name, features_ND in seen.pooled.items():
        ranked = rank(features_ND, seen.labels)
        alone = ranked.images - len(ranked.best)
        if not len(ranked.best):
            notes.append("no class has two images, so retrieval is left out")
            return
        if alone and name == TRAINED:
            notes.append(
                f"retrieval: {alone} of {ranked.images:,} images are alone in their class: no queries"
            )
        for figure, row in retrieval_figures(ranked).items():
            yield {"figure": figure, "of": name, **row}


def _correspondence(
    networks: Mapping[str, FeatureExtractor], seen: Seen, spec: ImageSpec, grid: Grid
) -> Iterator[Row]:
    maps = {name: partial(network.map_on, grid) for name, network in networks.items()}
    right, trials_N = matches(maps, seen.batches(), spec, grid)
    chance = 100 / (grid[0] * grid[1])
    for name, hits_N in right.items():
        yield {"figure": "correspondence", "of": name, **pooled_share(hits_N, trials_N), "chance": chance}


def _kept_of_images(seen: Seen) -> Iterator[Row]:
    others = len(seen.labels) - 1
    count = neighbours_compared(others)
    theirs_NK = nearest(seen.pooled[TEACHER], count)
    for name, features_ND in seen.pooled.items():
        if name != TEACHER:
            yield _kept("images", name, shared(nearest(features_ND, count), theirs_NK), count, others)


def _kept_of_patches(networks: Mapping[str, FeatureExtractor], seen: Seen, grid: Grid) -> Iterator[Row]:
    tokens = {
        name: torch.cat([network.map_on(grid, images).flatten(2).mT.cpu() for images, _ in seen.batches()])
        for name, network in networks.items()
    }
    patches = grid[0] * grid[1]
    together = min(len(seen.indices), max(2, PATCHES_TOGETHER // patches))
    within, among = neighbours_compared(patches - 1), neighbours_compared(together * patches - 1)
    # Spread over the sample: in a folder per class, neighbouring images are of one class.
    step = len(seen.indices) // together
    spread = slice(0, step * together, step)
    theirs_SNC = tokens.pop(TEACHER)
    theirs_PK = nearest(theirs_SNC[spread].flatten(0, 1), among)
    for name, ours_SNC in tokens.items():
        shares_S = patch_agreement(ours_SNC, theirs_SNC, within)
        yield _kept("patches", name, shares_S, within, patches - 1)
        shares_P = shared(nearest(ours_SNC[spread].flatten(0, 1), among), theirs_PK)
        shares_S = shares_P.unflatten(0, (together, patches)).mean(1)
        yield _kept("all patches", name, shares_S, among, together * patches - 1)


def _kept(what: str, name: str, shares_N: Tensor, count: int, others: int) -> Row:
    row = mean_share(shares_N.cpu().numpy())
    return {
        "figure": f"kept neighbours, {what}",
        "of": name,
        **row,
        "chance": 100 * count / others,
        "k": count,
    }
