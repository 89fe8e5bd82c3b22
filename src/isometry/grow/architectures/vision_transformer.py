"""Vision transformers (ViT, DeiT): one stack of blocks; the width grows by whole heads."""

from typing import Any, ClassVar

from timm.models.vision_transformer import Block, ResPostBlock

from isometry.errors import UserError
from isometry.grow.architectures.base import Architecture, Numbers, format_size


class VisionTransformers(Architecture):
    """Depth: blocks; width: channels of a token, with as many heads as keep their width."""

    branch_ends: ClassVar = {
        Block: (("ls1", "attn.proj"), ("ls2", "mlp.fc2")),
        ResPostBlock: (("norm1",), ("norm2",)),
    }

    def blocks(self, model: Any) -> list[str]:
        return ["blocks"]

    def width(self, model: Any) -> Numbers:
        return (model.embed_dim,)

    def depth_arguments(self, model: Any, depth: Numbers) -> dict[str, Any]:
        return {"depth": depth[0]}

    def width_arguments(self, model: Any, width: Numbers) -> dict[str, Any]:
        (channels,) = width
        heads = _heads(model) * channels / model.embed_dim
        if heads != int(heads) or heads == 0:
            possible = ", ".join(map(format_size, self.widths(model)))
            raise UserError(
                f"--grow.width {channels}: {_heads(model)} heads of {model.embed_dim} channels can't be cut to "
                f"{channels}; {'widths that work: ' + possible if possible else 'no smaller width works'}"
            )
        return {"embed_dim": channels, "num_heads": int(heads)}

    def widths(self, model: Any) -> list[Numbers]:
        heads, width = _heads(model), model.embed_dim
        return [(width // by,) for by in range(heads, 1, -1) if heads % by == 0 and width % by == 0]


def _heads(model: Any) -> int:
    return int(model.blocks[0].attn.num_heads)
