"""Speed-up of a training step by ``--teacher-cache``, on the digits: ``python benchmarks/teacher_cache.py``.

The student of recipes/digits/student.yaml with the teacher of recipes/digits/teacher.yaml and with larger ones of the
same architecture, all with random weights. One run computes the teacher's outputs, the other reads them from a cache
that an earlier run has filled. The two alternate step by step in one process, data loading included; a ratio is that of
medians. Writes results/teacher_cache.json.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import ONE_PROCESS, caption, measured_on, rounded, save
from rich.console import Console
from rich.table import Table

from isometry.cli.arguments import parse
from isometry.config import RunConfig
from isometry.models.cost import parameter_count
from isometry.recipes import find_recipe
from isometry.training.assemble import assemble
from isometry.training.loop import Trainer
from isometry.training.parallelize import prepare
from isometry.training.phase_timer import PHASES

RECIPE = "digits/student.yaml"
THREADS, EPOCHS = 1, 3
TEACHER_KWARGS = {
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
"""Sizes of teachers; the last one is that of CaiT-S24."""


def trainer(teacher: dict[str, Any], cache: str) -> Trainer:
    """A run of the recipe before its first step."""
    options = "--teacher cait_xxs24_224 --teacher-weights none --device cpu"
    config: RunConfig = parse(RunConfig, ["--config", find_recipe(RECIPE), *options.split()])
    config.teacher_kwargs, config.teacher_cache = {**TEACHER_KWARGS, **teacher}, cache
    made = Trainer(assemble(config, ONE_PROCESS), None, ONE_PROCESS, None, "")
    prepare(made.objective, made.config, ONE_PROCESS, made.run.spec.input_size)
    made.objective.train()
    return made


def steps(made: Trainer) -> Iterator[dict[str, float]]:
    """Trains all epochs; yields seconds of each step, by phase and in total (``step``)."""
    made.state.epoch = made.state.seen = made.state.step = 0
    for epoch in range(EPOCHS):
        made.state.epoch, made.state.seen = epoch, 0
        groups = made.batches.groups(epoch, 0)
        while True:
            made.timer.read()
            begun = time.perf_counter()
            if (batches := next(groups, None)) is None:
                break
            made.train_step(batches)
            yield {**made.timer.read(), "step": time.perf_counter() - begun}


def measure(name: str, teacher: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: median times of a step without and with the cache."""
    with tempfile.TemporaryDirectory() as folder:
        filled = trainer(teacher, folder)
        for _ in steps(filled):
            pass
        computing, reading = trainer(teacher, ""), trainer(teacher, folder)
        taken = list(zip(steps(computing), steps(reading), strict=True))
        assert reading.cache is not None
        assert reading.cache.misses == 0
        stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    sides = []
    for side in zip(*taken, strict=True):
        sides.append(
            {phase: statistics.median(step.get(phase, 0.0) for step in side) for phase in (*PHASES, "step")}
        )
    assert computing.run.teacher is not None
    return {
        "teacher": name,
        "parameters": parameter_count(computing.run.teacher),
        "MiB an epoch": stored / EPOCHS / 2**20,
        "asked, ms": {phase: 1e3 * seconds for phase, seconds in sides[0].items()},
        "read, ms": {phase: 1e3 * seconds for phase, seconds in sides[1].items()},
        "times faster": sides[0]["step"] / sides[1]["step"],
    }


def main() -> None:
    torch.set_num_threads(THREADS)
    rows = [measure(name, teacher) for name, teacher in TEACHERS.items()]
    setting = measured_on() | {"target": "at least 2 times faster"}
    table = Table("teacher", title="A training step with --teacher-cache", caption=caption(setting))
    for heading in (
        "parameters",
        "MiB per epoch",
        "without cache, ms",
        "teacher, ms",
        "with cache, ms",
        "speed-up",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        computed, read = row["asked, ms"], row["read, ms"]
        table.add_row(
            row["teacher"],
            f"{row['parameters']:,}",
            f"{row['MiB an epoch']:.3g}",
            f"{computed['step']:.3g}",
            f"{computed['teacher']:.3g}",
            f"{read['step']:.3g}",
            f"{row['times faster']:.2f}",
        )
    Console().print(table)
    save("teacher_cache", {**setting, "rows": rounded(rows)})


if __name__ == "__main__":
    main()
