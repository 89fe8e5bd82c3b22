"""A detector or a segmentation network on a backbone."""

from typing import Any

import timm
import torch
from timm.models import get_model_args
from torch import nn

from isometry.data import ImageSpec
from isometry.data.dense.annotations import Task
from isometry.errors import UserError
from isometry.models.dense.network import DenseNetwork
from isometry.models.spec import architecture

CHANNELS = 64
"""Of each level of the pyramid. FCOS has 256 on images of 800 pixels; on small ones the head would cost more than the
backbone."""
CONVS = 2
"""Convolutions of each of the two towers of a detector's head; FCOS has four on large images."""


def build_dense(
    task: Task,
    backbone: nn.Module,
    class_names: list[str],
    spec: ImageSpec,
    *,
    channels: int = CHANNELS,
    convs: int = CONVS,
) -> DenseNetwork:
    """A detector or a segmentation network whose pyramid and heads are random, in training mode.

    Args:
        task: ``detect`` or ``segment``.
        backbone: a timm model with its weights, which becomes a part of the network; its classifier is removed.
        class_names: of the data; for ``segment`` of every value of a mask but 255, so with the background's.
        spec: the images, at the network's size.
        channels: of each level of the pyramid, a multiple of 32.
        convs: convolutions of each tower of a detector's head.

    Raises:
        UserError: the backbone was pruned, or timm gives no feature maps of its architecture.
    """
    backbone.reset_classifier(0)  # type: ignore[operator]
    _check_rebuilds(backbone)
    # Imported here: torchvision's detectors take a while to load.
    if task == "detect":
        from isometry.models.dense.detector import Detector

        return Detector(backbone, class_names, spec, channels, convs)
    from isometry.models.dense.segmenter import Segmenter

    return Segmenter(backbone, class_names, spec, channels)


def backbone_arguments(backbone: nn.Module) -> dict[str, Any]:
    """Arguments of timm's constructor that build it again, as JSON has them."""
    found = get_model_args(backbone).items()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found}


def _check_rebuilds(backbone: nn.Module) -> None:
    """Raises UserError for a network that timm can't build: one with gates, or with channels cut out."""
    name = architecture(backbone)
    with torch.random.fork_rng(devices=[]):
        again = timm.create_model(name, pretrained=False, **get_model_args(backbone))
    shapes, wanted = (
        {key: value.shape for key, value in each.state_dict().items()} for each in (backbone, again)
    )
    if shapes != wanted:
        raise UserError(
            f"{name}: was pruned, and timm has no network of its shape to put a head on; "
            "give the network from before pruning"
        )
