"""Segmentation: torchvision's fully convolutional head on the pyramid of a backbone."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.fcn import FCNHead

from isometry.data import ImageSpec
from isometry.data.dense.annotations import IGNORED
from isometry.models.dense.network import DenseNetwork


class Segmenter(DenseNetwork):
    """A class for every pixel, of a timm backbone's features.

    The levels of the pyramid are enlarged to the finest one (bilinear) and concatenated; torchvision's ``FCNHead``
    (arXiv:1411.4038: a 3×3 convolution, batch norm, and a 1×1 convolution) gives K logits for each cell, which are
    enlarged to the image's pixels.

    Args:
        backbone, class_names, spec, channels: as in :class:`isometry.models.dense.network.DenseNetwork`.
    """

    task = "segment"

    def __init__(self, backbone: nn.Module, class_names: list[str], spec: ImageSpec, channels: int) -> None:
        super().__init__(backbone, class_names, spec, channels)
        self.head = FCNHead(channels * self.pyramid.count, len(class_names))

    def forward(self, images_BCHW: Tensor, masks_BHW: Tensor | None = None) -> Any:
        """``{"loss"}`` in training, logits otherwise.

        Args:
            images_BCHW: normalised, of the network's size.
            masks_BHW: int64, the class of each pixel, 255 where it is ignored.

        Returns:
            In training mode ``{"loss"}``: cross-entropy, averaged over the pixels that are not ignored, 0 if all are.
            Otherwise logits (B, K, H, W).

        Raises:
            ValueError: in training mode without masks.
        """
        logits_BKHW = self.raw(images_BCHW)
        if not self.training:
            return logits_BKHW
        if masks_BHW is None:
            raise ValueError("a segmentation network in training mode needs masks")
        loss = F.cross_entropy(logits_BKHW.float(), masks_BHW, ignore_index=IGNORED, reduction="sum")
        return {"loss": loss / (masks_BHW != IGNORED).sum().clamp(min=1)}

    def raw(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, K, H, W)."""
        finest, *coarser = self.levels(images_BCHW)
        levels = [finest, *(_resized(level, (finest.shape[2], finest.shape[3])) for level in coarser)]
        return _resized(self.head(torch.cat(levels, 1)), self.size)


def _resized(map_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(map_BCHW, size, mode="bilinear", align_corners=False)
