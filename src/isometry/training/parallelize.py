"""Prepares an objective for its first step: freezes parameters without gradients, compiles, distributes."""

import torch

from isometry.config import OptimConfig
from isometry.distributed import World, freeze_unreached
from isometry.training.objective import Objective


def prepare(
    objective: Objective, config: OptimConfig, world: World, input_size: tuple[int, int, int]
) -> None:
    """Compiles the objective if the config says so, and distributes it over the processes."""
    if world.size > 1:
        _freeze_unused(objective, world, input_size)
    if config.compile:
        # An earlier network of another size counts against the limit of recompilations.
        torch.compiler.reset()
        objective.compile(backend=config.compile_backend)
    if world.size > 1:
        gpu = [world.device.index] if world.device.type == "cuda" else None
        objective.prepare_distributed(device_ids=gpu)


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
