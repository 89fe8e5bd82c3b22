"""Training time saved by growth, and the time of a growth: ``python benchmarks/growth.py``.

DeiT-Tiny at 224 pixels on random images: steps of a run that grows from 6 to 12 blocks (half of them at each depth)
against as many steps at 12 blocks. The two runs alternate step by step in one process. Writes results/growth.json.
"""

import statistics
import time

import torch
from common import ONE_PROCESS, caption, measured_on, rounded, save
from rich.console import Console
from rich.table import Table

from isometry.config import GrowConfig, RunConfig
from isometry.models.cost import macs
from isometry.training.assemble import Run, assemble, enter_stage
from isometry.training.growth import grow
from isometry.training.loop import Trainer

THREADS, BATCH, STEPS = 2, 16, 32
OPERATORS = ("insert", "stack", "identity")


def config(operator: str = "insert") -> RunConfig:
    """DeiT-Tiny with the optimizer and moving average of DeiT, growing from 6 to 12 blocks."""
    return RunConfig(
        model="deit_tiny_patch16_224",
        dataset="digits",
        batch_size=BATCH,
        workers=0,
        lr=5e-4,
        model_ema=True,
        epochs=2,
        warmup_epochs=0,
        grow=GrowConfig(depth="6,12", depth_operator=operator),  # type: ignore[arg-type]
    )


def one_step(trainer: Trainer, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Seconds of a training step: forward, backward, optimizer, moving average."""
    start = time.perf_counter()
    result = trainer.objective(images, labels)
    result["loss"].backward()
    trainer._update()
    return time.perf_counter() - start


def trainer_at(run: Run, number: int) -> Trainer:
    """A trainer at a stage of the run."""
    return Trainer(enter_stage(run, run.schedule.stages[number]), None, ONE_PROCESS, None, "")


def growth_seconds(operator: str) -> float:
    """Seconds of a growth that keeps the optimizer state: new network, weights, optimizer."""
    run = assemble(config(operator), ONE_PROCESS)
    trainer = Trainer(run, None, ONE_PROCESS, None, "")
    one_step(trainer, torch.randn(2, 3, 224, 224), torch.tensor([0, 1]))
    start = time.perf_counter()
    grow(trainer.run, run.schedule.stages[1], trainer.optimizer, ONE_PROCESS)
    return time.perf_counter() - start


def side_by_side(
    run: Run, images: torch.Tensor, labels: torch.Tensor
) -> tuple[list[float], list[float], float]:
    """Seconds of each step of the growing run and of the run at full size, and of the growth."""
    growing, full = trainer_at(run, 0), trainer_at(run, 1)
    growth = 0.0
    ours: list[float] = []
    theirs: list[float] = []
    for step in range(STEPS):
        if step == STEPS // 2:
            start = time.perf_counter()
            stage = run.schedule.stages[1]
            growing._enter(*grow(growing.run, stage, growing.optimizer, ONE_PROCESS)[:2])
            growth = time.perf_counter() - start
        if step in (0, STEPS // 2):
            # Warm-up: the first step of a network allocates.
            one_step(growing, images, labels)
            one_step(full, images, labels)
        ours.append(one_step(growing, images, labels))
        theirs.append(one_step(full, images, labels))
    return ours, theirs, growth


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    run = assemble(config(), ONE_PROCESS)
    images, labels = torch.randn(BATCH, 3, 224, 224), torch.arange(BATCH) % 10
    ours, theirs, growth = side_by_side(run, images, labels)
    half = STEPS // 2
    costs = [macs(enter_stage(run, stage).student, (3, 224, 224)) for stage in run.schedule.stages]
    growths = {
        operator: statistics.median(growth_seconds(operator) for _ in range(3)) for operator in OPERATORS
    }
    report(
        {
            "batch": BATCH,
            "steps of each side": STEPS,
            "seconds at full size": sum(theirs),
            "seconds of 6→12": sum(ours),
            "measured speed-up of the steps (target 1.28)": sum(theirs) / sum(ours),
            "the same from medians of steps": 2
            * statistics.median(theirs)
            / (statistics.median(ours[:half]) + statistics.median(ours[half:])),
            "the same with the growth in these few steps": sum(theirs) / (sum(ours) + growth),
            "ideal by multiply-accumulates": 2 * costs[1] / (costs[0] + costs[1]),
            "seconds of one growth": growths,
        }
    )


def report(figures: dict[str, object]) -> None:
    """Prints the figures as a table and saves them."""
    setting, figures = measured_on(), rounded(figures, digits=4)
    table = Table("what", "figure", title="Growing DeiT-Tiny 6→12 at 224 pixels", caption=caption(setting))
    for name, value in figures.items():
        table.add_row(name, caption(value) if isinstance(value, dict) else str(value))
    Console().print(table)
    save("growth", {**setting, **figures})


if __name__ == "__main__":
    main()
