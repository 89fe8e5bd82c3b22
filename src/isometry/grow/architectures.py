"""Which timm architectures can grow: where their blocks are, which arguments set their size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from timm.models.cait import Cait, LayerScaleBlock
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import nn

from isometry.errors import UserError


@dataclass(frozen=True)
class Size:
    """``depth``: blocks of each stage; ``width``: channels (of each stage, in ResNets). One number where one is
    enough."""

    depth: tuple[int, ...]
    width: tuple[int, ...]

    def __str__(self) -> str:
        return f"depth {spelled(self.depth)}, width {spelled(self.width)}"


def spelled(numbers: tuple[int, ...]) -> str:
    """``2-2-6-2``, as options have it."""
    return "-".join(map(str, numbers))


@dataclass(frozen=True)
class Family:
    """What the surgery knows of an architecture.

    Attributes:
        blocks: names of the modules that hold the blocks, one a stage.
        size: the size that a model has.
        arguments: constructor arguments for a size; takes the full-size model, too.
        widths: smaller widths that the architecture can have, as far as it says so.
    """

    name: str
    blocks: Callable[[Any], list[str]]
    size: Callable[[Any], Size]
    arguments: Callable[[Any, Size], dict[str, Any]]
    widths: Callable[[Any], list[tuple[int, ...]]]


def family_of(model: nn.Module, name: str) -> Family:
    """What is known of the model's architecture.

    Raises:
        UserError: nothing.
    """
    for kind, family in FAMILIES.items():
        if isinstance(model, kind):
            return family
    known = ", ".join(sorted({family.name for family in FAMILIES.values()}))
    raise UserError(f"--model {name}: growing {type(model).__name__} is not known; these grow: {known}")


def silent_parameters(block: nn.Module) -> list[str]:
    """The parameters of a residual block that make it the identity when they are 0: its branches' last ones.

    Raises:
        UserError: how such a block is silenced is not known.
    """
    if type(block) not in SILENT:
        raise UserError(
            f"--grow.depth-operator identity: {type(block).__name__} is not known to have a part that makes it the "
            "identity at 0; use insert or stack"
        )
    names = []
    for alternatives in SILENT[type(block)]:
        for path in alternatives:
            found = [name for name, _ in block.named_parameters() if f"{name}.".startswith(f"{path}.")]
            if found:
                names += found
                break
    return names


def _blocks_of_plain(model: Any) -> list[str]:
    return ["blocks"]


def _heads(model: Any) -> int:
    return int(model.blocks[0].attn.num_heads)


def _plain_arguments(model: Any, size: Size) -> dict[str, Any]:
    (depth,), (width,) = size.depth, size.width
    arguments: dict[str, Any] = {}
    if depth != len(model.blocks):
        arguments["depth"] = depth
    if width != model.embed_dim:
        heads = _heads(model) * width / model.embed_dim
        if heads != int(heads) or heads == 0:
            able = ", ".join(spelled(w) for w in _plain_widths(model))
            raise UserError(
                f"--grow.width {width}: {_heads(model)} heads of {model.embed_dim} channels can't be cut to "
                f"{width}; {'widths that work: ' + able if able else 'no smaller width works'}"
            )
        arguments |= {"embed_dim": width, "num_heads": int(heads)}
    return arguments


def _plain_widths(model: Any) -> list[tuple[int, ...]]:
    heads, width = _heads(model), model.embed_dim
    return [(width // by,) for by in range(heads, 1, -1) if heads % by == 0 and width % by == 0]


def _no_widths(model: Any) -> list[tuple[int, ...]]:
    return []


def _depths_alone(model: Any, size: Size, own: Size) -> dict[str, Any]:
    if size.width != own.width:
        raise UserError(f"--grow.width: {type(model).__name__} grows in depth only; leave the width out")
    return {} if size.depth == own.depth else {"depths": size.depth}


def _swin_size(model: Any) -> Size:
    return Size(tuple(len(stage.blocks) for stage in model.layers), (model.embed_dim,))


def _convnext_size(model: Any) -> Size:
    return Size(
        tuple(len(stage.blocks) for stage in model.stages),
        tuple(info["num_chs"] for info in model.feature_info),
    )


def _convnext_arguments(model: Any, size: Size) -> dict[str, Any]:
    own = _convnext_size(model)
    arguments: dict[str, Any] = {} if size.depth == own.depth else {"depths": size.depth}
    return arguments if size.width == own.width else arguments | {"dims": size.width}


def _halves(model: Any) -> list[tuple[int, ...]]:
    width = _convnext_size(model).width
    return [tuple(w // by for w in width) for by in (4, 2) if not any(w % by for w in width)]


def _resnet_blocks(model: Any) -> list[str]:
    # The first is the stem. Networks for small images have three stages.
    return [info["module"] for info in model.feature_info[1:]]


def _resnet_size(model: Any) -> Size:
    stages = [model.get_submodule(name) for name in _resnet_blocks(model)]
    channels = (info["num_chs"] for info in model.feature_info[1:])
    return Size(
        tuple(map(len, stages)),
        tuple(number // stage[0].expansion for number, stage in zip(channels, stages, strict=True)),
    )


def _resnet_arguments(model: Any, size: Size) -> dict[str, Any]:
    own = _resnet_size(model)
    arguments: dict[str, Any] = {} if size.depth == own.depth else {"layers": size.depth}
    if size.width == own.width:
        return arguments
    shortcuts = [model.get_submodule(name)[0].downsample for name in _resnet_blocks(model)]
    if any(shortcut is not None and not list(shortcut.parameters()) for shortcut in shortcuts):
        raise UserError(
            f"--grow.width: the shortcuts of {type(model).__name__} have no weights that could widen, so it grows in "
            "depth only; leave the width out"
        )
    if size.width[0] != own.width[0] and model.layer1[0].downsample is None:
        raise UserError(
            f"--grow.width {spelled(size.width)}: the first stage has no projection on its shortcut, so its width "
            f"stays {own.width[0]}, e.g. --grow.width {_examples(own.width)}"
        )
    return arguments | {"channels": size.width}


def _examples(width: tuple[int, ...]) -> str:
    return f"{spelled((width[0], *(w // 2 for w in width[1:])))},{spelled(width)}"


PLAIN = Family(
    "vision transformers (ViT, DeiT)",
    _blocks_of_plain,
    lambda model: Size((len(model.blocks),), (model.embed_dim,)),
    _plain_arguments,
    _plain_widths,
)
SWIN = Family(
    "Swin",
    lambda model: [f"layers.{stage}.blocks" for stage in range(len(model.layers))],
    _swin_size,
    lambda model, size: _depths_alone(model, size, _swin_size(model)),
    _no_widths,
)

FAMILIES: dict[type[nn.Module], Family] = {
    VisionTransformer: PLAIN,
    Cait: Family("CaiT", PLAIN.blocks, PLAIN.size, PLAIN.arguments, PLAIN.widths),
    SwinTransformer: SWIN,
    SwinTransformerV2: SWIN,
    ResNet: Family(
        "ResNet",
        _resnet_blocks,
        _resnet_size,
        _resnet_arguments,
        _no_widths,
    ),
    ConvNeXt: Family(
        "ConvNeXt",
        lambda model: [f"stages.{stage}.blocks" for stage in range(len(model.stages))],
        _convnext_size,
        _convnext_arguments,
        _halves,
    ),
}

SILENT: dict[type[nn.Module], tuple[tuple[str, ...], ...]] = {
    Block: (("ls1", "attn.proj"), ("ls2", "mlp.fc2")),
    ResPostBlock: (("norm1",), ("norm2",)),
    LayerScaleBlock: (("gamma_1",), ("gamma_2",)),
    SwinTransformerBlock: (("attn.proj",), ("mlp.fc2",)),
    SwinTransformerV2Block: (("norm1",), ("norm2",)),
    BasicBlock: (("bn2",),),
    Bottleneck: (("bn3",),),
    ConvNeXtBlock: (("gamma", "mlp.fc2"),),
}
"""For each residual branch of a block, what ends it: the first of these that holds parameters."""
