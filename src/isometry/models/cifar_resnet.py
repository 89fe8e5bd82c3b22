"""The ResNets for images of 32 pixels as timm models: ``cifar_resnet20``, ``cifar_resnet32``, ``cifar_resnet56``.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2: a 3×3 stem without
pooling, then three stages of n basic blocks (n = 3, 5, 9: depth 6n+2) with 16, 32 and 64 channels on grids of 32, 16
and 8, a global average pool and one linear layer. Shortcuts have no parameters (option A). Importing this module
registers them with timm. Shape suffixes: B images, C channels, H×W pixels.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional as F


class PaddedShortcut(nn.Module):
    """Option A: every ``stride``-th pixel in both directions, with ``new_channels`` more channels, of zeros."""

    def __init__(self, stride: int, new_channels: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, new_channels

    def forward(self, input_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + new_channels, ⌈H/stride⌉, ⌈W/stride⌉), of the same dtype."""
        kept = input_BCHW[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, 0, self.new_channels))

    def extra_repr(self) -> str:
        """Arguments shown by ``print``."""
        return f"stride={self.stride}, new_channels={self.new_channels}"


class CifarResNet(ResNet):
    """timm's ResNet of basic blocks with the CIFAR stem, stages and shortcuts.

    Args:
        layers: blocks of each of the three stages.
        channels: channels of each stage; the first number is even, and the later ones never shrink.
        in_chans: channels of the images.
        zero_init_last: start each block's last norm at 0; the paper, unlike timm, starts it at 1.
        kwargs: other arguments of timm's ResNet, e.g. ``num_classes``, ``drop_rate``, ``drop_path_rate``.

    Raises:
        ValueError: invalid sizes.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        channels: tuple[int, ...] = (16, 32, 64),
        in_chans: int = 3,
        zero_init_last: bool = False,
        **kwargs: Any,
    ) -> None:
        if not len(layers) == len(channels) == 3 or list(channels) != sorted(channels) or channels[0] % 2:
            raise ValueError(
                f"layers {layers} and channels {channels} must be 3 numbers each, channels rising from an even one"
            )
        # timm's plain stem is always 64 wide; the width of its deep stem can be set to that of the first stage.
        super().__init__(
            BasicBlock,
            layers,
            channels=channels,
            in_chans=in_chans,
            stem_type="deep",
            stem_width=channels[0] // 2,
            zero_init_last=zero_init_last,
            **kwargs,
        )
        norm = self.bn1.weight
        self.conv1 = nn.Conv2d(
            in_chans, channels[0], 3, padding=1, bias=False, device=norm.device, dtype=norm.dtype
        )
        self.maxpool = nn.Identity()
        # Empty, not nn.Identity: timm iterates over a stage's blocks under activation checkpointing.
        self.layer4 = nn.Sequential()
        for stage in (self.layer1, self.layer2, self.layer3):
            first = stage[0]
            if first.downsample is not None:
                new_channels = first.conv1.out_channels - first.conv1.in_channels
                first.downsample = PaddedShortcut(first.stride, new_channels)
        for info in self.feature_info:
            # timm's reductions include the strides of its own stem and pooling.
            info["reduction"] = max(1, info["reduction"] // 4)
        self.init_weights(zero_init_last)

    def forward_intermediates(self, x: Tensor, indices: int | list[int] | None = None, **kwargs: Any) -> Any:
        """As timm's, with relative indices counted over the stem and three stages instead of four."""
        numbers = list(range(len(self.feature_info)))
        if indices is None or isinstance(indices, int):
            taken = numbers[-indices:] if indices else numbers
        else:
            taken = [numbers[index] for index in indices]
        return super().forward_intermediates(x, taken, **kwargs)


CIFAR10 = {
    "url": "",
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "first_conv": "conv1",
    "classifier": "fc",
}
default_cfgs = generate_default_cfgs({f"cifar_resnet{depth}": CIFAR10 for depth in (20, 32, 56)})


def _create(name: str, blocks: int, pretrained: bool, **kwargs: Any) -> CifarResNet:
    sized = {"layers": (blocks, blocks, blocks), **kwargs}
    return build_model_with_cfg(
        CifarResNet, name, pretrained, feature_cfg={"out_indices": (0, 1, 2, 3)}, **sized
    )


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20: 3 blocks a stage, 0.27 M parameters."""
    return _create("cifar_resnet20", 3, pretrained, **kwargs)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32: 5 blocks a stage, 0.46 M parameters."""
    return _create("cifar_resnet32", 5, pretrained, **kwargs)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-56: 9 blocks a stage, 0.85 M parameters."""
    return _create("cifar_resnet56", 9, pretrained, **kwargs)
