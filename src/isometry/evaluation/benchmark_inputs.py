"""Networks of `isometry bench`, in all their variants, and the images that they are measured on."""

from collections.abc import Iterator
from contextlib import AbstractContextManager as Context
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from isometry.config import RunConfig
from isometry.data import Batch, Preprocess, Sources, find_sources
from isometry.distributed import World
from isometry.evaluation.saved_network import (
    ImagesConfig,
    SavedNetwork,
    evaluation_images,
    images_named,
    open_named,
    sources_for,
)
from isometry.evaluation.unpruned import before_pruning
from isometry.evaluation.variants import DENSE, IMAGES_TIMED, EvaluationImages, variants_of
from isometry.models.spec import image_spec, pretrained_cfg


@dataclass(frozen=True)
class BenchmarkInput:
    """A network that is measured.

    Attributes:
        name: as given on the command line.
        model: timm's name of its architecture.
        data: a description of its images.
        variants: by name, in eval mode, on the device.
        dataset: its images.
        untrained: variants with random weights, whose accuracy is meaningless.
        notes: remarks for the output.
    """

    name: str
    model: str
    data: str
    variants: dict[str, nn.Module]
    dataset: EvaluationImages
    untrained: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextmanager
def benchmark_input(name: str, options: ImagesConfig, device: torch.device) -> Iterator[BenchmarkInput]:
    """The network of that name, with the options' images, else those of its run, else random ones.

    Args:
        name: a folder or a timm name.
        options: the images.
        device: to compute on.

    Raises:
        UserError: no network of that name, or a folder without matching images.
    """
    saved = open_named(name, command="bench")
    before = None
    if saved.folder is not None:
        before = before_pruning(saved.network, saved.folder, saved.config)
    dense = None if before is None else before.network.to(device)
    note = [before.note] if before is not None and before.note else []
    images, data, notes = _images(saved, options, device)
    with images as dataset:
        yield BenchmarkInput(
            name.removeprefix("local-dir:"),
            str(pretrained_cfg(saved.network).get("architecture")),
            data,
            variants_of(saved.network.to(device), dense),
            dataset,
            untrained=[DENSE] if note else [],
            notes=[*saved.notes, *note, *notes],
        )


def _images(
    saved: SavedNetwork, options: ImagesConfig, device: torch.device
) -> tuple[Context[EvaluationImages], str, list[str]]:
    """The images, their description, and notes."""
    notes: list[str] = []
    if saved.folder is None and options.data_dir is None and not options.dataset:
        return nullcontext(random_images(saved.network, device)), "random images", notes
    config = images_named(saved, options, command="bench")
    if saved.folder is None:
        sources, notes = _for_a_name(saved, find_sources(config))
    else:
        sources = sources_for(saved, config, command="bench")
    spec = image_spec(saved.network, config.img_size)
    return (
        evaluation_images(saved.network, sources, spec, config, World(0, 1, device)),
        sources.description,
        notes,
    )


def _for_a_name(saved: SavedNetwork, sources: Sources) -> tuple[Sources, list[str]]:
    """The images; without labels if the network is untrained or was trained on other classes."""
    classes = int(saved.network.num_classes)  # type: ignore[arg-type]
    other = sources.num_classes not in (None, classes)
    note = (
        f"{saved.name}: has {classes} classes and the data {sources.num_classes}, so accuracy is not measured"
    )
    if not (other or saved.notes):
        return sources, []
    unlabelled = replace(sources, num_classes=None, class_names=None, labelled=False)
    return unlabelled, [] if saved.notes else [note]


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
