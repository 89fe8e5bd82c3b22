"""The data of one run, with every section of a report."""

import numpy as np
import pytest

from helpers.digit_maps import relations
from isometry.report.records.data import ReportData


@pytest.fixture(scope="module")
def full() -> ReportData:
    """A report with every section."""
    decay = np.exp(-np.arange(20) / 5)
    cka = np.linspace(0, 1, 12).reshape(3, 4)
    return ReportData(
        title="Isometry · distillation",
        subtitle="deit_tiny ◄ cait_s24 on digits",
        facts=[("seed", "0"), ("command", "isometry distill --teacher cait_s24")],
        epochs=[
            {
                "epoch": epoch,
                "lr": 1e-3 * (1 - epoch / 20),
                "train/loss": 3 * value + 0.1,
                "train/soft": 2 * value + 0.05,
                "train/whole": value + 0.05,
                "val/top1": 95 - 80 * value,
                "val_ema/top1": 94 - 80 * value,
                "val/top5": 99.5 - 40 * value,
                "val/loss": 2 * value + 0.3,
            }
            for epoch, value in enumerate(decay.tolist())
        ],
        models=[
            {"model": "cait", "role": "teacher", "top1": 96.4, "top1_part": "test", "params": 5_717_416,
             "macs": 363e6, "images_per_s": 201.2, "seconds": 64.0},
            {"model": "KD alone", "top1": 92.8, "top1_part": "test", "params": 520_812, "macs": 30_100_000},
            {"model": "whole map", "role": "student", "top1": 95.1, "top1_part": "test", "params": 520_812,
             "macs": 30_100_000, "images_per_s": 1243.0, "seconds": 72.0},
        ],
        relations=relations(side=5),
        cka_before=cka,
        cka_after=cka[::-1].copy(),
        student_blocks=["1", "2", "3"],
        teacher_blocks=["1", "2", "3", "4"],
        notes=["ran without a teacher's weights: a dry run"],
        config_yaml="seed: 0\nlosses:\n  soft: 1\n",
        marks=[(10.0, "6 → 12 blocks")],
    )  # fmt: skip
