"""One small member of every architecture that grows, with random weights everywhere."""

from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

from isometry.config import GrowConfig, RunConfig
from isometry.grow.architectures import Size, find_architecture
from isometry.grow.surgery import Surgery, plan_surgery
from isometry.grow.weight_transfer import TrainingState


@dataclass(frozen=True)
class Tiny:
    """A full-size model, and what the tests know of it by hand.

    Attributes:
        name: timm's.
        kwargs: its constructor's arguments.
        img_size: side of its images.
        holders: what holds its blocks.
        depths: depth before and after growth.
        zeros: names within a block of the parameters that make it the identity at 0.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    img_size: int = 16
    holders: tuple[str, ...] = ("blocks",)
    depths: tuple[tuple[int, ...], tuple[int, ...]] = ((4,), (6,))
    zeros: tuple[str, ...] = ()

    def build(self, **changes: Any) -> nn.Module:
        return timm.create_model(self.name, num_classes=5, **{**self.kwargs, **changes}).eval()

    def images(self) -> Tensor:
        return torch.randn(3, 3, self.img_size, self.img_size, generator=torch.Generator().manual_seed(9))

    def config(self, **changes: Any) -> RunConfig:
        return RunConfig(model=self.name, model_kwargs=self.kwargs, num_classes=5, **changes)


PLAIN = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "num_heads": 6, "mlp_ratio": 2, "depth": 6}
SWIN = {"img_size": 32, "window_size": 2, "embed_dim": 12, "depths": (2, 2, 3, 1), "num_heads": (1, 2, 3, 4)}
SWIN_BLOCKS = tuple(f"layers.{stage}.blocks" for stage in range(4))
PROJECTIONS = ("attn.proj.weight", "attn.proj.bias", "mlp.fc2.weight", "mlp.fc2.bias")
NORMS = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
RESNET_BLOCKS = ("layer1", "layer2", "layer3", "layer4")
CONVNEXT_BLOCKS = tuple(f"stages.{stage}.blocks" for stage in range(4))

MODELS = {
    "vit": Tiny("vit_tiny_patch16_224", PLAIN, zeros=PROJECTIONS),
    "vit, norms after": Tiny(
        "vit_tiny_patch16_224", {**PLAIN, "block_fn": ResPostBlock, "init_values": 0.3}, zeros=NORMS
    ),
    "deit": Tiny("deit_tiny_distilled_patch16_224", PLAIN, zeros=PROJECTIONS),
    "deit3": Tiny("deit3_small_patch16_224", PLAIN, zeros=("ls1.gamma", "ls2.gamma")),
    "cait": Tiny("cait_xxs24_224", {**PLAIN, "depth_token_only": 1}, zeros=("gamma_1", "gamma_2")),
    "swin": Tiny(
        "swin_tiny_patch4_window7_224",
        {**SWIN, "patch_size": 2},
        32,
        SWIN_BLOCKS,
        ((1, 2, 2, 1), (2, 2, 3, 1)),
        PROJECTIONS,
    ),
    "swinv2": Tiny(
        "swinv2_tiny_window8_256",
        {**SWIN, "patch_size": 2},
        32,
        SWIN_BLOCKS,
        ((1, 2, 2, 1), (2, 2, 3, 1)),
        NORMS,
    ),
    "resnet": Tiny(
        "resnet18",
        {"channels": (64, 12, 16, 20), "layers": (2, 3, 2, 3)},
        32,
        RESNET_BLOCKS,
        ((1, 2, 2, 2), (2, 3, 2, 3)),
        ("bn2.weight", "bn2.bias"),
    ),
    "resnet, bottlenecks": Tiny(
        "resnet50",
        {"channels": (6, 8, 4, 12), "layers": (3, 1, 2, 3)},
        32,
        RESNET_BLOCKS,
        ((2, 1, 2, 2), (3, 1, 2, 3)),
        ("bn3.weight", "bn3.bias"),
    ),
    "convnext": Tiny(
        "convnext_tiny",
        {"dims": (8, 8, 24, 32), "depths": (2, 1, 3, 1)},
        32,
        CONVNEXT_BLOCKS,
        ((1, 1, 2, 1), (2, 1, 3, 1)),
        ("gamma",),
    ),
    "convnextv2": Tiny(
        "convnextv2_tiny",
        {"dims": (8, 8, 24, 32), "depths": (2, 1, 3, 1)},
        32,
        CONVNEXT_BLOCKS,
        ((1, 1, 2, 1), (2, 1, 3, 1)),
        ("mlp.fc2.weight", "mlp.fc2.bias"),
    ),
}

RESNETS = ("resnet", "resnet, bottlenecks")

WIDTHS: dict[str, tuple[tuple[int, ...], ...]] = {
    "vit": ((12,), (8,), (4,)),
    "deit": ((12,),),
    "deit3": ((8,),),
    "cait": ((12,), (4,)),
    "resnet": ((64, 8, 16, 8),),
    "resnet, bottlenecks": ((4, 6, 3, 12), (2, 4, 2, 6)),
    "convnext": ((4, 8, 8, 16),),
    "convnextv2": ((4, 4, 8, 8),),
}
"""Smaller widths: a half, a third, a sixth; in ResNets, ratios of 1, 1.5, 2.5 and more, too."""


@dataclass
class Growth:
    """A surgery on a tiny model, with networks of both sizes, random in everything."""

    tiny: Tiny
    surgery: Surgery
    small: nn.Module
    large: nn.Module

    def build(self, size: Size) -> nn.Module:
        return self.surgery.build(size)

    def transfer(self, average: dict[str, Tensor] | None = None) -> TrainingState:
        """The state for the large network, from the weights of the small one."""
        return self.surgery.transfer(TrainingState(self.small.state_dict(), average), self.large)


def growth_of(
    name: str, *, depth: bool = False, width: tuple[int, ...] | None = None, **operators: Any
) -> Growth:
    """The growth of a tiny model to full size: in depth from its smaller one, in width, or both."""
    tiny = MODELS[name]
    full = tiny.build()
    architecture = find_architecture(full, tiny.name)
    after = architecture.size(full)
    before = Size(tiny.depths[0] if depth else after.depth, width or after.width)

    def build(size: Size) -> nn.Module:
        return tiny.build(**architecture.arguments(full, size))

    surgery = plan_surgery(GrowConfig(**operators), architecture, before, after, seed=5, build=build)
    growth = Growth(tiny, surgery, build(before), full)
    randomise(growth.small, 1)
    randomise(growth.large, 2)
    return growth


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """No weight, scale or statistic at a value that would hide a mistake; logits of order 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        uniform = torch.rand(tensor.shape, generator=generator)
        normal = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() > 1:
            tensor.copy_(normal / max(1, tensor[0].numel()) ** 0.5)
        elif name.endswith(("bias", "running_mean")):
            tensor.copy_(0.3 * normal)
        else:
            tensor.copy_(0.4 + uniform)


def averaged(growth: Growth) -> dict[str, Tensor]:
    """A moving average that differs from the small network in everything."""
    model = growth.build(growth.surgery.before)
    randomise(model, 3)
    return model.state_dict()


@torch.no_grad()
def logits(model: nn.Module, tiny: Tiny, weights: dict[str, Tensor] | None = None) -> Tensor:
    """Of the model in eval mode, with these weights."""
    if weights is not None:
        model.load_state_dict(weights)
    return model.eval()(tiny.images())
