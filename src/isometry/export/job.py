"""What both exports begin with: what was asked for, and the images that say whether it is right."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console

from isometry.config import RunConfig
from isometry.data import ImageSpec, Sources, find_sources
from isometry.distributed import World
from isometry.errors import UserError
from isometry.evaluation.saved_network import (
    ImagesConfig,
    SavedNetwork,
    evaluation_images,
    head_was_trained,
    images_named,
    sources_for,
)
from isometry.evaluation.variants import EvaluationImages
from isometry.models.spec import pretrained_cfg

Row = dict[str, Any]

BATCH_SIZES = (1, 8)
"""That an export is checked and timed at."""
IMAGES = 64
"""Distinct ones that it is checked and timed on, of those that it is judged by."""


@dataclass(frozen=True)
class Export:
    """What was asked for.

    Attributes:
        saved: the network, and where it came from.
        images: options that name other images than the run's.
        threads: that compute while times are taken; None for torch's own choice.
        seconds: about so long each form is timed at each batch size.
        out: where to; empty for a place in the network's folder.
        console: where a person reads.
    """

    saved: SavedNetwork
    images: ImagesConfig
    threads: int | None
    seconds: float
    out: str
    console: Console

    @property
    def name(self) -> str:
        """The network as it was named, for error messages."""
        return f"export {self.saved.name}"

    @property
    def architecture(self) -> str:
        """timm's name of the network."""
        return str(pretrained_cfg(self.saved.network).get("architecture"))

    def say(self, words: str, style: str = "") -> None:
        """A plain line, whatever it holds."""
        self.console.print(words, style=style, highlight=False, markup=False, soft_wrap=True)


def input_of(spec: ImageSpec) -> Row:
    """The images that a network takes: ``shape`` (C, H, W), ``mean``, ``std``, ``interpolation``, ``crop_pct``."""
    return {
        "shape": list(spec.input_size),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_pct,
    }


@dataclass(frozen=True)
class Judged:
    """The images by which an export is judged.

    Attributes:
        config: the run's, on these images.
        sources: without labels where the network's answers are no classes that anyone trained.
        material: the part that is judged by.
    """

    config: RunConfig
    sources: Sources
    material: EvaluationImages


@contextmanager
def judged_by(job: Export, device: torch.device) -> Iterator[Judged]:
    """The images that the options name, else the run's.

    Raises:
        UserError: no images, or none to judge by, or of other classes than the network's.
    """
    config = images_named(job.saved, job.images, command="export")
    sources = _sources(job.saved, config)
    with evaluation_images(job.saved.network, sources, config, World(0, 1, device)) as material:
        yield Judged(config, sources, material)


def _sources(saved: SavedNetwork, config: RunConfig) -> Sources:
    if saved.network.num_classes and head_was_trained(saved):
        return sources_for(saved, config, command="export")
    sources = replace(find_sources(config), num_classes=None, class_names=None, labelled=False)
    if sources.test is None and sources.val is None:
        raise UserError(
            f"export {saved.name}: the data has no test or validation part; name some with --data-dir"
        )
    return sources
