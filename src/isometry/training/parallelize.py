"""Prepares an objective for its first step: freezes parameters without gradients, compiles, distributes."""

from contextlib import AbstractContextManager, nullcontext

import torch

from isometry.config import OptimConfig
from isometry.distributed import World, freeze_unreached
from isometry.training.objective import Objective


def prepare(
    objective: Objective, config: OptimConfig, world: World, input_size: tuple[int, int, int]
) -> None:
    """Compiles the objective if the config says so, and distributes it over the processes.

    A teacher that an earlier objective compiled is not compiled again.
    """
    if world.size > 1:
        _freeze_unused(objective, world, input_size)
    if config.compile:
        # For torch, which counts by code, the networks of all stages of growth are recompilations of one function.
        torch._dynamo.config.recompile_limit += 2
        # A size that differs (between student and teacher, too) would make torch compile for any size, more slowly.
        objective.compile(backend=config.compile_backend, dynamic=False)
    if world.size > 1:
        gpu = [world.device.index] if world.device.type == "cuda" else None
        objective.prepare_distributed(device_ids=gpu)


def uncompiled(when: bool = True) -> AbstractContextManager[None]:
    """Runs networks as if they were not compiled: a batch of another size or mode would be another compilation."""
    return torch.compiler.set_stance("force_eager") if when else nullcontext()


def _freeze_unused(objective: Objective, world: World, input_size: tuple[int, int, int]) -> None:
    """Freezes parameters without gradients, e.g. a head under terms on tokens alone: processes would wait for them."""
    buffers = [buffer.clone() for buffer in objective.student.buffers()]
    objective.train()
    images, labels = torch.zeros(2, *input_size), torch.zeros(2).long()
    result = objective(images.to(world.device), labels.to(world.device))
    freeze_unreached(objective.get_trainable_module(), result["loss"])
    # The forward pass has updated the running statistics of norms.
    for buffer, before in zip(objective.student.buffers(), buffers, strict=True):
        buffer.copy_(before)
