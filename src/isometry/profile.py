"""What a model costs: parameters, multiply-accumulates, memory of a training step, images a second."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from isometry.objective import Objective


def parameter_count(model: nn.Module) -> int:
    """Parameters, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image: half of the FLOPs that torch counts in matrix products.

    Counted on shapes alone (torch's meta device) where the architecture allows it: the same number.

    Args:
        model: on the meta device only if its forward never asks for values.
        input_size: (C, H, W) of the image.
    """
    was_training = model.training
    model.eval()
    try:
        return _count(model, input_size, torch.device("meta"))
    except (RuntimeError, TypeError):
        # A forward that looks at values, or that mixes in tensors of its own, has to be run in earnest.
        return _count(model, input_size, next(model.parameters()).device)
    finally:
        model.train(was_training)


@torch.no_grad()
def _count(model: nn.Module, input_size: tuple[int, int, int], device: torch.device) -> int:
    # Detached: the counter follows modules through graph hooks, and fails on parameters without a graph.
    state = {
        name: torch.empty_like(tensor, device=device) if device.type == "meta" else tensor.detach()
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    image = torch.zeros(1, *input_size, device=device, dtype=next(model.parameters()).dtype)
    # As plain matrix products: the fused attention of the CPU counts as 0.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        functional_call(model, state, (image,))
    return counter.get_total_flops() // 2


@torch.no_grad()
def images_per_second(
    model: nn.Module, input_size: tuple[int, int, int], batch_size: int = 64, seconds: float = 0.5
) -> float:
    """Images a second in eval mode: median over batches, for about ``seconds``, after a warm-up batch."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    images = torch.zeros(batch_size, *input_size, device=device)
    model(images)
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        _wait_for(device)
        start = time.perf_counter()
        model(images)
        _wait_for(device)
        times.append(time.perf_counter() - start)
    model.train(was_training)
    return batch_size / statistics.median(times)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
