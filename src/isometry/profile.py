"""What a model costs: parameters, multiply-accumulates, memory of a training step, images a second."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from isometry.objective import Objective


def parameter_count(model: nn.Module) -> int:
    """Parameters, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image: half of the floating-point operations that torch counts in matrix products.

    Attention runs as plain matrix products here, because torch counts the fused kernel of the CPU as 0.
    """
    was_training = model.training
    model.eval()
    parameter = next(model.parameters())
    image = torch.zeros(1, *input_size, device=parameter.device, dtype=parameter.dtype)
    # With autograd on: the counter follows modules through graph hooks, and fails on parameters without a graph.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(was_training)
    return counter.get_total_flops() // 2


@torch.no_grad()
def images_per_second(
    model: nn.Module, input_size: tuple[int, int, int], batch_size: int = 64, seconds: float = 0.5
) -> float:
    """Images a second in eval mode: the median over batches timed for about ``seconds``, after one warm-up batch."""
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
    moments: int,
    moving_average: bool,
    probe: int = 2,
) -> StepMemory:
    """Memory of a training step, from what autograd really keeps for ``probe`` images, scaled to the batch.

    Args:
        objective: student, teacher and terms.
        input_size: (C, H, W) of an image.
        batch_size: images a step.
        moments: tensors of a parameter's shape that the optimizer keeps (AdamW: 2).
        moving_average: whether an EMA is kept.
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
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
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
        optimizer=moments * weights,
        moving_average=weights if moving_average else 0,
        teacher=sum(p.numel() * p.element_size() for p in teacher.parameters()) if teacher is not None else 0,
        activations=activations,
    )
