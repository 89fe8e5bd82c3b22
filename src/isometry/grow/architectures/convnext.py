"""ConvNeXt and ConvNeXt V2: stages of blocks with one width each."""

from typing import Any, ClassVar

from timm.models.convnext import ConvNeXtBlock

from isometry.grow.architectures.base import Architecture, Numbers


class ConvNeXts(Architecture):
    """Depth: blocks of each stage; width: channels of each stage."""

    branch_ends: ClassVar = {ConvNeXtBlock: (("gamma", "mlp.fc2"),)}

    def blocks(self, model: Any) -> list[str]:
        return [f"stages.{stage}.blocks" for stage in range(len(model.stages))]

    def width(self, model: Any) -> Numbers:
        return tuple(info["num_chs"] for info in model.feature_info)

    def width_arguments(self, model: Any, width: Numbers) -> dict[str, Any]:
        return {"dims": width}

    def widths(self, model: Any) -> list[Numbers]:
        own = self.width(model)
        return [tuple(w // by for w in own) for by in (4, 2) if not any(w % by for w in own)]
