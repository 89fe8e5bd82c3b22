"""ResNets of basic and bottleneck blocks: stages of blocks with one width each."""

from typing import Any, ClassVar

from timm.models.resnet import BasicBlock, Bottleneck

from isometry.errors import UserError
from isometry.grow.architectures.base import Architecture, Numbers, format_size


class ResNets(Architecture):
    """Depth: blocks of each stage; width: channels of each stage, before the expansion of bottlenecks."""

    branch_ends: ClassVar = {BasicBlock: (("bn2",),), Bottleneck: (("bn3",),)}

    def blocks(self, model: Any) -> list[str]:
        # The first is the stem. Networks for small images have three stages.
        return [info["module"] for info in model.feature_info[1:]]

    def width(self, model: Any) -> Numbers:
        return tuple(
            info["num_chs"] // model.get_submodule(info["module"])[0].expansion
            for info in model.feature_info[1:]
        )

    def depth_arguments(self, model: Any, depth: Numbers) -> dict[str, Any]:
        return {"layers": depth}

    def width_arguments(self, model: Any, width: Numbers) -> dict[str, Any]:
        own = self.width(model)
        shortcuts = [model.get_submodule(name)[0].downsample for name in self.blocks(model)]
        if any(shortcut is not None and not list(shortcut.parameters()) for shortcut in shortcuts):
            raise UserError(
                f"--grow.width: the shortcuts of {type(model).__name__} have no weights that could widen, so it grows "
                "in depth only; leave the width out"
            )
        if width[0] != own[0] and shortcuts[0] is None:
            halves = (own[0], *(w // 2 for w in own[1:]))
            raise UserError(
                f"--grow.width {format_size(width)}: the first stage has no projection on its shortcut, so its width "
                f"stays {own[0]}, e.g. --grow.width {format_size(halves)},{format_size(own)}"
            )
        return {"channels": width}
