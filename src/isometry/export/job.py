"""What all exports share: the request, and the images to check it on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from rich.console import Console

from isometry.config import DataConfig
from isometry.data import ImageSpec, Sources, find_sources
from isometry.distributed import World
from isometry.evaluation.changed_images import changed_images
from isometry.evaluation.saved_network import (
    ImagesConfig,
    SavedNetwork,
    check_sources,
    evaluation_images,
    head_was_trained,
    images_named,
)
from isometry.evaluation.timing import Row
from isometry.evaluation.variants import EvaluationImages
from isometry.models.spec import image_spec, pretrained_cfg
from isometry.report.terminal import say

BATCH_SIZES = (1, 8)
"""Batch sizes at which an export is checked and timed."""
IMAGES = 64
"""Distinct evaluation images on which it is checked and timed."""


@dataclass(frozen=True)
class Export:
    """An export request, with the options of :class:`isometry.cli.export.ExportConfig`."""

    saved: SavedNetwork
    images: ImagesConfig
    threads: int | None
    seconds: float
    out: str
    console: Console

    @property
    def name(self) -> str:
        """The request as text, for error messages."""
        return f"export {self.saved.name}"

    @property
    def architecture(self) -> str:
        """timm's name of the network."""
        return str(pretrained_cfg(self.saved.network).get("architecture"))

    def say(self, text: str, style: str = "") -> None:
        """Prints a line."""
        say(self.console, text, style)


def input_of(spec: ImageSpec, config: DataConfig) -> Row:
    """All that makes a file into an input, named as in timm: ``shape`` (C, H, W), ``mean``, ``std``, ``interpolation``,
    ``crop_pct``, ``crop_mode``; ``exif``, and ``pixel_range`` where it is set."""
    ranged = {"pixel_range": config.pixel_range} if config.pixel_range else {}
    return {
        "shape": list(spec.input_size),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
        "crop_pct": config.crop_pct or spec.crop_pct,
        "crop_mode": spec.crop_mode,
        "exif": config.exif,
        **ranged,
    }


@dataclass(frozen=True)
class ExportImages:
    """The images on which an export is evaluated: ``dataset`` is the evaluation split of ``sources``.

    ``config`` is the run's, on these images. ``sources`` have no labels where the network's outputs are no classes that
    anyone trained.
    """

    config: DataConfig
    sources: Sources
    spec: ImageSpec
    dataset: EvaluationImages


@contextmanager
def export_images(job: Export, device: torch.device) -> Iterator[ExportImages]:
    """The options' images, else the run's.

    Raises:
        UserError: no images, no evaluation split, or other classes than the network's.
    """
    config = images_named(job.saved, job.images, command="export")
    sources = find_sources(config)
    if not (job.saved.network.num_classes and head_was_trained(job.saved)):
        sources = replace(sources, num_classes=None, class_names=None, labelled=False)
    check_sources(job.saved, sources, command="export")
    for note in changed_images(job.saved, config, sources):
        job.say(note, "yellow")
    spec = image_spec(job.saved.network, config.img_size)
    with evaluation_images(job.saved.network, sources, spec, config, World(0, 1, device)) as dataset:
        yield ExportImages(config, sources, spec, dataset)
