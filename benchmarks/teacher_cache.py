"""What ``--teacher-cache`` saves of a step on the digits: ``python benchmarks/teacher_cache.py``.

The student of recipes/digits/student.yaml under the teacher of recipes/digits/teacher.yaml, and larger ones of the
same family, with random weights. One run asks its teacher, the other reads what a run before has stored; they take
turns step by step in one process, data loading included, and a ratio is that of medians. Writes
results/teacher_cache.json next to this file.
"""

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from relations import processor
from rich.console import Console
from rich.table import Table

from isometry.cli.arguments import parse
from isometry.config import RunConfig
from isometry.distributed import World
from isometry.models.cost import parameter_count
from isometry.training.assemble import assemble
from isometry.training.batch_size import share_batch
from isometry.training.loop import Trainer
from isometry.training.parallelize import prepare
from isometry.training.phase_timer import PHASES

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes" / "digits" / "student.yaml"
THREADS, EPOCHS = 1, 3
COMMON = {
    "patch_size": 4,
    "depth_token_only": 1,
    "init_values": 0.1,
    "num_classes": 10,
    "img_size": 16,
    "in_chans": 1,
}
TEACHERS: dict[str, dict[str, Any]] = {
    "teacher of the demo": {"embed_dim": 96, "depth": 4, "num_heads": 4},
    "twice as wide, twice as deep": {"embed_dim": 192, "depth": 8, "num_heads": 4},
    "four times as wide, six times as deep": {"embed_dim": 384, "depth": 24, "num_heads": 8},
}
"""The last is CaiT-S24, on smaller images."""


def trainer(teacher: dict[str, Any], cache: str) -> Trainer:
    """A run of the recipe, ready for its first step."""
    words = [
        "--config",
        str(RECIPE),
        "--teacher",
        "cait_xxs24_224",
        "--teacher-weights",
        "none",
        "--device",
        "cpu",
    ]
    config: RunConfig = parse(RunConfig, words)
    config.teacher_kwargs, config.teacher_cache = {**COMMON, **teacher}, cache
    world = World(0, 1, torch.device("cpu"))
    config, _ = share_batch(config, world)
    made = Trainer(assemble(config, world), None, world, None, "")
    prepare(made.objective, made.config, world, made.run.spec.input_size)
    made.objective.train()
    return made


def steps(made: Trainer) -> Iterator[dict[str, float]]:
    """Seconds of each step of some epochs, by phase and in all."""
    made.state.epoch = made.state.seen = made.state.step = 0
    for epoch in range(EPOCHS):
        made.state.epoch, made.state.seen = epoch, 0
        groups = made.feed.groups(epoch, 0)
        while True:
            made.watch.read()
            begun = time.perf_counter()
            if (batches := next(groups, None)) is None:
                break
            made.train_step(batches)
            yield {**made.watch.read(), "step": time.perf_counter() - begun}


def measure(name: str, teacher: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: the median seconds of both sides' steps."""
    with tempfile.TemporaryDirectory() as folder:
        filled = trainer(teacher, folder)
        for _ in steps(filled):
            pass
        asking, reading = trainer(teacher, ""), trainer(teacher, folder)
        taken = list(zip(steps(asking), steps(reading), strict=True))
        assert reading.teaching.cache is not None
        assert reading.teaching.cache.asked == 0
        stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    sides = []
    for side in zip(*taken, strict=True):
        sides.append(
            {phase: statistics.median(step.get(phase, 0.0) for step in side) for phase in (*PHASES, "step")}
        )
    assert asking.run.teacher is not None
    return {
        "teacher": name,
        "parameters": parameter_count(asking.run.teacher),
        "MiB an epoch": stored / EPOCHS / 2**20,
        "asked, ms": {phase: 1e3 * seconds for phase, seconds in sides[0].items()},
        "read, ms": {phase: 1e3 * seconds for phase, seconds in sides[1].items()},
        "times faster": sides[0]["step"] / sides[1]["step"],
    }


def main() -> None:
    torch.set_num_threads(THREADS)
    rows = [measure(name, teacher) for name, teacher in TEACHERS.items()]
    setting = {
        "device": processor(),
        "threads": THREADS,
        "target": "at least 2 times faster",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    table = Table(
        title="A step with --teacher-cache", caption=", ".join(f"{k} {v}" for k, v in setting.items())
    )
    for heading in (
        "teacher",
        "parameters",
        "MiB an epoch",
        "asked, ms",
        "of that the teacher",
        "read, ms",
        "times",
    ):
        table.add_column(heading, justify="left" if heading == "teacher" else "right")
    for row in rows:
        asked, read = row["asked, ms"], row["read, ms"]
        table.add_row(
            row["teacher"],
            f"{row['parameters']:,}",
            f"{row['MiB an epoch']:.3g}",
            f"{asked['step']:.3g}",
            f"{asked['teacher']:.3g}",
            f"{read['step']:.3g}",
            f"{row['times faster']:.2f}",
        )
    Console().print(table)
    rounded = json.loads(json.dumps(rows), parse_float=lambda text: float(f"{float(text):.3g}"))
    text = json.dumps({**setting, "rows": rounded}, indent=2, ensure_ascii=False)
    (HERE / "results" / "teacher_cache.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
