"""Swin: stages of blocks. Its heads differ from stage to stage, so it grows in depth only."""

from typing import Any, ClassVar

from timm.models.swin_transformer import SwinTransformerBlock

from isometry.grow.architectures.base import Architecture, Numbers


class Swin(Architecture):
    """Depth: blocks of each stage."""

    branch_ends: ClassVar = {SwinTransformerBlock: (("attn.proj",), ("mlp.fc2",))}

    def blocks(self, model: Any) -> list[str]:
        return [f"layers.{stage}.blocks" for stage in range(len(model.layers))]

    def width(self, model: Any) -> Numbers:
        return (model.embed_dim,)
