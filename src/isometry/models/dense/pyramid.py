"""Feature pyramids: maps of several strides and one width, from the maps of a backbone.

Strides are pixels of the image for each cell of a map: ``W / w`` for a map of w columns. FCOS (arXiv:2006.09214) looks
for boxes that reach 4 to 8 strides from a cell on the level of that stride, so strides follow from the size of the
images. Shape suffixes: B images, C channels, H and W the grid.
"""

import math
from collections import OrderedDict

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from isometry.models.taps import BlockShape

FINEST_STRIDE = 8.0
"""The finest level of FCOS on images of 800 pixels; there is no need for a finer one on large images."""
FINEST_GRID = 24
"""Cells along the shorter side of the finest level on small images, whose objects have few pixels."""
REACH = 8
"""Strides that a level's boxes reach at most; the last level is the first that reaches across the image."""
MOST_DOUBLINGS = 2
"""How often the one map of a plain network is doubled at most: its cells know no finer place."""


def finest_stride(size: tuple[int, int]) -> float:
    """The stride of the finest level for images of ``size`` (height, width)."""
    return min(FINEST_STRIDE, min(size) / FINEST_GRID)


def coarser_levels(stride: float, size: tuple[int, int]) -> int:
    """How many times ``stride`` is doubled until a level reaches across images of ``size``."""
    return max(0, math.ceil(math.log2(max(size) / (REACH * stride))))


def doublings(stride: float, size: tuple[int, int]) -> int:
    """How many times the map of a plain network, of ``stride``, is doubled: at least once."""
    return min(MOST_DOUBLINGS, max(1, math.ceil(math.log2(stride / finest_stride(size)))))


class PlainPyramid(nn.Module):
    """Simple feature pyramid of ViTDet (arXiv:2203.16527, section 3): every level from the last map alone.

    Transposed convolutions of stride 2 double the map and max pooling halves it; then each level has a 1×1 and a 3×3
    convolution, both followed by layer norm.

    Args:
        width: channels of the map.
        scales: of the levels relative to the map, as powers of 2, falling: ``(1, 0, -1)`` for ×2, ×1, ×½.
        channels: of each level.
    """

    def __init__(self, width: int, scales: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.count = len(scales)
        self.levels = nn.ModuleList(_plain_level(width, scale, channels) for scale in scales)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map (B, width, H, W) -> a map (B, channels, 2ˢH, 2ˢW) for each scale s."""
        return [level(maps[-1]) for level in self.levels]


def _plain_level(width: int, scale: int, channels: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for step in range(scale):
        halved = max(width // 2, channels)
        parts += [nn.ConvTranspose2d(width, halved, 2, stride=2)]
        parts += [LayerNorm2d(halved), nn.GELU()] if step < scale - 1 else []
        width = halved
    parts += [nn.MaxPool2d(2, ceil_mode=True) for _ in range(-scale)]
    return nn.Sequential(
        *parts,
        nn.Conv2d(width, channels, 1, bias=False),
        LayerNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        LayerNorm2d(channels),
    )


class StagePyramid(nn.Module):
    """torchvision's feature pyramid network (arXiv:1612.03144) over the stages of a hierarchical network.

    Args:
        widths: channels of each stage's map, from fine to coarse.
        coarser: levels beyond the last stage, each every second cell of the one before.
        channels: of each level.
    """

    def __init__(self, widths: list[int], coarser: int, channels: int) -> None:
        super().__init__()
        self.fpn = FeaturePyramidNetwork(widths, channels)
        self.count, self.coarser = len(widths) + coarser, coarser

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C, H, W), from fine to coarse -> a level (B, channels, H, W) of each, then the coarser ones."""
        named = OrderedDict((str(number), each) for number, each in enumerate(maps))
        levels = list(self.fpn(named).values())
        for _ in range(self.coarser):
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return levels


def build_pyramid(
    stages: list[BlockShape], size: tuple[int, int], channels: int
) -> tuple[PlainPyramid | StagePyramid, list[int]]:
    """The pyramid over a backbone, and the blocks whose maps it takes.

    A network of one grid has a :class:`PlainPyramid` on its last map, any other a :class:`StagePyramid` on the stages
    from :func:`finest_stride` on.

    Args:
        stages: of :func:`isometry.models.taps.stage_shapes`.
        size: of the images, (height, width).
        channels: of every level.
    """
    strides = [max(size) / max(stage.grid) for stage in stages]
    coarser = coarser_levels(strides[-1], size)
    if len(stages) == 1:
        scales = range(doublings(strides[0], size), -coarser - 1, -1)
        return PlainPyramid(stages[0].width, tuple(scales), channels), [stages[0].block]
    fine = [number for number, stride in enumerate(strides) if stride <= finest_stride(size)]
    taken = stages[fine[-1] if fine else 0 :]
    return StagePyramid([stage.width for stage in taken], coarser, channels), [stage.block for stage in taken]
