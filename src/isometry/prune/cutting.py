"""Channels cut out of a network for good: the same network with fewer of them.

What can be cut are the channels between two convolutions of one residual block: filters of the first, and of the second
what reads them. A block's output keeps its channels, because the shortcut adds to all of them. The suffix _D is for
output channels of the convolution that is cut.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from timm.layers import BatchNormAct2d
from timm.models import regnet
from torch import Tensor, nn

from isometry.prune.gates import GatedConv
from isometry.prune.sites import Site, sites


class Inner(NamedTuple):
    """A convolution whose output channels can be cut, the norm after it, and the convolution that reads them."""

    conv: nn.Conv2d | GatedConv
    norm: nn.BatchNorm2d
    reader: nn.Conv2d | GatedConv


def inner_convs(network: nn.Module) -> dict[str, Inner]:
    """The convolutions whose output channels can be cut, by :class:`Site` name, in the order of its modules.

    All on residual branches but the last of each, in a timm network as it is or with gates. Left out are those followed
    by squeeze-and-excitation or blur pooling, which look across channels or count them; those whose activation does not
    map 0 to 0, where a channel of zeros is not the same as none; grouped ones, and those without batch norm.
    """
    return dict(_inner_convs(network))


def widths(network: nn.Module) -> dict[str, int]:
    """Output channels of each of :func:`inner_convs`: with its architecture, all that tells a cut network's shape."""
    return {name: inner.norm.num_features for name, inner in inner_convs(network).items()}


def narrow(network: nn.Module, wanted: dict[str, int]) -> nn.Module:
    """Cuts, in place, a network to ``wanted`` widths, some of :func:`widths`, so that a cut one's weights fit.

    It keeps the first channels of each, for which there is no reason but that weights are about to be loaded.

    Raises:
        ValueError: a name or a width that the network can't have.
    """
    have = widths(network)
    for name, width in wanted.items():
        if not 1 <= width <= have.get(name, 0):
            raise ValueError(
                f"{name} can't be {width} channels wide (it has {have.get(name, 'none to cut')})"
            )
    return cut(network, {name: torch.arange(have[name]) < width for name, width in wanted.items()})


@torch.no_grad()
def cut(network: nn.Module, kept: dict[str, Tensor]) -> nn.Module:
    """Cuts, in place, all channels but ``kept`` out of a network with gates or without.

    A convolution loses filters, its norm their statistics, its gate their saliencies; the convolution after it and the
    gate on that one lose the inputs. Where those channels were 0 for an image, the logits stay, up to rounding. The
    tensors are new ones: an optimizer that knew the old ones doesn't know them.

    Args:
        network: a timm model, or one that :func:`isometry.prune.sites.add_gates` has been at.
        kept: bool (D,) by name of :func:`inner_convs`, at least one True each; with gates on groups, whole groups.

    Returns:
        The network.

    Raises:
        ValueError: a name that is not there, or a mask that is none of these; nothing is cut then.
    """
    inner = inner_convs(network)
    for name, kept_D in kept.items():
        if name not in inner:
            raise ValueError(f"{name} is no convolution whose output channels can be cut")
        _check_mask(name, inner[name], kept_D)
    for name, kept_D in kept.items():
        conv, norm, reader = inner[name]
        _keep_outputs(conv, kept_D)
        _keep(norm, kept_D, 0, "weight", "bias", "running_mean", "running_var")
        norm.num_features = int(kept_D.sum())
        _keep_inputs(reader, kept_D)
    return network


def _inner_convs(network: nn.Module) -> Iterator[tuple[str, Inner]]:
    for site, after in pairwise(sites(network)):
        name, number = site.name.rsplit(".conv", 1)
        if after.name.rsplit(".conv", 1)[0] != name:
            continue
        conv, norm = site.modules()
        reader, _ = after.modules()
        assert isinstance(conv, nn.Conv2d | GatedConv)
        assert isinstance(reader, nn.Conv2d | GatedConv)
        if isinstance(conv, GatedConv):
            norm = conv.norm
        ungrouped = _plain(conv).groups == _plain(reader).groups == 1
        if (
            ungrouped
            and isinstance(norm, nn.BatchNorm2d)
            and _passes_zeros(network.get_submodule(name), site, int(number))
        ):
            yield site.name, Inner(conv, norm, reader)


def _plain(conv: nn.Conv2d | GatedConv) -> nn.Conv2d:
    return conv.conv if isinstance(conv, GatedConv) else conv


def _passes_zeros(block: nn.Module, site: Site, number: int) -> bool:
    """Whether a channel of zeros after a convolution's norm is one of zeros before the next, and nothing to others."""
    for activation in _activations(block, site, number):
        like = next(activation.parameters(), torch.zeros(()))
        if activation(like.new_zeros(1, 1, 1, 1)).any():
            return False
    # timm's blocks have what mixes channels, if anything, before their last convolution.
    is_last_but_one = not hasattr(block, f"conv{number + 2}")
    mixing = block.se if isinstance(block, regnet.Bottleneck) else block.aa
    return not is_last_but_one or isinstance(mixing, nn.Identity)


def _activations(block: nn.Module, site: Site, number: int) -> Iterator[nn.Module]:
    conv, norm = site.modules()
    if isinstance(conv, GatedConv):
        yield norm  # What add_gates left of it.
    elif isinstance(norm, BatchNormAct2d):
        yield norm.act
    if hasattr(block, f"act{number}"):
        yield getattr(block, f"act{number}")


def _check_mask(name: str, inner: Inner, kept_D: Tensor) -> None:
    if kept_D.dtype != torch.bool or kept_D.shape != (inner.norm.num_features,) or not kept_D.any():
        raise ValueError(
            f"{name}: what is kept must be bool ({inner.norm.num_features},) with at least one True"
        )
    if isinstance(inner.conv, GatedConv):
        kept_GN = kept_D.view(-1, inner.conv.group)
        if not torch.equal(kept_GN.any(1), kept_GN.all(1)):
            raise ValueError(
                f"{name}: channels in groups of {inner.conv.group} share a gate, and go together"
            )


def _keep_outputs(conv: nn.Conv2d | GatedConv, kept_D: Tensor) -> None:
    if isinstance(conv, GatedConv):
        excite = conv.gate.excite
        _keep(excite, kept_D[:: conv.group], 0, "weight", "bias")
        excite.out_features = len(excite.weight)
    plain = _plain(conv)
    _keep(plain, kept_D, 0, "weight", "bias")
    plain.out_channels = len(plain.weight)


def _keep_inputs(reader: nn.Conv2d | GatedConv, kept_D: Tensor) -> None:
    if isinstance(reader, GatedConv):
        squeeze = reader.gate.squeeze
        _keep(squeeze, kept_D, 1, "weight")
        squeeze.in_features = squeeze.weight.shape[1]
    plain = _plain(reader)
    _keep(plain, kept_D, 1, "weight")
    plain.in_channels = plain.weight.shape[1]


def _keep(module: nn.Module, kept: Tensor, dim: int, *names: str) -> None:
    """Keeps some slices of parameters and buffers, those that the module has."""
    for name in names:
        tensor = getattr(module, name)
        if tensor is None:
            continue
        less = tensor.index_select(dim, kept.nonzero()[:, 0].to(tensor.device))
        if isinstance(tensor, nn.Parameter):
            less = nn.Parameter(less, requires_grad=tensor.requires_grad)
        setattr(module, name, less)
