"""Small detectors and segmentation networks with random weights, and targets of a few boxes."""

from typing import Any

import timm
import torch
from torch import Tensor

from isometry.data import ImageSpec
from isometry.data.dense.annotations import Task
from isometry.models.dense.build import build_dense
from isometry.models.dense.network import DenseNetwork

BACKBONES: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 96},
    "resnet18": {"channels": (64, 12, 16, 20), "layers": (1, 1, 1, 1)},
    "convnext_atto": {"dims": (8, 8, 16, 24), "depths": (1, 1, 1, 1)},
    "cifar_resnet20": {"layers": (1, 1, 1)},
}
"""A plain network, and hierarchical ones with three kinds of norms and stems."""

CLASSES = ["cat", "dog", "eel"]


def backbone_of(name: str, seed: int = 0, channels: int = 3) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(name, in_chans=channels, num_classes=7, **BACKBONES[name])


def dense_network(
    task: Task, name: str = "vit_tiny_patch16_224", seed: int = 0, channels: int = 3
) -> DenseNetwork:
    """In eval mode, for images of 96 pixels; its heads are not at their first values, which hide much."""
    spec = ImageSpec((channels, 96, 96), (0.5,) * channels, (0.25,) * channels, "bilinear")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_dense(task, backbone_of(name, seed, channels), CLASSES, spec, channels=32, convs=1)
        with torch.no_grad():
            for key, value in network.named_parameters():
                if key.startswith("fcos.head") and value.dim() == 4:
                    value.normal_(0, 0.1)
                elif "cls_logits.bias" in key:
                    value.fill_(-1.0)
    return network.eval()


def images_of(count: int, channels: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(count, channels, 96, 96, generator=torch.Generator().manual_seed(seed))


def targets_of(*boxes: list[list[float]]) -> list[dict[str, Tensor]]:
    """For each image its boxes, with labels 0, 1, 2, 0, ..."""
    return [
        {
            "boxes": torch.tensor(each, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.arange(len(each)) % len(CLASSES),
        }
        for each in boxes
    ]
