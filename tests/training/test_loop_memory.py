"""The memory of a run does not grow with its steps."""

import gc
import json
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import LIVELY, TINY_STUDENT, start

FIRST, LAST = 200, 2000


def resident_bytes() -> int:
    """What this process and those that it started hold in memory, what they share counted once (Linux: Pss).

    Not what is mapped from files: a library's part falls to each of all processes on the machine that use it.
    """
    listed = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="], capture_output=True, text=True, check=True
    )
    children = [line.split()[0] for line in listed.stdout.splitlines() if "ps" not in line.split()[1:]]
    total = 0
    for process in ["self", *children]:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += sum(
            int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))
        )
    return total


def weigh(path: str) -> None:
    """Writes down what the run holds after some of its steps."""
    from isometry.training.loop import Trainer

    step, held = Trainer.train_step, {}

    def weighed(self: Trainer, batches: list[Any]) -> bool:
        asked = step(self, batches)
        if self.state.step in (FIRST, LAST):
            gc.collect()
            held[self.state.step] = resident_bytes()
            Path(path).write_text(json.dumps(held))
        return asked

    Trainer.train_step = weighed


@pytest.mark.slow
def test_a_run_holds_as_much_after_2000_steps_as_after_200(tiny_teacher: Path, tmp_path: Path) -> None:
    """Everything on: augmentation in a process of its own, moving average, saves in the epoch, random terms."""
    words = ["distill", *TINY_STUDENT, "--teacher", f"local-dir:{tiny_teacher}", *LIVELY]
    words += ["--batch-size", "45", "--epochs", "100", "--workers", "1", "--recovery-interval", "50"]
    weighing = partial(weigh, str(tmp_path / "held"))
    ended = start(*words, "--out", str(tmp_path / "run"), said=tmp_path / "said", prepare=weighing).wait(600)
    assert ended.code == 0, ended.err
    held = json.loads((tmp_path / "held").read_text())
    assert held[str(LAST)] <= 1.05 * held[str(FIRST)], held
