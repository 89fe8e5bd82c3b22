"""What one training step holds in memory."""

from dataclasses import dataclass

import torch
from torch import Tensor

from isometry.objective import Objective


@dataclass(frozen=True)
class StepMemory:
    """Bytes that one training step holds at its peak, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    moving_average: int
    teacher: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return (
            self.weights
            + self.gradients
            + self.optimizer
            + self.moving_average
            + self.teacher
            + self.activations
        )


def step_memory(
    objective: Objective,
    input_size: tuple[int, int, int],
    batch_size: int,
    *,
    moments: float,
    moving_average: bool,
    amp_dtype: torch.dtype | None = None,
    probe: int = 2,
) -> StepMemory:
    """Memory of a training step, from what autograd really keeps for ``probe`` images, scaled to the batch.

    Gradients count in full, though they come as activations go; workspaces of single operations don't:
    within a third of the allocator's peak at 16 images and more (tests/test_profile.py measures it).

    Args:
        objective: student, teacher and terms.
        input_size: (C, H, W) of an image.
        batch_size: images a step.
        moments: numbers that the optimizer keeps a parameter (AdamW: 2).
        moving_average: whether an EMA is kept.
        amp_dtype: mixed precision's type, or None without it.
        probe: images to try.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = next(objective.student.parameters()).device
    owned = {p.untyped_storage().data_ptr() for p in objective.parameters()}
    images = torch.zeros(probe, *input_size, device=device)
    labels = torch.zeros(probe, dtype=torch.long, device=device)
    was_training = objective.training
    objective.train()
    buffers = {name: value.clone() for name, value in objective.student.named_buffers()}
    autocast = torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        objective(images, labels)
    for name, value in objective.student.named_buffers():
        value.copy_(buffers[name])
    objective.train(was_training)
    activations = sum(size for pointer, size in kept.items() if pointer not in owned) * batch_size // probe
    weights = sum(p.numel() * p.element_size() for p in objective.student.parameters())
    teacher = objective.teacher
    return StepMemory(
        weights=weights,
        gradients=weights,
        optimizer=round(moments * weights),
        moving_average=weights if moving_average else 0,
        teacher=sum(p.numel() * p.element_size() for p in teacher.parameters()) if teacher is not None else 0,
        activations=activations,
    )
