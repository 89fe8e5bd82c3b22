"""Runs to compare, as their folders would have them: groups of seeds around a figure of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from helpers.digit_maps import relations
from isometry.report.records.data import ReportData
from isometry.report.records.run_folders import RunReport


def compared_run(folder: str, top1: float, seed: int = 0, **options: Any) -> RunReport:
    """A finished run of five epochs that ends at ``top1`` (percent)."""
    epochs = [
        {"epoch": at, "step": 6 * at, "train/loss": 5.0 / at, "train/whole": 1.0 / at, "lr": 1e-3,
         "val/top1": top1 * at / 5, "val/loss": 2.0 / at}
        for at in range(1, 6)
    ]  # fmt: skip
    part = {"top1_part": "test"}
    data = ReportData(
        title="vit_tiny ◄ cait on digits",
        facts=[("Seed", str(seed)), ("Command", f"isometry distill --seed {seed}")],
        epochs=epochs,
        models=[
            {"model": "teacher cait", "role": "teacher", "top1": 97.0, **part, "params": 564_746,
             "images_per_s": 8200.0},
            {"model": "student vit_tiny", "role": "student", "top1": top1, **part, "params": 54_850,
             "macs": 973_520, "images_per_s": 28_000.0 + seed, "seconds": 10.0 + seed},
        ],
        relations=relations(side=3, blocks=2),
        cka_before=np.full((2, 2), 0.5),
        cka_after=np.eye(2),
        student_blocks=["1", "2"],
        teacher_blocks=["1", "2"],
        config_yaml=f"seed: {seed}\n",
    )  # fmt: skip
    return RunReport(Path(folder), data, {"seed": seed, "out": folder, **options})


def two_variants() -> list[RunReport]:
    """Three seeds each; "whole" gains 6, 8 and 4 points over "soft"."""
    soft, whole = {"losses.soft": 1.0}, {"losses.soft": 1.0, "losses.whole": 4.0}
    tops = {0: (88.0, 94.0), 1: (86.0, 94.0), 2: (90.0, 94.0)}
    runs = []
    for seed, (first, second) in tops.items():
        runs.append(compared_run(f"runs/soft/seed-{seed}", first, seed, **soft))
        runs.append(compared_run(f"runs/whole/seed-{seed}", second, seed, **whole))
    return runs


def with_data(run: RunReport, **changed: Any) -> RunReport:
    """The same run with some of its data replaced."""
    return replace(run, data=replace(run.data, **changed))
