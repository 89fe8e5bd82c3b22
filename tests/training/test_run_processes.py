"""Runs of several processes: kills, failures of one process, another number of processes."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.messages import mentions
from helpers.runs import (
    DIGITS,
    SECONDS_TO_WAIT,
    TERMS,
    TINY_STUDENT,
    call_at,
    check_equal,
    contents,
    free_port,
    run,
    run_ranks,
    send_self,
)
from isometry.data.sampler import epoch_order

SLOW = pytest.mark.slow
STEP = "isometry.training.loop:Trainer.train_step"


@pytest.fixture(scope="module")
def words(tiny_teacher: Path) -> list[str]:
    """Two epochs of six steps of 150 images: two processes take 75 each. A save after every second step."""
    options = ["--batch-size", "75", "--epochs", "2", "--recovery-interval", "2"]
    return ["distill", *TINY_STUDENT, "--teacher", f"local-dir:{tiny_teacher}", *TERMS, *options]


def note_images(path: str) -> None:
    """Writes down which images each step of this process takes, a line a step."""
    from isometry.training.loop import Trainer

    step = Trainer.train_step

    def noting(self: Trainer, batches: list[Any]) -> bool:
        images = [int(index) for batch in batches for index in batch.indices]
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([self.state.epoch, self.state.seen, images]) + "\n")
        return step(self, batches)

    Trainer.train_step = noting


def noting_then(path: str, then: partial[None] | None) -> None:
    """What :func:`note_images` does, and something else."""
    note_images(path)
    if then is not None:
        then()


# --- one is killed, one fails
# -----------------------------------------------------------------------------------------------------


def test_when_one_of_two_is_killed_the_other_reports_it_and_both_resume_bitwise(
    words: list[str], tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    ended = run_ranks(*words, "--out", str(whole), folder=tmp_path, port=free_port())
    assert [each.code for each in ended] == [0, 0], ended
    die = partial(call_at, STEP, 6, partial(send_self, signal.SIGKILL))
    begun = time.monotonic()
    ended = run_ranks(*words, "--out", str(out), folder=tmp_path, port=free_port(), prepare=(None, die))
    assert time.monotonic() - begun < 60
    assert [each.code for each in ended] == [2, -signal.SIGKILL], ended
    assert mentions(ended[0].err, "0 of 2")
    assert "--resume" in ended[0].err
    assert len(ended[0].err.splitlines()) == 1
    again = [*words, "--out", str(out), "--resume"]
    ended = run_ranks(*again, folder=tmp_path, port=free_port())
    assert [each.code for each in ended] == [0, 0], ended
    check_equal(contents(out), contents(whole))


@SLOW
@pytest.mark.parametrize("step", [1, 5])
def test_when_the_main_process_is_killed_the_other_exits_too(
    step: int, words: list[str], tmp_path: Path
) -> None:
    die = partial(call_at, STEP, step, partial(send_self, signal.SIGKILL))
    ended = run_ranks(
        *words, "--out", str(tmp_path / "run"), folder=tmp_path, port=free_port(), prepare=(die, None)
    )
    assert [each.code for each in ended] == [-signal.SIGKILL, 2], ended
    assert mentions(ended[1].err, "1 of 2")
    assert ("nothing was saved yet" in ended[1].err) == (step == 1)


def poison() -> None:
    """The ninth step's whole map is not a number in this process."""
    from isometry.losses.soft import SoftLabel

    forward, calls = SoftLabel.forward, [0]

    def spoiled(self: SoftLabel, *inputs: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return forward(self, *inputs) * (float("nan") if calls[0] == 10 else 1.0)

    SoftLabel.forward = spoiled


def test_a_loss_that_is_not_finite_in_one_process_stops_both_and_its_batch_is_written_down(
    words: list[str], tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    notes = [str(tmp_path / f"images-{rank}") for rank in range(2)]
    noting = tuple(partial(note_images, path) for path in notes)
    ended = run_ranks(*words, "--out", str(whole), folder=tmp_path, port=free_port(), prepare=noting)
    assert [each.code for each in ended] == [0, 0], ended
    ended = run_ranks(*words, "--out", str(out), folder=tmp_path, port=free_port(), prepare=(None, poison))
    assert [each.code for each in ended] == [2, 2], ended
    for each in ended:
        assert (
            "step 8 (epoch 2): losses.soft is not finite in process 1, on the training images [" in each.err
        )
        assert "saved at step 8" in each.err
        assert len(each.err.splitlines()) == 1
    told = json.loads((out / "not_finite.json").read_text())
    taken = [[json.loads(line) for line in Path(path).read_text().splitlines()] for path in notes]
    assert told == {
        "step": 8,
        "epoch": 2,
        "images_of_the_epoch_before": 300,
        "terms": ["loss", "soft"],
        "processes": [1],
        "images": [lines[8][2] for lines in taken],
    }
    again = [*words, "--out", str(out), "--resume"]
    ended = run_ranks(*again, folder=tmp_path, port=free_port())
    assert [each.code for each in ended] == [0, 0], ended
    assert not (out / "not_finite.json").exists()
    check_equal(contents(out), contents(whole))


# --- another number of processes
# --------------------------------------------------------------------------------------------------


def images_seen(folder: Path) -> list[tuple[int, int, int]]:
    """(epoch, position in the epoch's global order, image) of all steps that all processes took."""
    seen = []
    for path in folder.glob("images-*"):
        rank, ranks = (int(part) for part in path.name.split("-")[-1].split("of"))
        for line in path.read_text().splitlines():
            epoch, before, images = json.loads(line)
            first = before + rank * len(images)
            seen += [(epoch, first + place, image) for place, image in enumerate(images)]
            assert ranks * len(images) == 150
    return sorted(seen)


@pytest.mark.parametrize("order", ["two, then one", pytest.param("one, then two", marks=SLOW)])
def test_a_run_resumed_with_another_number_of_processes_uses_every_image_once(
    order: str, words: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stop = partial(call_at, STEP, 4, partial(send_self, signal.SIGTERM))

    def alone(*more: str, then: partial[None] | None = None) -> list[int]:
        given = [word if word != "75" or order == "two, then one" else "150" for word in words]
        noting = partial(noting_then, str(tmp_path / "images-alone-0of1"), then)
        return [run(*given, "--out", str(out), *more, said=tmp_path / "alone", prepare=noting).code]

    def both(*more: str, then: partial[None] | None = None) -> list[int]:
        given = [word if word != "75" or order == "two, then one" else "150" for word in words]
        noting = [partial(noting_then, str(tmp_path / f"images-both-{rank}of2"), then) for rank in range(2)]
        ended = run_ranks(
            *given,
            "--out",
            str(out),
            *more,
            folder=tmp_path,
            port=free_port(),
            prepare=(noting[0], noting[1]),
        )
        (tmp_path / "both.out").write_text(ended[0].out)
        return [each.code for each in ended]

    first, second = (both, alone) if order == "two, then one" else (alone, both)
    assert set(first(then=stop)) == {0}
    assert set(second("--resume")) == {0}
    said = (tmp_path / ("alone.out" if second is alone else "both.out")).read_text()
    begun, now = ("2 processes", "1 process") if second is alone else ("1 process", "2 processes")
    assert mentions(said, f"{begun} … {now}")
    wanted = []
    for epoch in range(2):
        permutation = epoch_order(900, seed=42, epoch=epoch, repeats=0).tolist()
        wanted += [(epoch, place, image) for place, image in enumerate(permutation)]
    assert images_seen(tmp_path) == wanted
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [6, 12]


# --- torchrun
# ---------------------------------------------------------------------------------------------------------------------

PRUNED = ["prune", *DIGITS, "--model", "cifar_resnet20", "--epochs", "2"]


def torchrun(*options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "isometry"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def finished(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=SECONDS_TO_WAIT, check=False
    )


@SLOW
def test_torchrun_needs_no_other_option(words: list[str], tmp_path: Path) -> None:
    command = [*torchrun("--standalone", "--nproc-per-node", "2"), *words, "--out", str(tmp_path / "run")]
    done = finished(command)
    assert done.returncode == 0, done.stderr
    check_finished(tmp_path / "run")


@SLOW
@pytest.mark.parametrize("command", ["distill", "grow", "prune"])
def test_every_command_runs_in_several_processes(command: str, words: list[str], tmp_path: Path) -> None:
    given = {
        "distill": words,
        "grow": ["grow", *words[1:], "--grow.depth", "1,2", "--grow.at", "0,1"],
        "prune": [*PRUNED, "--keep-rate", "0.6", "--from-scratch", "--prune.settle", "0"],
    }[command]
    out, processes = tmp_path / "run", 4 if command == "distill" else 2
    given = [*given, "--batch-size", "30", "--out", str(out)]
    ended = run_ranks(*given, folder=tmp_path, port=free_port(), prepare=[None] * processes)
    assert [each.code for each in ended] == [0] * processes, ended[0].err
    assert ("sends" in ended[0].out) == (command != "prune")
    check_finished(out)


def check_finished(out: Path) -> None:
    """The shares of validation, which are no multiple of the processes, count once."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        right = row["val/top1"] / 100 * 397
        assert right == pytest.approx(round(right), abs=1e-6)
    assert (out / "student").is_dir()
    assert (out / "report.html").is_file()


@SLOW
def test_two_machines_meet_by_torchruns_own_rendezvous(words: list[str], tmp_path: Path) -> None:
    out, port = tmp_path / "run", free_port()
    meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "isometry"]
    command = [*torchrun(*meeting, "--rdzv-endpoint", f"localhost:{port}"), *words, "--out", str(out)]
    with (tmp_path / "said").open("w") as said:
        machines = [subprocess.Popen(command, env=environment(), stdout=said, stderr=said) for _ in range(2)]
        codes = [machine.wait(SECONDS_TO_WAIT) for machine in machines]
    assert codes == [0, 0], (tmp_path / "said").read_text()
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2


@SLOW
def test_under_torchrun_a_killed_process_ends_all_and_the_run_goes_on(
    words: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [*torchrun("--standalone", "--nproc-per-node", "2"), *words, "--out", str(out)]
    with (tmp_path / "said").open("w") as said:
        machine = subprocess.Popen(command, env=environment(), stdout=said, stderr=said)
        while not (out / "last" / "checkpoint.json").exists():
            time.sleep(0.05)
        children = subprocess.run(
            ["ps", "--ppid", str(machine.pid), "-o", "pid="], capture_output=True, text=True, check=True
        )
        os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
        assert machine.wait(60) != 0
    assert "of 2 lost" in (tmp_path / "said").read_text()
    ended = run_ranks(*words, "--out", str(out), "--resume", folder=tmp_path, port=free_port())
    assert [each.code for each in ended] == [0, 0], ended[0].err
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
