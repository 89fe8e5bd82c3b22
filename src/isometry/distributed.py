"""The processes of a run: those that ``torchrun`` started, or a single one."""

import atexit
import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from isometry.errors import UserError


@dataclass(frozen=True)
class World:
    """Rank of this process, number of processes, and the device that it trains on."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over the processes, in float64; one synchronization."""
        if self.size == 1:
            return list(values)
        return self.total(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def total(self, values: Tensor) -> Tensor:
        """Element-wise sum of a tensor over the processes, on its device and in its dtype."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def mean(self, values: Tensor) -> Tensor:
        """Element-wise mean of a tensor over the processes, on its device."""
        return values if self.size == 1 else self.total(values) / self.size

    def gather(self, value: list[int]) -> list[list[int]]:
        """The list of every process, by rank."""
        if self.size == 1:
            return [value]
        lists: list[list[int]] = [[] for _ in range(self.size)]
        dist.all_gather_object(lists, value)
        return lists

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Broadcasts the values of rank 0, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.sum([float(flag)])[0] > 0

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Destroys the process group."""
        if self.size > 1:
            dist.destroy_process_group()


@contextmanager
def lost_processes(world: World, advice: Callable[[], str]) -> Iterator[None]:
    """Turns errors that the loss of another process causes into a UserError that ends with ``advice``."""
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise UserError(
            f"process {world.rank} of {world.size} lost another one, which was killed or ended with its own error; "
            f"{advice()}"
        ) from error


def freeze_unreached(module: nn.Module, loss: Tensor) -> None:
    """Freezes the parameters that ``loss`` does not depend on, which get no gradient anyway."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def join_world(device: str = "") -> World:
    """Joins the process group that ``torchrun`` describes in the environment; without one, a single process.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; empty for a GPU if available.

    Raises:
        UserError: the device is not available.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if chosen.type not in ("cpu", str(torch.accelerator.current_accelerator() or "cpu")):
            raise RuntimeError("such as meta, which computes nothing")
        if chosen.type == "cuda":
            chosen = torch.device("cuda", local_rank if size > 1 else (chosen.index or 0))
            torch.cuda.set_device(chosen)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: not available here; use --device cpu") from error
    if size == 1:
        return World(0, 1, chosen)
    if not dist.is_initialized():
        # DistributedDataParallel holds the group in reference cycles, and the group's threads hold tensors: threads
        # that outlive the interpreter abort the process (PyTorch pull request 179291).
        atexit.register(gc.collect)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(dist.get_rank(), size, chosen)


def cores_per_process() -> int:
    """CPU cores of this machine that each of its processes has, at least 1."""
    # os.cpu_count also counts those that a container or a batch system withholds.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // local_processes())


def local_processes() -> int:
    """Processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
