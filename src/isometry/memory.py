"""What one training step holds in memory, and what one pass of inference does."""

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from isometry.blocks import repeated_blocks
from isometry.objective import Objective
from isometry.sharding import bytes_held


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
    recomputes: bool = False,
) -> StepMemory:
    """Memory of a training step, from what autograd really keeps for ``probe`` images and for twice as many.

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
        recomputes: whether the student's blocks are computed again in the backward pass: then the largest of them is
            whole there beside what all of them keep.
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
        teacher=bytes_held(teacher) if teacher is not None else 0,
        # Matrices of channels are as large for any batch.
        activations=few + (more - few) * (batch_size - probe) // probe,
    )


def _kept_at_most(objective: Objective, images: Tensor, recomputes: bool) -> int:
    network, terms, _ = _kept_bytes(objective, images)
    block = 0
    if recomputes:
        objective.student.set_grad_checkpointing(False)  # type: ignore[operator]
        block = _kept_bytes(objective, images)[2]
        objective.student.set_grad_checkpointing(True)  # type: ignore[operator]
    # The terms have let go of theirs when the last block, as the first one, is computed again.
    return network + max(terms, block)


def _kept_bytes(objective: Objective, images: Tensor) -> tuple[int, int, int]:
    """Bytes beside parameters that autograd keeps of a step: of the student, the terms, the largest block."""
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


def weight_bytes(network: nn.Module) -> int:
    """Bytes of a network's parameters and buffers, each storage once."""
    tensors = (*network.parameters(), *network.buffers())
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


@torch.no_grad()
def pass_bytes(run: Callable[[Tensor], object], images: Tensor) -> int:
    """The most bytes that one pass holds at once, of those that it takes from torch's allocator, its answer included.

    Neither weights nor ``images`` count, nor what libraries of kernels take for themselves (oneDNN's scratch space).
    On the CPU it is the allocator's record of every block, so exact and the same each time; on a GPU the allocator's
    own peak, in its blocks of 512 bytes.

    Args:
        run: has made a pass of this size before, so that it makes nothing ready now.
        images: (B, C, H, W).
    """
    if images.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(images.device)
        before = torch.cuda.memory_allocated(images.device)
        run(images)
        torch.cuda.synchronize(images.device)
        return torch.cuda.max_memory_allocated(images.device) - before
    with _quiet_profiler(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        answer = run(images)
    del answer
    return allocator_peak(recorded)


def allocator_peak(recorded: profile) -> int:
    """The most bytes that were held at once while a profile was recorded, of those taken in that time."""
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # type: ignore[attr-defined]
        peak = max(peak, held)
    return peak


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """The profiler's library writes notes of its own to the process' standard error, past Python's."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
