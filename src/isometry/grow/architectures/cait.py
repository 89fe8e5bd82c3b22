"""CaiT: grows as other vision transformers do; its blocks end in layer scales."""

from typing import ClassVar

from timm.models.cait import LayerScaleBlock

from isometry.grow.architectures.vision_transformer import VisionTransformers


class CaiT(VisionTransformers):
    """Depth: blocks of patch tokens. The class-attention blocks stay."""

    branch_ends: ClassVar = {LayerScaleBlock: (("gamma_1",), ("gamma_2",))}
