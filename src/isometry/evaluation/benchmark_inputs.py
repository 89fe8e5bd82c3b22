"""Networks of `isometry bench`, in all their variants, and the images that they are measured on."""

from collections.abc import Iterator
from contextlib import AbstractContextManager as Context
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import nn

from isometry.config import RunConfig
from isometry.data import Batch, Preprocess, find_sources
from isometry.distributed import World
from isometry.errors import UserError
from isometry.evaluation.changed_images import changed_images
from isometry.evaluation.saved_network import (
    ImagesConfig,
    SavedNetwork,
    evaluation_images,
    images_named,
    open_named,
    sources_for,
)
from isometry.evaluation.variants import DENSE, IMAGES_TIMED, EvaluationImages, before_pruning, variants_of
from isometry.models.spec import image_spec, pretrained_cfg


@dataclass(frozen=True)
class BenchmarkInput:
    """A network that is measured, in all its variants, with its images."""

    name: str
    model: str
    """timm's name of its architecture."""
    data: str
    """A description of the images."""
    variants: dict[str, nn.Module]
    dataset: EvaluationImages
    untrained: list[str]
    """Variants with random weights, whose accuracy is meaningless."""
    notes: list[str]


@contextmanager
def benchmark_input(name: str, options: ImagesConfig, device: torch.device) -> Iterator[BenchmarkInput]:
    """The network in a folder or of a timm name, with the options' images, else those of its run, else random ones.

    Raises:
        UserError: no network of that name, a detector or segmentation network, or a folder without matching images.
    """
    _refuse_dense(name)
    saved = open_named(name, command="bench")
    dense, note = before_pruning(saved.network, saved.folder, saved.config) if saved.folder else (None, "")
    images, data, notes = _images(saved, options, device)
    with images as dataset:
        yield BenchmarkInput(
            name.removeprefix("local-dir:"),
            str(pretrained_cfg(saved.network).get("architecture")),
            data,
            variants_of(saved.network.to(device), None if dense is None else dense.to(device)),
            dataset,
            untrained=[DENSE] if note else [],
            notes=[*saved.notes, *([note] if note else []), *notes],
        )


def _refuse_dense(name: str) -> None:
    """Raises UserError for a network of boxes or masks: its folder's backbone would be measured in its place."""
    from isometry.models.dense.saving import dense_folder  # loads torchvision, which takes a while

    if (network := dense_folder(name.removeprefix("local-dir:"))) is None:
        return
    backbone = network.absolute().parent / "student"
    instead = f"give its backbone instead: {backbone}" if backbone.is_dir() else "give its backbone alone"
    raise UserError(
        f"bench {name}: finds boxes or masks; {instead}; isometry export {name} --to onnx times the whole network"
    )


def _images(
    saved: SavedNetwork, options: ImagesConfig, device: torch.device
) -> tuple[Context[EvaluationImages], str, list[str]]:
    """The images, their description, and notes."""
    if saved.folder is None and options.data_dir is None and not options.dataset:
        return nullcontext(random_images(saved.network, device)), "random images", []
    config = images_named(saved, options, command="bench")
    notes = []
    if saved.folder is not None:
        sources = sources_for(saved, config, command="bench")
        notes = changed_images(saved, config, sources)
    else:
        sources, classes = find_sources(config), saved.network.num_classes
        other = sources.num_classes not in (None, classes)
        if other and not saved.notes:
            theirs = sources.num_classes
            notes = [
                f"{saved.name}: has {classes} classes and the data {theirs}, so accuracy is not measured"
            ]
        # Accuracy of an untrained network, or on other classes than its own, is meaningless.
        if other or saved.notes:
            sources = replace(sources, num_classes=None, class_names=None, labelled=False)
    spec = image_spec(saved.network, config.img_size)
    images = evaluation_images(saved.network, sources, spec, config, World(0, 1, device))
    return images, sources.description, notes


def random_images(network: nn.Module, device: torch.device) -> EvaluationImages:
    """Unlabelled images of random pixels, in the network's input size."""
    spec = image_spec(network)
    generator = torch.Generator().manual_seed(0)
    size = (IMAGES_TIMED, *spec.input_size)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    nowhere = torch.full((IMAGES_TIMED,), -1)
    preprocess = Preprocess(RunConfig(), spec, None, device)
    return EvaluationImages(
        lambda: [Batch(pixels, nowhere, nowhere, [])], preprocess, spec, "random", labelled=False
    )
