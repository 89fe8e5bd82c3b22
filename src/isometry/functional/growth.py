"""The maths of growth in width: axes of tensors stretched by copies of units or by interpolation.

Copies follow Chen et al. 2016 ("Net2Net", arXiv:1511.05641): their outgoing weights are divided among them.
"""

import torch
from torch import Tensor


def tiled(x: Tensor, dim: int, size: int, groups: int = 1) -> Tensor:
    """Unit i of the ``size`` new ones is a copy of old unit i mod n; in each of ``groups`` equal parts of ``dim``.

    All axes with the same old and new sizes are stretched alike, so that units that are added to each other
    (a residual stream) or read by another layer still correspond.
    """
    return torch.cat(
        [
            part.index_select(dim, torch.arange(size // groups, device=x.device) % part.shape[dim])
            for part in x.chunk(groups, dim)
        ],
        dim,
    )


def repeats(old: int, size: int, groups: int = 1) -> Tensor:
    """Number of copies of each unit of a :func:`tiled` axis, itself included: (size,), float64."""
    source = torch.arange(size // groups) % (old // groups)
    return torch.bincount(source).double()[source].repeat(groups)


def interpolated(x: Tensor, dim: int, size: int, groups: int = 1) -> Tensor:
    """Unit i of the ``size`` new ones is the linear interpolation of the old ones at (i + ½)·n/size − ½."""
    return torch.cat([_interpolate(part, dim, size // groups) for part in x.chunk(groups, dim)], dim)


def _interpolate(x: Tensor, dim: int, size: int) -> Tensor:
    old = x.shape[dim]
    place = ((torch.arange(size, dtype=torch.float64) + 0.5) * old / size - 0.5).clamp(0, old - 1)
    left = place.floor().long()
    right = (left + 1).clamp(max=old - 1)
    share = along(place - left, x, dim)
    lower, upper = (x.index_select(dim, index.to(x.device)) for index in (left, right))
    return lower * (1 - share) + upper * share


def uneven_shares(
    size: int, old: int, like: Tensor, dim: int, groups: int, generator: torch.Generator
) -> Tensor:
    """Random shares of the copies of each unit along ``dim``, which sum to 1; drawn for every entry of the other axes.

    Copies with equal shares would get equal gradients and stay equal. Each share is its even value times 1 + u,
    with u in ±½ and mean 0 over a unit's copies.

    Args:
        size: units along ``dim`` of ``like``.
        old: units that they are copies of.
        like: a :func:`tiled` tensor; gives shape, dtype and device.
        dim: the axis.
        groups: equal parts of the axis that were tiled separately.
        generator: CPU generator to draw from.
    """
    noise = torch.rand(like.shape, generator=generator, dtype=torch.float64) - 0.5
    counts = repeats(old, size, groups)
    part = torch.arange(size // groups) % (old // groups)
    source = torch.cat([part + group * (old // groups) for group in range(groups)])
    mean = torch.zeros(*like.shape[:dim], old, *like.shape[dim + 1 :], dtype=torch.float64)
    mean.index_add_(dim, source, noise / along(counts, noise, dim))
    noise -= mean.index_select(dim, source)
    return ((1 + noise) / along(counts, noise, dim)).to(like)


def along(values: Tensor, x: Tensor, dim: int) -> Tensor:
    """A vector, shaped to multiply ``x`` along ``dim``."""
    shape = [1] * x.dim()
    shape[dim] = -1
    return values.view(shape).to(x)
