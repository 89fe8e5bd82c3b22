"""Interleaved timing of networks: seconds of each pass, images per second."""

import random
import statistics
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from isometry.models.cost import Forward

ROUNDS, WARM_UP_ROUNDS = 5, 2
"""Minimum number of measured rounds, and warm-up rounds before them."""

Row = dict[str, Any]

Name = TypeVar("Name", bound=Hashable)


def images_per_second(
    model: nn.Module, input_size: tuple[int, int, int], batch_size: int = 64, seconds: float = 0.5
) -> float:
    """Images a second in eval mode: median over batches of zeros, for about ``seconds``, after a warm-up."""
    parameter = next(model.parameters())
    images = torch.zeros(batch_size, *input_size, device=parameter.device, dtype=parameter.dtype)
    was_training = model.training
    times = interleaved_times({"": (model.eval(), [images])}, seconds)[""]
    model.train(was_training)
    return batch_size / statistics.median(times)


@torch.no_grad()
def interleaved_times(
    networks: Mapping[Name, tuple[Forward, Sequence[Tensor]]], seconds: float
) -> dict[Name, list[float]]:
    """Seconds of every forward pass of networks that take turns, for about ``seconds`` each.

    In each round every network runs on one batch, the next round uses the next batch, and so on: other load on the
    machine affects all networks alike, so that their times can be compared. The order within a round is random; the
    first rounds are a warm-up and not counted. At least :data:`ROUNDS` rounds are measured.

    ``networks`` are given by name, each with its batches (B, C, H, W) on its device.
    """
    times: dict[Name, list[float]] = {name: [] for name in networks}
    turns, spent, rounds = random.Random(0), 0.0, -WARM_UP_ROUNDS
    while spent < seconds * len(networks) or rounds < ROUNDS:
        for name in turns.sample(list(networks), len(networks)):
            run, batches = networks[name]
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


def interleaved_speeds(
    runs: Mapping[Name, tuple[Forward, Tensor]], batch_sizes: Sequence[int], seconds: float
) -> dict[Name, list[Row]]:
    """Latency and throughput of each network at each batch size, interleaved, for about ``seconds`` each.

    ``runs`` are given by name, each with its images (N, C, H, W) on its device, which :func:`whole_batches` splits.

    Returns:
        By name a row a batch size: ``batch_size``; ``ms`` (of a batch, median over ``rounds``), ``ms_low`` and
        ``ms_high`` (its quartiles), ``images_per_s``.
    """
    found: dict[Name, list[Row]] = {name: [] for name in runs}
    for size in batch_sizes:
        networks = {name: (run, whole_batches(images, size)) for name, (run, images) in runs.items()}
        for name, taken in interleaved_times(networks, seconds).items():
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
    """Rows of :func:`interleaved_speeds`, each with ``ratio``: the speed relative to the corresponding row of
    ``base``."""
    return [speed | {"ratio": slow["ms"] / speed["ms"]} for speed, slow in zip(speeds, base, strict=True)]


def whole_batches(images: Tensor, size: int) -> list[Tensor]:
    """Images (N, C, H, W) in batches of exactly ``size``; repeated if there are too few for one."""
    enough = images.repeat(-(-size // len(images)), 1, 1, 1)
    return [batch for batch in enough.split(size) if len(batch) == size]
