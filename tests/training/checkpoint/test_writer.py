"""Writes in a thread, as on a GPU, and the copy of the state that they take."""

import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.runs import SECONDS_TO_WAIT, TINY_STUDENT, config_of, trainer_of
from isometry.training import loop
from isometry.training.checkpoint import run_state
from isometry.training.checkpoint.files import has_checkpoint, load_checkpoint
from isometry.training.checkpoint.optimizer_state import split_optimizer_state
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.checkpoint.writer import Writer

GPU = torch.device("cuda")


# --- the writer
# ------------------------------------------------------------------------------------------------------


def fail() -> None:
    raise OSError("full")


def test_a_write_goes_on_while_the_caller_does_and_the_next_one_waits_for_it() -> None:
    told, go = [], threading.Event()

    def first() -> None:
        told.append(f"first {go.wait(SECONDS_TO_WAIT)}")

    with Writer(GPU) as writer:
        writer.begin(first)
        told.append("caller")
        threading.Timer(0.1, go.set).start()
        writer.begin(lambda: told.append("second"))
    assert told == ["caller", "first True", "second"]
    assert all(thread.name != "save" for thread in threading.enumerate())


def test_on_a_cpu_it_is_written_at_once() -> None:
    told = []
    with Writer(torch.device("cpu")) as writer:
        writer.begin(lambda: told.append(threading.current_thread().name))
        assert told == [threading.main_thread().name]
        with pytest.raises(OSError, match="full"):
            writer.begin(fail)


def test_an_error_is_raised_by_the_next_write_once() -> None:
    told = []
    with Writer(GPU) as writer:
        writer.begin(fail)
        with pytest.raises(OSError, match="full"):
            writer.begin(lambda: told.append("never"))
        assert told == []
        writer.begin(lambda: told.append("again"))
    assert told == ["again"]


def test_an_error_at_the_end_replaces_what_may_say_that_it_was_saved() -> None:
    def interrupted() -> None:
        with Writer(GPU) as writer:
            writer.begin(fail)
            raise RuntimeError("stopped, saved")

    with pytest.raises(OSError, match="full") as caught:
        interrupted()
    assert isinstance(caught.value.__context__, RuntimeError)
    assert all(thread.name != "save" for thread in threading.enumerate())


# --- the copy of the state
# ------------------------------------------------------------------------------------------------------


def trained(out: Path, monkeypatch: pytest.MonkeyPatch) -> loop.Trainer:
    """A trainer that saves behind its steps."""
    monkeypatch.setattr(loop, "Writer", lambda device: Writer(GPU))
    words = [*TINY_STUDENT, "--model-ema", "--model-ema-decay", "0.5", "--epochs", "9", "--out", str(out)]
    trainer = trainer_of(*words, folder=RunFolder(config_of(*words)))
    trainer.objective.train()
    return trainer


def tensors(trainer: loop.Trainer) -> dict[str, dict[str, Tensor]]:
    """What the optimizer changes in place, copied."""
    parts = {
        "model": trainer.objective.get_checkpoint_state()["state_dict"],
        "ema": trainer.objective.get_checkpoint_state(ema=True)["state_dict_ema"],
        "optimizer": split_optimizer_state(trainer.optimizer)[0],
    }
    return {part: {name: tensor.clone() for name, tensor in of.items()} for part, of in parts.items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_save_holds_the_state_of_its_step_however_late_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, save = threading.Event(), run_state.save_checkpoint

    def late(*arguments: Any) -> None:
        assert go.wait(SECONDS_TO_WAIT)
        save(*arguments)

    monkeypatch.setattr(run_state, "save_checkpoint", late)
    trainer = trained(tmp_path, monkeypatch)
    with trainer.writer:
        for batches in trainer.batches.groups(0, 0):
            trainer.train_step(batches)
            if trainer.state.step == 3:
                trainer.save(best=trainer.state.keep_best(1.0, is_average=True))
                wanted = tensors(trainer)
        assert trainer.state.step == 6
        assert not has_checkpoint(tmp_path / "last")
        go.set()
    found, now = load_checkpoint(tmp_path / "last"), tensors(trainer)
    assert found.state["loop"]["step"] == 3
    for part, of in wanted.items():
        assert equal(found.parts[part], of)
        assert not equal(now[part], of)
    assert equal(load_checkpoint(tmp_path / "best").parts["model"], wanted["ema"])


def test_there_is_never_more_than_one_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, save, copies = run_state.snapshot, run_state.save_checkpoint, []

    def slow(*arguments: Any) -> None:
        time.sleep(0.1)
        save(*arguments)

    def counted(parts: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        assert [alive for alive in copies if alive() is not None] == []
        made = copy(parts)
        copies.extend(weakref.ref(tensor) for of in made.values() for tensor in of.values())
        return made

    monkeypatch.setattr(run_state, "save_checkpoint", slow)
    monkeypatch.setattr(run_state, "snapshot", counted)
    trainer = trained(tmp_path, monkeypatch)
    with trainer.writer:
        for batches in trainer.batches.groups(0, 0):
            trainer.train_step(batches)
            trainer.save(best=True)
    assert len(copies) > 6 * 20
    assert [alive for alive in copies if alive() is not None] == []
