"""What growing saves on the clock, and what it costs: ``python benchmarks/growth.py``.

DeiT-Tiny at 224 pixels: as many steps at full size as of the schedule 6→12 (half of them at depth 6, the growth
itself, half at depth 12), by the engine's own steps on random images. The two sides take turns step by step in one
process. Writes results/growth.json next to this file.
"""

import json
import platform
import statistics
import time
from pathlib import Path

import timm
import torch
from relations import processor
from rich.console import Console
from rich.table import Table

from isometry.config import GrowConfig, RunConfig
from isometry.distributed import World
from isometry.models.cost import macs
from isometry.training.assemble import Run, assemble, enter_stage
from isometry.training.growth import grow
from isometry.training.loop import Trainer

HERE = Path(__file__).parent
THREADS, BATCH, STEPS = 2, 16, 32
OPERATORS = ("insert", "stack", "identity")
ALONE = World(0, 1, torch.device("cpu"))


def config(operator: str = "insert") -> RunConfig:
    """DeiT-Tiny with DeiT's optimizer and moving average, growing from 6 blocks to 12."""
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
    """Seconds of forward, backward, optimizer and moving average, as the loop does them."""
    start = time.perf_counter()
    result = trainer.objective(images, labels)
    result["loss"].backward()
    trainer._update()
    return time.perf_counter() - start


def trainer_at(run: Run, number: int) -> Trainer:
    """A trainer of the run at one of its stages."""
    return Trainer(enter_stage(run, run.schedule.stages[number]), None, ALONE, None, "")


def growth_seconds(operator: str) -> float:
    """Seconds of one growth with moments carried: new network, weights, optimizer."""
    run = assemble(config(operator), ALONE)
    trainer = Trainer(run, None, ALONE, None, "")
    one_step(trainer, torch.randn(2, 3, 224, 224), torch.tensor([0, 1]))
    start = time.perf_counter()
    grow(trainer.run, run.schedule.stages[1], trainer.optimizer, ALONE)
    return time.perf_counter() - start


def side_by_side(
    run: Run, images: torch.Tensor, labels: torch.Tensor
) -> tuple[list[float], list[float], float]:
    """Seconds of each step of the run that grows, of each at full size, and of the growth."""
    growing, full = trainer_at(run, 0), trainer_at(run, 1)
    growth = 0.0
    ours: list[float] = []
    theirs: list[float] = []
    for step in range(STEPS):
        if step == STEPS // 2:
            start = time.perf_counter()
            stage = run.schedule.stages[1]
            growing._adopt(*grow(growing.run, stage, growing.optimizer, ALONE)[:2])
            growth = time.perf_counter() - start
        if step in (0, STEPS // 2):
            one_step(growing, images, labels)  # a network's first step allocates
            one_step(full, images, labels)
        ours.append(one_step(growing, images, labels))
        theirs.append(one_step(full, images, labels))
    return ours, theirs, growth


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    run = assemble(config(), ALONE)
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
    """The table on the terminal, and the file."""
    setting = {
        "device": processor(),
        "threads": THREADS,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }
    caption = ", ".join(f"{key} {value}" for key, value in setting.items())
    table = Table("what", "figure", title="Growing DeiT-Tiny 6→12 at 224 pixels", caption=caption)
    rounded = json.loads(json.dumps(figures), parse_float=lambda text: float(f"{float(text):.4g}"))
    for name, value in rounded.items():
        shown = (
            ", ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, dict) else value
        )
        table.add_row(name, str(shown))
    Console().print(table)
    results = HERE / "results" / "growth.json"
    results.write_text(json.dumps({**setting, **rounded}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
