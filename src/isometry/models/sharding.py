"""A teacher too large for one device: its weights are sharded over the processes, and gathered a block at a time.

Fully sharded data parallelism (Zhao et al. 2023, arXiv:2304.11277) by torch's ``fully_shard``. Every forward pass of a
sharded network communicates, so all processes must make equally many; the number of images of each is free.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from isometry.distributed import World
from isometry.models.taps import ENTRANCES, repeated_blocks

Item = TypeVar("Item")


@dataclass(frozen=True)
class GatheredTeacher:
    """A sharded teacher's data for the report: its ``figures``, and the ``features`` (B, C, H, W) of all blocks."""

    figures: dict[str, Any]
    features: list[Tensor]


def shard(network: nn.Module, world: World) -> None:
    """Shards a frozen network's parameters over the processes, in place; buffers stay whole in each.

    Each process keeps 1/N of every parameter on its device. While the network computes, the device also holds one
    whole block (:func:`isometry.models.taps.repeated_blocks`; on a GPU also the next one, which is prefetched), and
    what is in no block: embedding, head, layers between stages. The network must be on the CPU, and the same in every
    process.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    for part in (*repeated_blocks(network), network):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    for method in ENTRANCES:
        if hasattr(network, method):
            register_fsdp_forward_method(network, method)


def is_sharded(network: nn.Module | None) -> bool:
    """Whether a network is sharded."""
    return isinstance(network, FSDPModule)


def bytes_held(network: nn.Module) -> int:
    """Most bytes of a network's parameters on this process's device while the network computes."""
    parameters = list(network.parameters())
    if not is_sharded(network):
        return sum(map(_bytes, parameters))
    own = sum(_bytes(cast(DTensor, parameter).to_local()) for parameter in parameters)
    in_blocks = [sum(map(_bytes, block.parameters())) for block in repeated_blocks(network)]
    rest = sum(map(_bytes, parameters)) - sum(in_blocks)
    return own + rest + max(in_blocks, default=0)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def in_step(items: Iterable[Item], world: World, fallback: Callable[[], object]) -> Iterator[Item]:
    """The items, in step with the other processes; ``fallback`` is called for each item that this one has fewer."""
    waiting = iter(items)
    while True:
        item = next(waiting, None)
        if not world.any(item is not None):
            return
        if item is None:
            fallback()
        else:
            yield item
