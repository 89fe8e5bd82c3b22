"""Small networks of every block that can be pruned, random in everything, and gates that differ over images."""

from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor, nn

import isometry.models.cifar_resnet  # noqa: F401 - registers its networks with timm
from isometry.functional.gates import layer_threshold
from isometry.prune.gates import gated_convs, take_gate_outputs
from isometry.prune.sites import add_gates


@dataclass(frozen=True)
class Small:
    """A small network, and what the tests know of it by hand.

    Attributes:
        name: timm's.
        kwargs: its constructor's arguments.
        cuttable: by name of a convolution, those of the tensors' names before and after it in the plain network: the
            filters', the norm's, the readers'.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    cuttable: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def plain(self, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = timm.create_model(self.name, **self.kwargs)
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.uniform_(module.weight, 0.2, 1.2)
                    nn.init.normal_(module.bias, 0, 0.3)
                    nn.init.normal_(module.running_mean, 0, 0.3)
        return network.eval()

    def gated(self, group: int = 1, seed: int = 0) -> nn.Module:
        """With thresholds so that about half the gates are on, some for every image and some for none."""
        network = add_gates(self.plain(seed), self.name, group)
        generator = torch.Generator().manual_seed(seed + 1)
        convs = gated_convs(network)
        with torch.no_grad():
            for conv in convs.values():
                network(self.images())
                # Saliencies of order 1, or they would grow from layer to layer.
                size = float(conv.gate_output.pooled.square().mean().sqrt().clamp(min=0.1))
                squeeze, excite = conv.gate.squeeze, conv.gate.excite
                squeeze.weight.normal_(0, squeeze.in_features**-0.5 / size, generator=generator)
                squeeze.bias.normal_(0, 0.3, generator=generator)
                excite.weight.normal_(0, excite.in_features**-0.5, generator=generator)
                excite.bias.uniform_(-0.1, 1.6, generator=generator)
                network(self.images())
                conv.gate.threshold.copy_(layer_threshold(conv.gate_output.saliency.mean(0), 0.5))
        take_gate_outputs(list(convs.values()))
        return network

    def images(self, count: int = 6, seed: int = 9) -> Tensor:
        return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def _resnet(block: str, *numbers: int) -> dict[str, tuple[str, str, str]]:
    return {
        f"{block}.conv{n}": (f"{block}.conv{n}", f"{block}.bn{n}", f"{block}.conv{n + 1}") for n in numbers
    }


def _regnet(block: str) -> dict[str, tuple[str, str, str]]:
    return {
        f"{block}.conv{n}": (f"{block}.conv{n}.conv", f"{block}.conv{n}.bn", f"{block}.conv{n + 1}.conv")
        for n in (1, 2)
    }


SIZES = {"layers": (1, 2, 1, 1), "channels": (16, 16, 24, 32), "num_classes": 5}
REGNET = {"depth": 4, "w0": 16, "wa": 16.0, "wm": 1.4, "group_size": 1024}
"""Of four stages, with a block each."""

STAGES = ("layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer4.0")

SMALL = {
    "basic": Small(
        "resnet18", SIZES, {name: at for block in STAGES for name, at in _resnet(block, 1).items()}
    ),
    "bottleneck": Small(
        "resnet50", SIZES, {name: at for block in STAGES for name, at in _resnet(block, 1, 2).items()}
    ),
    "cifar": Small(
        "cifar_resnet20",
        {"layers": (1, 2, 1), "num_classes": 5},
        {name: at for block in STAGES[:4] for name, at in _resnet(block, 1).items()},
    ),
    "regnet": Small(
        "regnetx_002",
        {**REGNET, "num_classes": 5},
        {name: at for block in ("s1.b1", "s2.b1", "s3.b1", "s4.b1") for name, at in _regnet(block).items()},
    ),
}


def random_masks(widths: dict[str, int], group: int = 1, seed: int = 3) -> dict[str, Tensor]:
    """Which channels to keep: about half, whole groups, at least one."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, width in widths.items():
        kept_G = torch.rand(width // group, generator=generator) < 0.5
        kept_G[int(torch.randint(width // group, (), generator=generator))] = True
        masks[name] = kept_G.repeat_interleave(group)
    return masks
