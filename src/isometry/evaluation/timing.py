"""Interleaved timing of networks: seconds of each pass, images per second."""

import random
import statistics
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from isometry.models.cost import Forward

ROUNDS, WARM_UP_ROUNDS = 5, 2
"""Least number of rounds that are measured, and those before them."""

Row = dict[str, Any]

Name = TypeVar("Name", bound=Hashable)


class TimedNetwork(NamedTuple):
    """What is timed, and on what."""

    run: Forward
    batches: Sequence[Tensor]
    """(B, C, H, W) each, on the device that computes."""


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
    times = times_in_turns({name: TimedNetwork(model, batches) for name, model in models.items()}, seconds)
    for name, model in models.items():
        model.train(training[name])
    return times


@torch.no_grad()
def times_in_turns(contenders: Mapping[Name, TimedNetwork], seconds: float) -> dict[Name, list[float]]:
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


def _seconds_of(run: Forward, batch: Tensor) -> float:
    _wait_for(batch.device)
    start = time.perf_counter()
    run(batch)
    _wait_for(batch.device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def speeds_in_turns(
    runs: Mapping[Name, tuple[Forward, Tensor]], batch_sizes: Sequence[int], seconds: float
) -> dict[Name, list[Row]]:
    """How fast each network is at each batch size, all measured in turns.

    Args:
        runs: by name, each with its images (N, C, H, W), on the device that computes.
        batch_sizes: of each, as many different batches as the images make.
        seconds: about so long for each network and batch size.

    Returns:
        By name a row a batch size: ``batch_size``; ``ms`` (of a batch, median over ``rounds``), ``ms_low`` and
        ``ms_high`` (its quartiles), ``images_per_s``.
    """
    found: dict[Name, list[Row]] = {name: [] for name in runs}
    for size in batch_sizes:
        contenders = {
            name: TimedNetwork(run, whole_batches(images, size)) for name, (run, images) in runs.items()
        }
        for name, taken in times_in_turns(contenders, seconds).items():
            low, median, high = statistics.quantiles(taken, n=4, method="inclusive")
            found[name].append(
                {
                    "batch_size": size,
                    "ms": 1000 * median,
                    "ms_low": 1000 * low,
                    "ms_high": 1000 * high,
                    "images_per_s": size / median,
                    "rounds": len(taken),
                }
            )
    return found


def with_ratios(speeds: Sequence[Row], base: Sequence[Row]) -> list[Row]:
    """Rows of :func:`speeds_in_turns`, each with ``ratio``: how many times as fast as the row of ``base`` beside it."""
    return [speed | {"ratio": slow["ms"] / speed["ms"]} for speed, slow in zip(speeds, base, strict=True)]


def whole_batches(images: Tensor, size: int) -> list[Tensor]:
    """Images (N, C, H, W) in batches of exactly ``size``; repeated if there are too few for one."""
    enough = images.repeat(-(-size // len(images)), 1, 1, 1)
    return [batch for batch in enough.split(size) if len(batch) == size]
