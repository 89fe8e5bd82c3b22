"""Relation maps and CKA of networks' blocks on the same images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isometry.config import DataConfig
from isometry.data import Batch, Loaders, Preprocess, find_sources, make_loaders
from isometry.functional import linear_cka, relation_map
from isometry.models.spec import image_spec
from isometry.models.taps import BlockPair, Grid, TappedModel, block_count, tokens_on_grid
from isometry.models.teacher import InputAdapter
from isometry.prune.saving import load_network
from isometry.report.records.data import RelationMaps

IMAGES_COMPARED = 64
TOKENS_SHOWN = 96


@torch.no_grad()
def compare_representations(
    pairs: list[BlockPair],
    before: nn.Module,
    after: nn.Module,
    teacher_features: list[Tensor],
    images: Tensor,
) -> dict[str, Any]:
    """The report's relation maps of the tapped blocks and CKA of all blocks, before and after training, on images
    (B, C, H, W) that are normalised for the student; ``teacher_features`` are :func:`block_features` of the same.
    """
    features = {
        "teacher": teacher_features,
        "before": block_features(before.to(images.device), images),
        "after": block_features(after, images),
    }
    return {
        "relations": [_maps_of_pair(pair, features) for pair in pairs],
        "cka_before": _cka_matrix(features["before"], features["teacher"]),
        "cka_after": _cka_matrix(features["after"], features["teacher"]),
        "student_blocks": [str(block + 1) for block in range(len(features["after"]))],
        "teacher_blocks": [str(block + 1) for block in range(len(features["teacher"]))],
    }


@torch.no_grad()
def last_block_maps(folders: dict[str, Path], config: DataConfig) -> dict[str, np.ndarray]:
    """The relation map of each saved model's last block, all of the same validation images and on the same grid.

    Args:
        folders: of the models (see :func:`isometry.prune.saving.load_network`) by label; the first one's images are
            resized for the others.
        config: where the images come from.
    """
    built = {label: load_network(folder) for label, folder in folders.items()}
    specs = {label: image_spec(model) for label, model in built.items()}
    first = next(iter(specs.values()))
    loaders = make_loaders(find_sources(config), config, first, seed=0)
    images = compared_images(loaders, Preprocess(config, first, None, "cpu"))
    last = {
        label: block_features(model, InputAdapter(first, specs[label])(images))[-1]
        for label, model in built.items()
    }
    grid = _coarsest_grid(*last.values())
    return {label: drawn_map(feature, grid) for label, feature in last.items()}


def _coarsest_grid(*features_BCHW: Tensor) -> Grid:
    return min(each.shape[2] for each in features_BCHW), min(each.shape[3] for each in features_BCHW)


def drawn_map(features_BCHW: Tensor, grid: Grid) -> np.ndarray:
    """The cosine relation map of the tokens of the first few images, small enough to display."""
    tokens_BNC = tokens_on_grid(features_BCHW, grid)
    shown = max(2, TOKENS_SHOWN // tokens_BNC.shape[1])
    stride = -(-shown * tokens_BNC.shape[1] // (2 * TOKENS_SHOWN))
    return relation_map(tokens_BNC[:shown, ::stride].flatten(0, 1).float()).cpu().numpy()


def compared_images(loaders: Loaders, preprocess: Preprocess) -> Tensor:
    """The images for the comparison, normalised: the first ones of the validation split, if there is one."""
    part = loaders.val if loaders.val is not None else loaders.train.epoch(0)
    batch = next(iter(part))
    n = min(len(batch), IMAGES_COMPARED)
    return preprocess.normalise(Batch(batch.images[:n], batch.targets[:n], batch.indices[:n], []))[0]


@torch.no_grad()
def block_features(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The float32 features (B, C, H, W) of all of a model's blocks; ``images`` are normalised for it."""
    blocks = list(range(block_count(model, "the model")))
    return [feature.float() for feature in TappedModel(model, blocks).eval()(images)[1]]


def _maps_of_pair(pair: BlockPair, features: dict[str, list[Tensor]]) -> RelationMaps:
    drawn = {
        name: drawn_map(found[pair.teacher.block if name == "teacher" else pair.student.block], pair.grid)
        for name, found in features.items()
    }
    return RelationMaps(
        block=f"block {pair.student.block + 1} ◄ {pair.teacher.block + 1}",
        **drawn,
        gap_before=float(np.mean((drawn["before"] - drawn["teacher"]) ** 2)),
        gap_after=float(np.mean((drawn["after"] - drawn["teacher"]) ** 2)),
    )


def _cka_matrix(student: list[Tensor], teacher: list[Tensor]) -> np.ndarray:
    """CKA of every student block with every teacher block, over tokens on the coarser grid of the two."""
    values = np.zeros((len(student), len(teacher)))
    for row, ours in enumerate(student):
        for column, theirs in enumerate(teacher):
            grid = _coarsest_grid(ours, theirs)
            sides = [tokens_on_grid(side, grid).flatten(0, 1) for side in (ours, theirs)]
            values[row, column] = float(linear_cka(*sides))
    return values
