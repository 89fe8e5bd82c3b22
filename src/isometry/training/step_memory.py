"""Memory of a training step."""

from collections import defaultdict
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from isometry.models.sharding import bytes_held
from isometry.models.taps import repeated_blocks
from isometry.training.objective import Objective


@dataclass(frozen=True)
class StepMemory:
    """Bytes that one training step needs at its peak, by purpose."""

    weights: int
    gradients: int
    optimizer: int
    moving_average: int
    teacher: int
    activations: int
    teacher_images: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        return sum(vars(self).values())


def step_memory(
    objective: Objective,
    input_size: tuple[int, int, int],
    batch_size: int,
    *,
    moments: float,
    moving_average: bool,
    amp_dtype: torch.dtype | None = None,
    probe: int = 2,
    recomputes: bool = False,
) -> StepMemory:
    """Memory of a training step, from the tensors that autograd saves for ``probe`` images and for twice as many.

    Gradients count in full, though they grow as activations are freed; workspaces of single operations don't count.
    The result is within a third of the allocator's peak at 16 images and more.

    Args:
        objective: student, teacher and terms.
        input_size: (C, H, W) of an image, as the objective takes it.
        batch_size: images of a step.
        moments: numbers that the optimizer keeps per parameter (AdamW: 2).
        moving_average: whether an EMA is kept.
        amp_dtype: of mixed precision, or None without it.
        probe: number of images to try.
        recomputes: whether the student's blocks are recomputed in the backward pass; then the largest block counts in
            full, beside the inputs of all.
    """
    student, teacher = objective.student, objective.teacher
    device = next(student.parameters()).device
    autocast = torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None)
    was_training = objective.training
    objective.train()
    buffers = {name: value.clone() for name, value in student.named_buffers()}
    with autocast:
        few, more = (
            _kept_at_most(objective, torch.zeros(count, *input_size, device=device), recomputes)
            for count in (probe, 2 * probe)
        )
    for name, value in student.named_buffers():
        value.copy_(buffers[name])
    objective.train(was_training)
    weights = sum(p.numel() * p.element_size() for p in student.parameters())
    return StepMemory(
        weights=weights,
        gradients=weights,
        optimizer=round(moments * weights),
        moving_average=weights if moving_average else 0,
        teacher=bytes_held(teacher.model) if teacher is not None else 0,
        # Channel-sized matrices don't depend on the batch size.
        activations=few + (more - few) * (batch_size - probe) // probe,
        # Those that are scaled down for the student, which autograd does not save.
        teacher_images=0 if objective.view is None else 4 * batch_size * prod(input_size),
    )


def _kept_at_most(objective: Objective, images: Tensor, recomputes: bool) -> int:
    network, terms, _ = _kept_bytes(objective, images)
    block = 0
    if recomputes:
        objective.student.set_grad_checkpointing(False)  # type: ignore[operator]
        block = _kept_bytes(objective, images)[2]
        objective.student.set_grad_checkpointing(True)  # type: ignore[operator]
    # Tensors of the terms are freed before the first block, the last one, is recomputed.
    return network + max(terms, block)


def _kept_bytes(objective: Objective, images: Tensor) -> tuple[int, int, int]:
    """Bytes besides parameters that autograd saves of a step: of the student, the terms, the largest block."""
    kept: dict[int, int] = {}
    within: list[nn.Module] = []
    kept_in: defaultdict[nn.Module | None, int] = defaultdict(int)

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned and storage.data_ptr() not in kept:
            kept[storage.data_ptr()] = storage.nbytes()
            kept_in[within[-1] if within else None] += storage.nbytes()
        return tensor

    def enter(module: nn.Module, inputs: Any) -> None:
        within.append(module)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        within.pop()

    blocks = repeated_blocks(objective.student)
    hooks = []
    for module in (objective.trainable_module, *blocks):
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(leave))
    labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
    owned = {p.untyped_storage().data_ptr() for p in objective.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective(images, labels)
    for hook in hooks:
        hook.remove()
    terms = kept_in[None]
    return sum(kept.values()) - terms, terms, max((kept_in[block] for block in blocks), default=0)
