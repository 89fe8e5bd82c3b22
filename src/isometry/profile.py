"""What a model costs: parameters, multiply-accumulates, images a second."""

import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

ROUNDS, WARM_UP_ROUNDS = 5, 2
"""Least number of rounds that are measured, and those before them."""

Run = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) -> what a network says of them (B, ...)."""

Name = TypeVar("Name", bound=Hashable)


class Contender(NamedTuple):
    """What is timed, and on what."""

    run: Run
    batches: Sequence[Tensor]
    """(B, C, H, W) each, on the device that computes."""


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


def images_per_second(
    model: nn.Module, input_size: tuple[int, int, int], batch_size: int = 64, seconds: float = 0.5
) -> float:
    """Images a second in eval mode: median over batches of zeros, for about ``seconds``, after a warm-up."""
    parameter = next(model.parameters())
    images = torch.zeros(batch_size, *input_size, device=parameter.device, dtype=parameter.dtype)
    times = taking_turns({"": model}, [images], seconds)[""]
    return batch_size / statistics.median(times)


def taking_turns(
    models: Mapping[str, nn.Module], batches: Sequence[Tensor], seconds: float
) -> dict[str, list[float]]:
    """:func:`times_in_turns` of models, in eval mode, on the same batches (B, C, H, W), which are on their device."""
    training = {name: model.training for name, model in models.items()}
    for model in models.values():
        model.eval()
    times = times_in_turns({name: Contender(model, batches) for name, model in models.items()}, seconds)
    for name, model in models.items():
        model.train(training[name])
    return times


@torch.no_grad()
def times_in_turns(contenders: Mapping[Name, Contender], seconds: float) -> dict[Name, list[float]]:
    """Seconds of every pass of contenders that take turns, for about ``seconds`` each.

    A round gives one batch to every contender, the next batch to the next round, and over again: what else the machine
    does meets all alike, and they can be compared with each other. The order within a round is drawn, so that none
    always follows the same other one; the first rounds warm up and don't count.

    Args:
        contenders: by name.
        seconds: at least :data:`ROUNDS` rounds are measured, however long they take.
    """
    times: dict[Name, list[float]] = {name: [] for name in contenders}
    turns, spent, rounds = random.Random(0), 0.0, -WARM_UP_ROUNDS
    while spent < seconds * len(contenders) or rounds < ROUNDS:
        for name in turns.sample(list(contenders), len(contenders)):
            run, batches = contenders[name]
            taken = _seconds_of(run, batches[rounds % len(batches)])
            if rounds >= 0:
                times[name].append(taken)
                spent += taken
        rounds += 1
    return times


def _seconds_of(run: Run, batch: Tensor) -> float:
    _wait_for(batch.device)
    start = time.perf_counter()
    run(batch)
    _wait_for(batch.device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
