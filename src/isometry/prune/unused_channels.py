"""Removal of the channels that a gated network uses for no image, checked on the same images."""

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.prune.cutting import cut, cuttable_convs
from isometry.prune.gates import GatedConv, take_gate_outputs
from isometry.prune.sites import sites

TOLERANCE = 1e-4
"""Accepted difference of logits, over their range on the images."""

SHARE_APART = 0.01
"""Accepted share of images with larger differences: a saliency that equals its threshold up to rounding can turn a
channel on or off when the removed zeros change the rounding."""


@torch.no_grad()
def unused_channels(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The channels that are off for every image: bool (channels of the layer,) by :class:`Site` name.

    An image's largest saliency is always on, so every layer uses a channel. The batches are normalised images
    (B, C, H, W) on the network's device.

    Raises:
        ValueError: the network is in training mode or has no gates, or there are no images.
    """
    convs = _gated_sites(network)
    if network.training or not convs:
        raise ValueError("unused channels are those of a network with gates, in eval mode")
    used = {name: torch.zeros_like(conv.gate.excite.bias, dtype=torch.bool) for name, conv in convs.items()}
    images = 0
    for batch in batches:
        network(batch)
        images += len(batch)
        for (name, conv), output in zip(convs.items(), take_gate_outputs(convs.values()), strict=True):
            used[name] |= conv.gate.kept(output.saliency).any(0)
    if not images:
        raise ValueError("there are no images that could use channels")
    return {name: ~used_G.repeat_interleave(convs[name].group) for name, used_G in used.items()}


def compact(network: nn.Module, batches: Iterable[Tensor]) -> tuple[nn.Module, dict[str, int]]:
    """A copy of a gated network without those of the :func:`unused_channels` that can be cut.

    It has gates on the other channels. Its logits on the batches, which are iterated twice, are compared with the
    network's, which is not changed.

    Returns:
        The copy, and the number of channels cut from each layer, by name, where there are any.

    Raises:
        UserError: the logits of more than :data:`SHARE_APART` of the images differ by more than :data:`TOLERANCE` of
            their range, or are not finite.
        ValueError: as in :func:`unused_channels`.
    """
    unused = unused_channels(network, batches)
    smaller = copy.deepcopy(network)
    removed = {name: unused[name] for name in cuttable_convs(smaller) if unused[name].any()}
    cut(smaller, {name: ~unused_D for name, unused_D in removed.items()})
    gap_N, spread = _compare(network, smaller, batches)
    if not math.isfinite(spread):
        raise UserError("--compact: the network's logits on the images are not finite; train it again")
    apart = int((~(gap_N <= TOLERANCE * spread)).sum())
    if apart > SHARE_APART * len(gap_N):
        raise UserError(
            f"--compact: the logits of {apart} of {len(gap_N)} images change when channels that no image uses are "
            "cut; the images must be the same in each pass (no random augmentation), or leave it out"
        )
    return smaller, {name: int(unused_D.sum()) for name, unused_D in removed.items()}


def _gated_sites(network: nn.Module) -> dict[str, GatedConv]:
    """The gated convolutions by :class:`Site` name, as in :mod:`isometry.prune.cutting`."""
    convs = {site.name: site.modules()[0] for site in sites(network)}
    return {name: conv for name, conv in convs.items() if isinstance(conv, GatedConv)}


@torch.no_grad()
def _compare(network: nn.Module, smaller: nn.Module, batches: Iterable[Tensor]) -> tuple[Tensor, float]:
    """Largest difference of the logits of each image, and the range of the first network's logits."""
    gaps, lows, highs = [], [], []
    for batch in batches:
        logits_BK, found_BK = network(batch), smaller(batch)
        gaps.append((logits_BK - found_BK).abs().amax(1))
        lows.append(logits_BK.min())
        highs.append(logits_BK.max())
    if not gaps:
        raise ValueError("the images are iterated twice, and the second time there were none")
    for each in (network, smaller):
        take_gate_outputs(_gated_sites(each).values())
    # Python's min and max would ignore NaN.
    return torch.cat(gaps), float(torch.stack(highs).max() - torch.stack(lows).min())
