"""Times of real runs: a row for each epoch, all phases, no more than the elapsed time."""

import csv
import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import TINY_STUDENT, call_at, run, send_self, signalled_at_step
from isometry.report.records.data import REST
from isometry.report.times import NAMES
from isometry.training.checkpoint.index import read_index
from isometry.training.phase_timer import PHASES

KEYS = ["epoch", "steps", *PHASES, REST]
ALONE = ["train", *TINY_STUDENT, "--epochs", "2"]


@pytest.fixture
def taught(tiny_teacher: Path) -> list[str]:
    """Twelve steps in two epochs."""
    teacher = ["--teacher", f"local-dir:{tiny_teacher}", "--losses.whole", "1"]
    return ["distill", *TINY_STUDENT, *teacher, "--epochs", "2"]


def times_of(out: Path) -> list[dict[str, Any]]:
    """The rows, as both files have them; of no more seconds than the whole training took."""
    rows = [json.loads(line) for line in (out / "times.jsonl").read_text().splitlines()]
    with (out / "times.csv").open(newline="") as file:
        assert [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)] == rows
    assert [list(row) for row in rows] == [KEYS] * len(rows)
    spent = sum(row[phase] for row in rows for phase in (*PHASES, REST))
    assert 0 < spent <= read_index(out / "last" / "checkpoint.json")["loop"]["seconds"]
    return rows


def ended(words: list[str], out: Path, prepare: Any = None, code: int = 0) -> str:
    """Runs it; what it said."""
    end = run(*words, "--out", str(out), said=out.with_name("said"), prepare=prepare, report=True)
    assert end.code == code, end.err
    return end.out


def time_lines(said: str) -> list[str]:
    """Of what a run said at its end."""
    return [line for line in said.splitlines() if line.startswith("Time ")]


def test_every_phase_takes_time_in_every_epoch(taught: list[str], tmp_path: Path) -> None:
    said = ended(taught, tmp_path / "run")
    rows = times_of(tmp_path / "run")
    assert [(row["epoch"], row["steps"]) for row in rows] == [(1, 6), (2, 6)]
    assert all(row[phase] > 0 for row in rows for phase in (*PHASES, REST))
    (line,) = time_lines(said)
    assert all(NAMES.get(name, name) in line for name in (*PHASES, REST))
    assert 'id="times"' in (tmp_path / "run" / "report.html").read_text()
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert not set(metrics) & {"steps", *PHASES, *(f"seconds/{phase}" for phase in PHASES)}


def test_without_a_teacher_it_takes_none(tmp_path: Path) -> None:
    said = ended(ALONE, tmp_path / "run")
    assert [row["teacher"] for row in times_of(tmp_path / "run")] == [0.0, 0.0]
    assert all("teacher" not in line for line in time_lines(said))
    page = (tmp_path / "run" / "report.html").read_text()
    assert ">teacher<" not in page[page.index('id="times"') : page.index('id="facts"')]


def test_steps_are_those_of_the_optimizer(tmp_path: Path) -> None:
    """Of six batches, four at a time."""
    ended([*ALONE, "--grad-accum-steps", "4"], tmp_path / "run")
    assert [row["steps"] for row in times_of(tmp_path / "run")] == [2, 2]


def test_every_stage_of_growth_is_timed(tmp_path: Path) -> None:
    ended(["grow", *ALONE[1:], "--grow.depth", "1,2"], tmp_path / "run")
    rows = times_of(tmp_path / "run")
    assert [row["steps"] for row in rows] == [6, 6]
    assert all(row["student"] > 0 for row in rows)


def test_an_epoch_that_was_resumed_timed_the_steps_since(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended(ALONE, out, signalled_at_step(9, signal.SIGTERM))
    assert [row["steps"] for row in times_of(out)] == [6]
    ended([*ALONE, "--resume"], out)
    assert [(row["epoch"], row["steps"]) for row in times_of(out)] == [(1, 6), (2, 3)]
    assert "Of the run’s 12 steps 9 were timed" in (out / "report.html").read_text()


def test_an_epoch_whose_save_was_lost_is_not_timed_twice(tmp_path: Path) -> None:
    """Killed when the second epoch's row is written and its save is not, it evaluates again."""
    out = tmp_path / "run"
    kill = partial(send_self, signal.SIGKILL)
    die = partial(call_at, "isometry.training.checkpoint.run_state:RunState.save_last", 4, kill)
    ended(ALONE, out, die, code=-signal.SIGKILL)
    assert len((out / "times.jsonl").read_text().splitlines()) == 2
    ended([*ALONE, "--resume"], out)
    assert [(row["epoch"], row["steps"]) for row in times_of(out)] == [(1, 6), (2, 0)]


def test_an_epoch_of_which_only_the_evaluation_was_left_timed_no_step(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [*ALONE, "--epochs", "1"]
    ended(words, out, signalled_at_step(6, signal.SIGTERM))
    said = ended([*words, "--resume"], out)
    (row,) = times_of(out)
    assert row["steps"] == row["student"] == 0
    assert time_lines(said) == []
    assert 'id="times"' not in (out / "report.html").read_text()
