"""Swin V2: Swin with norms at the ends of its branches."""

from typing import ClassVar

from timm.models.swin_transformer_v2 import SwinTransformerV2Block

from isometry.grow.architectures.swin_transformer import Swin


class SwinV2(Swin):
    """Depth: blocks of each stage."""

    branch_ends: ClassVar = {SwinTransformerV2Block: (("norm1",), ("norm2",))}
