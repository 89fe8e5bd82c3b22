"""Baseline of gates: filters of small L1 norm are cut before training, the same ones for every image.

Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017.
"""

import torch
from torch import Tensor, nn

from isometry.functional.gates import number_kept
from isometry.prune.cutting import cut, cuttable_convs
from isometry.prune.sites import check_prunable


def l1_cut(network: nn.Module, name: str, keep_rate: float) -> nn.Module:
    """Cuts, in place, the filters of smallest L1 norm Σ|w| of :func:`isometry.prune.cutting.cuttable_convs`.

    Each convolution keeps the ⌈r·C⌉ largest of its C filters. Others, such as the last one of each block, are not cut,
    so the MACs drop by less than 1 − r.

    Args:
        network: a timm model without gates, which is returned.
        name: from the user.
        keep_rate: r, in (0, 1].

    Raises:
        UserError: a network that :func:`isometry.prune.sites.check_prunable` refuses.
        ValueError: the keep rate is not in (0, 1].
    """
    check_prunable(network, name, group=1)
    kept = {}
    for layer, (conv, _, _) in cuttable_convs(network).items():
        assert isinstance(conv, nn.Conv2d)
        kept[layer] = largest_filters(conv.weight, keep_rate)
    return cut(network, kept)


def largest_filters(weight: Tensor, keep_rate: float) -> Tensor:
    """The ⌈r·C⌉ filters of largest L1 norm, of equal ones the first, by ``weight`` (C, ...): bool (C,).

    Raises:
        ValueError: the keep rate r is not in (0, 1].
    """
    norms = weight.detach().abs().flatten(1).sum(1, dtype=torch.float64)
    first = norms.argsort(descending=True, stable=True)[: number_kept(len(norms), keep_rate)]
    return torch.zeros(len(norms), dtype=torch.bool, device=norms.device).scatter(0, first, True)
