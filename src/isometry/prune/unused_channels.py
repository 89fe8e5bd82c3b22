"""Channels that no image needs, cut out of a gated network; checked on the images that say so."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.prune.cutting import cut, inner_convs
from isometry.prune.gates import GatedConv, take_gate_outputs
from isometry.prune.sites import sites

TOLERANCE = 1e-4
"""How far logits may be apart, as a share of their spread over the images."""

SHARE_APART = 0.01
"""Share of the images that may be further apart: a saliency that is within rounding of its threshold may fall on its
other side once sums have fewer zeros in them, and takes a whole channel with it."""


@dataclass(frozen=True)
class Compaction:
    """What was cut, and how the smaller network compares.

    Attributes:
        cut: channels cut of each layer that lost any, by name.
        parameters_before: of the gated network, gates included.
        parameters_after: of the cut one.
        images: how many the two were compared on.
        images_apart: on how many their logits are further apart than :data:`TOLERANCE` of the spread.
        gap: largest difference of two logits over all other images, as a share of the spread.
    """

    cut: dict[str, int]
    parameters_before: int
    parameters_after: int
    images: int
    images_apart: int
    gap: float


@torch.no_grad()
def never_kept(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The channels that are off for every image: bool (channels of the layer,) by name of its :class:`Site`.

    With gates on groups, whole groups. The largest saliency of an image is always on, so no layer is off altogether.

    Args:
        network: a gated network in eval mode.
        batches: normalised images (B, C, H, W) on the network's device.

    Raises:
        ValueError: the network trains, has no gates, or there are no images.
    """
    convs = _gated_sites(network)
    if network.training or not convs:
        raise ValueError("which channels are never kept is asked of a network with gates, in eval mode")
    ever = {name: torch.zeros_like(conv.gate.excite.bias, dtype=torch.bool) for name, conv in convs.items()}
    images = 0
    for batch in batches:
        network(batch)
        images += len(batch)
        for (name, conv), glance in zip(convs.items(), take_gate_outputs(list(convs.values())), strict=True):
            ever[name] |= conv.gate.kept(glance.saliency).any(0)
    if not images:
        raise ValueError("no images to say which channels are kept")
    return {name: ~ever_G.repeat_interleave(convs[name].group) for name, ever_G in ever.items()}


def compact(network: nn.Module, batches: Iterable[Tensor]) -> tuple[nn.Module, Compaction]:
    """A copy of a gated network without the channels that :func:`never_kept` finds and that can be cut.

    It keeps its gates on what is left. Its logits on the batches are checked against the whole network's.

    Args:
        network: a gated network in eval mode, on one device with the batches; it stays as it is.
        batches: normalised images (B, C, H, W); gone through twice, so no iterator.

    Raises:
        UserError: the logits are apart by more than :data:`TOLERANCE` of their spread, on more than
            :data:`SHARE_APART` of the images, or are not finite.
        ValueError: as in :func:`never_kept`.
    """
    never = never_kept(network, batches)
    smaller = copy.deepcopy(network)
    drop = {name: never[name] for name in inner_convs(smaller) if never[name].any()}
    cut(smaller, {name: ~never_D for name, never_D in drop.items()})
    gap_N, spread = _compare(network, smaller, batches)
    if not math.isfinite(spread):
        raise UserError(
            "--compact: the network's logits are not finite numbers on the images; train it again"
        )
    near_N = gap_N <= TOLERANCE * spread
    apart = int((~near_N).sum())
    if apart > SHARE_APART * len(gap_N):
        raise UserError(
            f"--compact: the logits of {apart} of {len(gap_N)} images change when channels that are off for all of "
            "them are cut; give the same images every time they are gone through (nothing at random), or leave it out"
        )
    largest = float(gap_N[near_N].max()) / spread if spread > 0 else 0.0
    return smaller, Compaction(
        {name: int(never_D.sum()) for name, never_D in drop.items()},
        _parameters(network),
        _parameters(smaller),
        len(gap_N),
        apart,
        largest,
    )


def _gated_sites(network: nn.Module) -> dict[str, GatedConv]:
    """The gated convolutions by the name of their site, which is what :mod:`isometry.prune.cutting` calls them."""
    convs = {site.name: site.modules()[0] for site in sites(network)}
    return {name: conv for name, conv in convs.items() if isinstance(conv, GatedConv)}


@torch.no_grad()
def _compare(network: nn.Module, smaller: nn.Module, batches: Iterable[Tensor]) -> tuple[Tensor, float]:
    """Largest difference of two networks' logits, image by image, and largest less smallest of the first's logits."""
    gaps, lows, highs = [], [], []
    for batch in batches:
        logits_BK, found_BK = network(batch), smaller(batch)
        gaps.append((logits_BK - found_BK).abs().amax(1))
        lows.append(logits_BK.min())
        highs.append(logits_BK.max())
    if not gaps:
        raise ValueError("the images are gone through twice, and the second time there were none")
    for each in (network, smaller):
        take_gate_outputs(list(_gated_sites(each).values()))
    # Not min and max of numbers, which pass over what is none.
    return torch.cat(gaps), float(torch.stack(highs).max() - torch.stack(lows).min())


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
