"""Where a network can be pruned, and the gates that are put there."""

from collections.abc import Iterator
from dataclasses import dataclass

from timm.layers import BatchNormAct2d, ConvNormAct
from timm.models import regnet, resnet
from torch import nn

from isometry.errors import UserError
from isometry.prune.gates import GatedConv

BLOCKS = (resnet.BasicBlock, resnet.Bottleneck, regnet.Bottleneck)
"""timm's residual blocks whose convolutions can have gates."""

SUPPORTED = "ResNets of basic or bottleneck blocks, RegNets without groups, and cifar_resnet20, 32 and 56"


@dataclass(frozen=True)
class Site:
    """A convolution of a residual block and the norm after it: attributes ``conv`` and ``norm`` of ``owner``."""

    name: str
    owner: nn.Module
    conv: str
    norm: str

    def modules(self) -> tuple[nn.Module, nn.Module]:
        """The two modules as they are now."""
        return self.owner.get_submodule(self.conv), self.owner.get_submodule(self.norm)


def sites(network: nn.Module) -> list[Site]:
    """The convolutions on the residual branches of a network, in the order of its modules."""
    found: list[Site] = []
    for name, block in network.named_modules():
        if isinstance(block, BLOCKS):
            found += _sites_in(name, block)
    return found


def _sites_in(name: str, block: nn.Module) -> Iterator[Site]:
    for number in ("1", "2", "3"):
        conv = getattr(block, f"conv{number}", None)
        if isinstance(conv, ConvNormAct):
            yield Site(f"{name}.conv{number}", conv, "conv", "bn")
        elif conv is not None:
            yield Site(f"{name}.conv{number}", block, f"conv{number}", f"bn{number}")


def check_prunable(network: nn.Module, name: str, group: int) -> list[Site]:
    """The sites of a network whose convolutions can all have gates.

    Args:
        network: a timm model (torch's meta device will do).
        name: as the person named it.
        group: channels that share a gate.

    Raises:
        UserError: there is no such convolution; one has a gate already, is grouped, is not followed by batch norm,
            or its channels can't be divided in groups of that size.
    """
    found = sites(network)
    if not found:
        raise UserError(
            f"--model {name}: has no convolutions on residual branches to prune; what can be pruned is {SUPPORTED}"
        )
    for site in found:
        conv, norm = site.modules()
        if isinstance(conv, GatedConv):
            raise UserError(
                f"--model {name}: {site.name} has a gate already; prune the network as it was before that"
            )
        assert isinstance(conv, nn.Conv2d)
        if conv.groups > 1:
            raise UserError(
                f"--model {name}: {site.name} is a grouped convolution ({conv.groups} groups), which can't be pruned "
                f"channel by channel; what can be pruned is {SUPPORTED}"
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
    """Puts a gate on each prunable convolution, in place; what the network computes stays the same.

    A convolution and its norm become one :class:`isometry.prune.gates.GatedConv`, where the convolution was; where the norm
    was, its activation is left (timm has the two in one in RegNets), or nothing. The blocks themselves stay timm's.

    Args, errors and ``name``, ``group`` as in :func:`check_prunable`.

    Returns:
        The network.
    """
    for site in check_prunable(network, name, group):
        conv, norm = site.modules()
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        setattr(site.owner, site.norm, _after(norm))
        # In the mode of what it replaces: a new norm would train in a network that only infers.
        setattr(site.owner, site.conv, GatedConv(conv, _plain(norm), group).train(norm.training))
    return network


def _after(norm: nn.BatchNorm2d) -> nn.Module:
    if not isinstance(norm, BatchNormAct2d):
        return nn.Identity()
    return norm.act if isinstance(norm.drop, nn.Identity) else nn.Sequential(norm.drop, norm.act)


def _plain(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """A batch norm alone, with the same parameters and statistics."""
    if type(norm) is nn.BatchNorm2d:
        return norm
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, device=norm.weight.device)
    # Some activations have parameters of their own.
    state = norm.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()}, assign=True)
    return plain
