"""Convolutions that can be pruned, in the residual blocks of timm's networks, and gates on them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from timm.layers import BatchNormAct2d, ConvNormAct, DropBlock2d, DropPath
from timm.layers.activations import GELU, GELUTanh, PReLU, QuickGELU, Tanh
from timm.models import regnet, resnet
from torch import nn

from isometry.errors import UserError
from isometry.prune.gates import GatedConv


@dataclass(frozen=True)
class BlockLayout:
    """Names of the parts of a residual block ``act(shortcut(x) + branch(x))``.

    The block registers its parts in the order in which its forward method calls them, as timm's blocks do. The branch
    starts with a convolution. Each of its convolutions is followed by its norm, or is a ``ConvNormAct``.

    Attributes:
        networks: that have such blocks, for messages.
        convs: convolutions of the branch.
        act: activation after the sum; empty if there is none.
        shortcut: layers on the shortcut; empty if there are never any.
        identity: whether the shortcut is the identity where it has no layers; otherwise there is none then.
    """

    networks: str
    convs: tuple[str, ...]
    act: str = ""
    shortcut: str = ""
    identity: bool = True


BLOCKS: dict[type[nn.Module], BlockLayout] = {
    resnet.BasicBlock: BlockLayout("ResNets", ("conv1", "conv2"), "act2", "downsample"),
    resnet.Bottleneck: BlockLayout("ResNets", ("conv1", "conv2", "conv3"), "act3", "downsample"),
    regnet.Bottleneck: BlockLayout(
        "RegNets", ("conv1", "conv2", "conv3"), "act3", "downsample", identity=False
    ),
}
"""Blocks that can be pruned. An entry is all that another block needs."""

PRUNABLE = f"{', '.join(dict.fromkeys(layout.networks for layout in BLOCKS.values()))} (without grouped convolutions)"

INACTIVE = (nn.Identity, nn.Dropout, nn.Dropout2d, DropBlock2d, DropPath)
"""Layers that are the identity in eval mode."""

POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish),
    *(nn.Hardtanh, nn.Tanh, nn.Softsign, GELU, GELUTanh, PReLU, QuickGELU, Tanh),
)
"""Activations that act on each number alone."""


@dataclass(frozen=True)
class Site:
    """A convolution of a residual block and the norm after it: submodules ``conv`` and ``norm`` of ``block``.

    ``others`` are the layers between the norm and the next convolution of the branch, or its end.
    """

    name: str
    block: nn.Module
    conv: str
    norm: str
    others: list[nn.Module] = field(default_factory=list)

    def modules(self) -> tuple[nn.Conv2d | GatedConv, nn.Module]:
        """The convolution and the norm as they are now."""
        conv = self.block.get_submodule(self.conv)
        assert isinstance(conv, nn.Conv2d | GatedConv)
        return conv, self.block.get_submodule(self.norm)

    def after(self) -> list[nn.Module]:
        """The layers between the batch norm and the next convolution: activations, drops, attention."""
        conv, norm = self.modules()
        return [norm if isinstance(conv, GatedConv) else _without_norm(norm), *self.others]


@dataclass(frozen=True)
class ResidualBlock:
    """The parts of a residual block ``act(shortcut(x) + branch(x))``; the shortcut is None where there is none."""

    sites: list[Site]
    shortcut: nn.Module | None
    act: nn.Module


def residual_blocks(network: nn.Module) -> dict[str, ResidualBlock]:
    """The blocks of :data:`BLOCKS` in a network by name, in the order of its modules."""
    return {
        name: _parts(name, block, layout)
        for name, block in network.named_modules()
        for kind, layout in BLOCKS.items()
        if isinstance(block, kind)
    }


def sites(network: nn.Module) -> list[Site]:
    """The convolutions on the residual branches of a network, in the order of its modules."""
    return [site for block in residual_blocks(network).values() for site in block.sites]


def keeps_zeros(module: nn.Module) -> bool:
    """Whether a layer acts on each number alone and maps 0 to 0, so that it can act on some of the channels."""
    if isinstance(module, nn.Sequential):
        return all(map(keeps_zeros, module))
    if isinstance(module, INACTIVE):
        return True
    like = next(module.parameters(), torch.zeros(()))
    return isinstance(module, POINTWISE) and not module(like.new_zeros(1, 1, 1, 1)).any()


def check_prunable(network: nn.Module, name: str, group: int) -> list[Site]:
    """The sites of a network, if all of them can have gates.

    Args:
        network: a timm model (torch's meta device will do).
        name: from the user.
        group: channels that share a gate.

    Raises:
        UserError: there is no such convolution; one has a gate already, is grouped, is not followed by batch norm,
            or its channels can't be divided in groups of that size.
    """
    found = sites(network)
    if not found:
        raise UserError(
            f"--model {name}: has no convolutions on residual branches to prune; what can be pruned: {PRUNABLE}"
        )
    for site in found:
        conv, norm = site.modules()
        if isinstance(conv, GatedConv):
            raise UserError(
                f"--model {name}: {site.name} has a gate already; prune the network that had none"
            )
        if conv.groups > 1:
            raise UserError(
                f"--model {name}: {site.name} is a grouped convolution ({conv.groups} groups), which can't be pruned "
                f"channel by channel; what can be pruned: {PRUNABLE}"
            )
        if not isinstance(norm, nn.BatchNorm2d):
            raise UserError(
                f"--model {name}: {site.name} is followed by {type(norm).__name__}, and gates need batch norm there"
            )
        if conv.out_channels % group:
            raise UserError(
                f"--prune.group {group}: {site.name} has {conv.out_channels} channels, which is no multiple of it"
            )
    return found


def add_gates(network: nn.Module, name: str, group: int = 1) -> nn.Module:
    """Puts a gate on each prunable convolution, in place; the network computes the same function.

    A convolution and its norm become one :class:`isometry.prune.gates.GatedConv` in place of the convolution. What
    timm has in one layer with the norm, such as the activation in RegNets, stays in place of the norm.

    Args, errors and ``name``, ``group`` as in :func:`check_prunable`; returns the network.
    """
    for site in check_prunable(network, name, group):
        conv, norm = site.modules()
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        site.block.set_submodule(site.norm, _without_norm(norm))
        # In the mode of the norm: a new module would train in a network in eval mode.
        site.block.set_submodule(site.conv, GatedConv(conv, _norm_alone(norm), group).train(norm.training))
    return network


def _parts(name: str, block: nn.Module, layout: BlockLayout) -> ResidualBlock:
    """A block's parts, by its layout.

    Raises:
        UserError: the layout names a part that the block lacks, or does not name the first layer of the branch.
    """
    for part in (*layout.convs, layout.act, layout.shortcut):
        if part and not hasattr(block, part):
            kind, known = type(block).__name__, ", ".join(key for key, _ in block.named_children())
            raise UserError(f"prune/sites.py: BLOCKS: {kind} has no {part}; its parts are {known}")
    parts = dict(block.named_children())
    shortcut = parts.pop(layout.shortcut, nn.Identity() if layout.identity else None)
    act = parts.pop(layout.act, nn.Identity())
    found: list[Site] = []
    layers = _layers(parts)
    for path, module in layers:
        conv = path.removesuffix(".conv")
        if conv in layout.convs:
            found.append(Site(f"{name}.{conv}", block, path, next(layers)[0]))
        elif found:
            found[-1].others.append(module)
        else:
            kind = type(block).__name__
            raise UserError(f"prune/sites.py: BLOCKS: {kind}: {path} comes first, so it must be one of convs")
    return ResidualBlock(found, shortcut, act)


def _layers(parts: dict[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Modules by their path in a block, those inside ``ConvNormAct`` one by one."""
    for key, part in parts.items():
        if isinstance(part, ConvNormAct):
            yield from ((f"{key}.{inner}", module) for inner, module in part.named_children())
        else:
            yield key, part


def _without_norm(norm: nn.Module) -> nn.Module:
    """What a norm layer of timm does besides normalising."""
    if not isinstance(norm, BatchNormAct2d):
        return nn.Identity()
    return norm.act if isinstance(norm.drop, nn.Identity) else nn.Sequential(norm.drop, norm.act)


def _norm_alone(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """A batch norm alone, with the same parameters and statistics."""
    if type(norm) is nn.BatchNorm2d:
        return norm
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, device=norm.weight.device)
    # Some activations have parameters of their own.
    state = norm.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()}, assign=True)
    return plain
