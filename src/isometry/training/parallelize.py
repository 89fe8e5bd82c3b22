"""What an objective goes through before its first step: parameters out of reach frozen, compiled, distributed."""

import torch

from isometry.config import RunConfig
from isometry.distributed import World, freeze_unreached
from isometry.training.objective import Objective


def prepare(objective: Objective, config: RunConfig, world: World, input_size: tuple[int, int, int]) -> None:
    """Compiles and distributes what trains, as the config and the processes ask for."""
    if world.size > 1:
        _freeze_what_no_term_reaches(objective, world, input_size)
    if config.compile:
        # A network of another size before this one has left its graphs and used up its recompilations.
        torch.compiler.reset()
        objective.compile(backend=config.compile_backend)
    if world.size > 1:
        gpu = [world.device.index] if world.device.type == "cuda" else None
        objective.prepare_distributed(device_ids=gpu)


def _freeze_what_no_term_reaches(
    objective: Objective, world: World, input_size: tuple[int, int, int]
) -> None:
    """Terms on tokens alone leave a head without gradients, and processes would wait for those."""
    buffers = [buffer.clone() for buffer in objective.student.buffers()]
    objective.train()
    images, labels = torch.zeros(2, *input_size), torch.zeros(2).long()
    result = objective(images.to(world.device), labels.to(world.device))
    freeze_unreached(objective.get_trainable_module(), result["loss"])
    # Norms count every batch that they see.
    for buffer, before in zip(objective.student.buffers(), buffers, strict=True):
        buffer.copy_(before)
