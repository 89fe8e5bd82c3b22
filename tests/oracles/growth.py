"""Growth as it is published, in words and loops: Ding et al. 2023 (CVPR) for depth, arXiv:1511.05641 for width."""

from collections.abc import Sequence

import torch
from torch import Tensor

Place = tuple[int | None, bool]
"""(block of the smaller network or None for a new one, whether its weights are the averaged ones)."""

Tensors = dict[str, Tensor]


def insert_order(depth: int, larger: int) -> list[Place]:
    """Each of the last k blocks is followed by the copy of itself in the moving average; k blocks are added."""
    order: list[Place] = [(block, False) for block in range(depth)]
    for block in reversed(range(depth - (larger - depth), depth)):
        order.insert(block + 1, (block, True))
    return order


def stack_order(depth: int, larger: int) -> list[Place]:
    """The moving average's last k blocks are put on top of all blocks; k blocks are added."""
    average: list[Place] = [(block, True) for block in range(depth)]
    return [(block, False) for block in range(depth)] + average[-(larger - depth) or depth :]


def identity_order(depth: int, larger: int) -> list[Place]:
    """New blocks are put on top of all blocks."""
    return [(block, False) for block in range(depth)] + [(None, False) for _ in range(depth, larger)]


ORDERS = {"insert": insert_order, "stack": stack_order, "identity": identity_order}


def deepened(
    small: Tensors, average: Tensors, orders: dict[str, list[Place]], fresh: Tensors, silent: Sequence[str]
) -> Tensors:
    """The larger network's tensors, put together block by block.

    Args:
        small: the smaller network's tensors.
        average: their moving average.
        orders: by the name of what holds the blocks.
        fresh: tensors of the larger network as it was initialised.
        silent: names within a block of what is zeroed in new blocks.
    """
    grown = {name: tensor for name, tensor in small.items() if not _is_in(name, orders)}
    for holder, order in orders.items():
        for position, (block, averaged) in enumerate(order):
            if block is None:
                for rest, tensor in _of_block(fresh, f"{holder}.{position}."):
                    grown[f"{holder}.{position}.{rest}"] = tensor * 0 if rest in silent else tensor
            else:
                for rest, tensor in _of_block(average if averaged else small, f"{holder}.{block}."):
                    grown[f"{holder}.{position}.{rest}"] = tensor
    return grown


def _is_in(name: str, holders: dict[str, list[Place]]) -> bool:
    return any(name.startswith(f"{holder}.") for holder in holders)


def _of_block(tensors: Tensors, prefix: str) -> list[tuple[str, Tensor]]:
    return [(name[len(prefix) :], tensor) for name, tensor in tensors.items() if name.startswith(prefix)]


def unit_sources(old: int, new: int) -> list[int]:
    """Of which unit each is a copy: once through all of them, then again from the first, until there are enough."""
    sources: list[int] = []
    while len(sources) < new:
        sources.append(len(sources) if len(sources) < old else sources[len(sources) - old])
    return sources


def head_sources(old_heads: int, new_heads: int, head_width: int) -> list[int]:
    """The same for queries, keys and values in one layer: whole heads are copied, in each of the three parts."""
    sources = []
    for part in range(3):
        for head in unit_sources(old_heads, new_heads):
            for channel in range(head_width):
                sources.append((part * old_heads + head) * head_width + channel)
    return sources


def added_up(weight: Tensor, sources: list[int], units: int) -> Tensor:
    """Weights on copies of a unit, along dimension 1, added up: float64."""
    total = torch.zeros(len(weight), units, *weight.shape[2:], dtype=torch.float64)
    for out in range(len(weight)):
        for place, unit in enumerate(sources):
            total[out, unit] += weight[out, place].double()
    return total


def copied(tensor: Tensor, sources: list[int], dim: int) -> Tensor:
    """A copy of the unit that each place names, along ``dim``."""
    return torch.stack([tensor.select(dim, unit) for unit in sources], dim)


def counts(sources: list[int]) -> list[int]:
    """How many copies there are of the unit at each place."""
    return [sources.count(unit) for unit in sources]


def divided(tensor: Tensor, by: list[int], dim: int) -> Tensor:
    """Each unit along ``dim`` divided by its number."""
    return torch.stack([tensor.select(dim, place) / number for place, number in enumerate(by)], dim)


def interpolated(values: list[float], new: int) -> list[float]:
    """Linear interpolation between the middles of ``len(values)`` equal cells, at the middles of ``new`` cells."""
    old = len(values)
    found = []
    for cell in range(new):
        place = (2 * cell + 1) * old / (2 * new) - 0.5
        if place <= 0:
            found.append(values[0])
        elif place >= old - 1:
            found.append(values[-1])
        else:
            below = int(place)
            found.append(values[below] + (place - below) * (values[below + 1] - values[below]))
    return found
