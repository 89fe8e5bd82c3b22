"""Saved networks of the digits that are quick to export, and the command as a person gives it."""

from pathlib import Path

import timm
import torch
from torch import nn

from helpers.pruned_runs import small_network
from isometry.cli.main import main
from isometry.models.build import save_model
from isometry.prune.cutting import cut
from isometry.prune.gates import gated_convs
from isometry.prune.saving import save_network
from isometry.prune.sites import add_gates

VIT = {"patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3, "img_size": 8, "in_chans": 1}
CLASSES = [str(digit) for digit in range(10)]
QUICK = ["--dataset", "digits", "--seconds", "0.01"]


def vit_folder(folder: Path, classes: int = 10) -> Path:
    """A random transformer in a folder of timm's kind."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("vit_tiny_patch16_224", **VIT, num_classes=classes).eval()
    data = {
        "input_size": (1, 8, 8),
        "mean": (0.5,),
        "std": (0.25,),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    }
    save_model(network, folder, CLASSES[:classes], data)
    return folder


def gated_network() -> nn.Module:
    """A small ResNet of the digits whose gates differ from image to image."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = add_gates(small_network(), "cifar_resnet20")
        for conv in gated_convs(network).values():
            conv.gate.excite.weight.normal_(0, 0.5, generator=generator)
            conv.gate.excite.bias.uniform_(0.2, 1.5, generator=generator)
            conv.gate.threshold.fill_(0.7)
    return network


def gated_folder(folder: Path) -> Path:
    """A folder of :func:`gated_network`."""
    save_network(gated_network(), folder, CLASSES, {"input_size": (1, 16, 16), "mean": (0.5,), "std": (0.5,)})
    return folder


def cut_folder(folder: Path) -> Path:
    """A folder of a small ResNet that lost half of the channels of one convolution, and has no gates."""
    network = small_network()
    cut(network, {"layer2.0.conv1": torch.arange(16) % 2 == 0})
    save_network(network, folder, CLASSES, {"input_size": (1, 16, 16), "mean": (0.5,), "std": (0.5,)})
    return folder


def export(*words: object) -> int:
    """``isometry export WORDS`` in this process; its exit code."""
    return main(["export", *map(str, words)])


def names_in(folder: Path) -> list[str]:
    """Everything that lies in a folder, hidden names too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
