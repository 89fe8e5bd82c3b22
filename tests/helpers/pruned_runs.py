"""A small network to prune, and command lines that prune it."""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import isometry.models.cifar_resnet  # noqa: F401 - registers its networks with timm
from helpers.runs import DIGITS
from isometry.models.build import save_model

SMALL = {"layers": (1, 1, 1), "channels": (8, 16, 16), "in_chans": 1, "num_classes": 10}
"""Of a cifar_resnet20: six convolutions that can have gates."""

SIZED = [*DIGITS, "--img-size", "16", "--opt", "sgd", "--lr", "0.02", "--weight-decay", "0"]
"""Six steps of 150 images an epoch; without decay, which would move what has no gradient."""


def small_network(**more: Any) -> nn.Module:
    """A random network that is sure of itself, so that some images are easy and some are hard."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("cifar_resnet20", **{**SMALL, **more})
        with torch.no_grad():
            network.fc.weight.mul_(8)
    return network.eval()


def dense_run(folder: Path, network: nn.Module | None = None) -> Path:
    """A folder as a run leaves it, with a network in ``student/``; returns the folder."""
    network = small_network() if network is None else network
    data = {"input_size": (1, 16, 16), "mean": (0.5,), "std": (0.5,)}
    save_model(network, folder / "student", [str(digit) for digit in range(10)], data)
    return folder
