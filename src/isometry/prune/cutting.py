"""Permanent removal of channels: the same network with fewer of them.

The channels between two convolutions of one residual block can be removed: filters of the first, and input channels of
the second. A block's output keeps its channels, because the shortcut adds to all of them. The suffix _D is for output
channels of the convolution that is cut.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isometry.prune.gates import GatedConv
from isometry.prune.sites import keeps_zeros, residual_blocks

Conv = nn.Conv2d | GatedConv


class CuttableConv(NamedTuple):
    """A convolution whose output channels can be removed, the norm after it, and the convolution that reads them."""

    conv: Conv
    norm: nn.BatchNorm2d
    reader: Conv


def cuttable_convs(network: nn.Module) -> dict[str, CuttableConv]:
    """The convolutions whose output channels can be removed, by :class:`Site` name, in the order of modules.

    All on residual branches but the last of each, in a timm network with gates or without. Left out are grouped
    convolutions, those without batch norm, and those followed by layers that mix or count channels
    (squeeze-and-excitation, blur pooling) or map 0 to another value, so that a removed channel is not one of zeros.
    """
    found = {}
    for block in residual_blocks(network).values():
        for site, following in pairwise(block.sites):
            (conv, norm), (reader, _) = site.modules(), following.modules()
            if isinstance(conv, GatedConv):
                norm = conv.norm
            ungrouped = _plain(conv).groups == _plain(reader).groups == 1
            if ungrouped and isinstance(norm, nn.BatchNorm2d) and all(map(keeps_zeros, site.after())):
                found[site.name] = CuttableConv(conv, norm, reader)
    return found


def widths(network: nn.Module) -> dict[str, int]:
    """Output channels of each of :func:`cuttable_convs`; with its architecture, they define a cut network's shape."""
    return {name: found.norm.num_features for name, found in cuttable_convs(network).items()}


def set_widths(network: nn.Module, wanted: dict[str, int]) -> nn.Module:
    """Cuts a network to ``wanted`` widths by name, in place, so that weights of a cut network can be loaded.

    It keeps the first channels of each convolution. Raises ValueError for a name or a width that it can't have.
    """
    have = widths(network)
    for name, width in wanted.items():
        if not 1 <= width <= have.get(name, 0):
            raise ValueError(f"{name} can't have {width} channels (it has {have.get(name, 'none to cut')})")
    return cut(network, {name: torch.arange(have[name]) < width for name, width in wanted.items()})


@torch.no_grad()
def cut(network: nn.Module, kept: dict[str, Tensor]) -> nn.Module:
    """Removes all channels but ``kept``, in place, from a network with gates or without.

    A convolution loses filters, its norm their statistics, its gate their saliencies; the convolution after it and the
    gate on that one lose the inputs. Where the removed channels were 0 for an image, the logits stay, up to rounding.
    The tensors are replaced: an optimizer that holds the old ones has to be built again.

    Args:
        network: a timm model, perhaps with gates (:func:`isometry.prune.sites.add_gates`); it is returned.
        kept: bool (D,) by name of :func:`cuttable_convs`, at least one True each; with gates on groups, whole groups.

    Raises:
        ValueError: an unknown name or a mask that does not fit; the network is then left as it was.
    """
    found = cuttable_convs(network)
    for name, kept_D in kept.items():
        if name not in found:
            raise ValueError(f"{name} is no convolution whose output channels can be cut")
        _check_mask(name, found[name], kept_D)
    for name, kept_D in kept.items():
        conv, norm, reader = found[name]
        outputs, inputs = _plain(conv), _plain(reader)
        _keep(outputs, kept_D, 0, "weight", "bias")
        _keep(norm, kept_D, 0, "weight", "bias", "running_mean", "running_var")
        _keep(inputs, kept_D, 1, "weight")
        outputs.out_channels = norm.num_features = inputs.in_channels = int(kept_D.sum())
        if isinstance(conv, GatedConv):
            _keep(conv.gate.excite, kept_D[:: conv.group], 0, "weight", "bias")
            conv.gate.excite.out_features = len(conv.gate.excite.bias)
        if isinstance(reader, GatedConv):
            _keep(reader.gate.squeeze, kept_D, 1, "weight")
            reader.gate.squeeze.in_features = inputs.in_channels
    return network


def _plain(conv: Conv) -> nn.Conv2d:
    return conv.conv if isinstance(conv, GatedConv) else conv


def _check_mask(name: str, found: CuttableConv, kept_D: Tensor) -> None:
    channels = found.norm.num_features
    if kept_D.dtype != torch.bool or kept_D.shape != (channels,) or not kept_D.any():
        raise ValueError(f"{name}: the mask must be bool ({channels},) with at least one True")
    if isinstance(found.conv, GatedConv):
        kept_GN = kept_D.view(-1, found.conv.group)
        if not torch.equal(kept_GN.any(1), kept_GN.all(1)):
            raise ValueError(
                f"{name}: the channels of a gate are kept or cut together, in groups of {found.conv.group}"
            )


def _keep(module: nn.Module, kept: Tensor, dim: int, *names: str) -> None:
    """Keeps some slices of parameters and buffers, where they are not None."""
    for name in names:
        tensor = getattr(module, name)
        if tensor is None:
            continue
        less = tensor.index_select(dim, kept.nonzero()[:, 0].to(tensor.device))
        if isinstance(tensor, nn.Parameter):
            less = nn.Parameter(less, requires_grad=tensor.requires_grad)
        setattr(module, name, less)
