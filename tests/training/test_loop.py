"""The training loop: synchronization, averages, errors."""

import json
import math
import resource
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.runs import TINY_STUDENT, config_of, contents, rewrite_index, run, trainer_of
from isometry.data import Batch
from isometry.distributed import World
from isometry.errors import UserError
from isometry.models.finite import FirstLook
from isometry.training.checkpoint import files
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.loop import Trainer
from isometry.training.loss_meter import LossMeter, NotFiniteError

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture
def words(tiny_teacher: Path) -> list[str]:
    """A distillation with the default terms."""
    return [*TINY_STUDENT, "--teacher", f"local-dir:{tiny_teacher}", "--epochs", "2"]


def batches(trainer: Trainer) -> Iterator[Batch]:
    """The first epoch's batches."""
    return trainer.loaders.train.epoch(0)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    """The student's weights, copied."""
    return {name: tensor.detach().clone() for name, tensor in trainer.objective.student.state_dict().items()}


# --- waiting for the device
# ------------------------------------------------------------------------------------------


def test_nothing_but_the_reading_of_losses_waits_for_the_device(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, where there are no numbers: whoever asks for one gets an error."""
    options = "--log-interval 3 --clip-grad 1 --mixup 0.2 --reprob 0.5 --losses.ce 1 --losses.random.k 9"
    # That device lacks these two, which wait for nothing: mixed precision, and the optimizer's fused kernel.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    # The first answers are looked at, once, which waits.
    monkeypatch.setattr(FirstLook, "__call__", lambda *args, **kwargs: None)
    trainer = trainer_of(*words, *options.split(), device="meta")
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    readings = []

    def read(self: LossMeter, flag: bool = False) -> tuple[dict[str, float], bool]:
        readings.append(len(self._unread))
        with pytest.raises(NotImplementedError):
            original(self, flag)
        return {}, False

    original = LossMeter.read
    monkeypatch.setattr(LossMeter, "read", read)
    trainer.objective.train()
    for batch in batches(trainer):
        trainer.train_step([batch])
    assert trainer.state.step == 6
    assert readings == [3, 3]


def test_a_reading_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    for name in ("tolist", "item", "__float__", "__bool__", "__int__", "numpy"):
        original = getattr(Tensor, name)

        def waiting(self: Tensor, *args: Any, original: Any = original, **kwargs: Any) -> Any:
            waits.append(1)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Tensor, name, waiting)
    meter = LossMeter(["loss", "soft"], ALONE)
    for step in range(50):
        meter.add(step, torch.tensor([1.0, 2.0 + step]), [step])
    assert len(waits) == 0
    assert meter.read(True) == ({"loss": 1.0, "soft": 51.0}, True)
    assert len(waits) == 1
    assert meter.sums == [50.0, sum(2.0 + step for step in range(50))]
    assert meter.read() == ({}, False)
    assert len(waits) == 1


def test_a_reading_names_the_first_bad_step_and_keeps_what_came_before() -> None:
    meter = LossMeter(["loss", "soft", "whole"], ALONE)
    meter.add(7, torch.tensor([1.0, 1.0, 1.0]), [1])
    meter.add(8, torch.tensor([math.inf, 1.0, math.inf]), [2, 3])
    meter.add(9, torch.tensor([math.nan] * 3), [4])
    with pytest.raises(NotFiniteError) as caught:
        meter.read()
    assert (caught.value.step, caught.value.terms, caught.value.images) == (8, ["loss", "whole"], [[2, 3]])
    assert meter.sums == [1.0, 1.0, 1.0]


# --- one step
# --------------------------------------------------------------------------------------------------------


def test_micro_batches_are_one_batch() -> None:
    """Of a loss that is a mean over images: two of 75 make the step of one of 150."""
    alone = [*TINY_STUDENT, "--epochs", "1", "--opt", "sgd", "--no-aug"]
    whole, halves = trainer_of(*alone), trainer_of(*alone, "--batch-size", "75", "--grad-accum-steps", "2")
    (first, *_) = batches(whole)
    parts = [
        Batch(*(t[at : at + 75] for t in (first.images, first.targets, first.indices)), []) for at in (0, 75)
    ]
    before = weights(whole)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(halves).items())
    whole.train_step([first])
    halves.train_step(parts)
    assert halves.meter.sums == pytest.approx(whole.meter.sums, rel=1e-6)
    after = weights(whole)
    moved = max(float((after[name] - before[name]).abs().max()) for name in after)
    apart = max(float((tensor - after[name]).abs().max()) for name, tensor in weights(halves).items())
    assert moved > 0
    assert apart < 1e-4 * moved


def test_an_epochs_losses_are_means_over_its_images_however_they_are_grouped() -> None:
    """At a rate of 0 the network stays as it is; the last of the groups is half as large as the others."""
    still = [*TINY_STUDENT, "--epochs", "1", "--opt", "sgd", "--no-aug", "--lr", "0", "--min-lr", "0"]
    means = []
    for accumulated in ("1", "4"):
        trainer = trainer_of(*still, "--grad-accum-steps", accumulated)
        trainer.train_epoch()
        assert trainer.state.seen == 900
        means.append(trainer.end_epoch()["train/loss"])
    assert means[1] == pytest.approx(means[0], rel=1e-6)


def test_the_last_group_of_micro_batches_may_be_smaller() -> None:
    trainer = trainer_of(*TINY_STUDENT, "--epochs", "1", "--grad-accum-steps", "4")
    assert trainer.steps_per_epoch == 2
    assert [len(group) for group in trainer.batches.groups(0, 0)] == [4, 2]


def test_gradients_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(*TINY_STUDENT, "--epochs", "1", "--clip-grad", "0.001")
    norms = []
    step = trainer.optimizer.step

    def measured() -> None:
        grads = [p.grad for p in trainer.objective.student.parameters()]
        norms.append(float(torch.linalg.vector_norm(torch.cat([grad.flatten() for grad in grads]))))
        step()

    monkeypatch.setattr(trainer.optimizer, "step", measured)
    trainer.train_step([next(batches(trainer))])
    assert norms == [pytest.approx(0.001, rel=1e-3)]


def test_mixed_precision_runs_on_a_cpu(words: list[str]) -> None:
    plain, mixed = trainer_of(*words), trainer_of(*words, "--amp", "--amp-dtype", "bfloat16")
    seen = []
    mixed.objective.student.blocks[0].mlp.fc1.register_forward_hook(
        lambda module, args, out: seen.append(out.dtype)
    )
    for trainer in (plain, mixed):
        trainer.objective.train()
        trainer.train_step([next(batches(trainer))])
    assert seen == [torch.bfloat16]
    assert mixed.meter.sums == pytest.approx(plain.meter.sums, rel=0.05)
    assert all(
        tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in weights(mixed).values()
    )


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_run_is_the_same_run(backend: str, words: list[str]) -> None:
    plain, compiled = trainer_of(*words), trainer_of(*words)
    compiled.objective.compile(backend=backend)
    for trainer in (plain, compiled):
        trainer.objective.train()
        for batch in batches(trainer):
            trainer.train_step([batch])
    assert compiled.meter.sums == pytest.approx(plain.meter.sums, rel=1e-3)
    kept = compiled.objective.get_checkpoint_state()["state_dict"]
    assert kept.keys() == weights(plain).keys()


def test_the_moving_average_follows_the_student(words: list[str]) -> None:
    trainer = trainer_of(*words, "--model-ema", "--model-ema-decay", "0.5", "--model-ema-warmup", "false")
    first, second, third = list(batches(trainer))[:3]
    trainer.train_step([first])
    trainer.train_step([second])
    before = weights(trainer)
    trainer.train_step([third])
    after = weights(trainer)
    average = trainer.objective.get_checkpoint_state(ema=True)["state_dict_ema"]
    # timm's average begins as a copy, after two steps.
    for name in after:
        torch.testing.assert_close(average[name], (before[name] + after[name]) / 2)


def test_images_that_could_not_be_read_are_kept_once(words: list[str]) -> None:
    trainer = trainer_of(*words)
    spoiled = replace(next(batches(trainer)), unreadable=["a.png"])
    assert len(list(trainer.batches.read([spoiled, spoiled]))) == 2
    assert trainer.batches.unreadable == ["a.png"]


# --- whole runs
# ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "--opt sgd --sched step --epochs 2",
        "--opt lamb --sched poly --epochs 2 --amp --model-ema",
        "--opt lion --sched tanh --epochs 2 --grad-accum-steps 4 --recovery-interval 1",
        "--compile --compile-backend eager --epochs 1",
    ],
)
def test_other_options_run_to_the_end_and_go_on(options: str, words: list[str], tmp_path: Path) -> None:
    command = ["distill", *words, *options.split(), "--out", str(tmp_path / "run")]
    ended = run(*command, said=tmp_path / "a")
    assert (ended.code, ended.err) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    before = contents(tmp_path / "run")
    again = run(*command, "--resume", said=tmp_path / "b")
    assert (again.code, again.err) == (0, "")
    after = contents(tmp_path / "run")
    assert [name for name in before if after[name] != before[name]] == []


def test_a_rate_that_is_too_high_stops_the_run_with_a_save(words: list[str], tmp_path: Path) -> None:
    """Here the weights themselves grow past what the loss can take."""
    out = tmp_path / "run"
    ended = run("distill", *words, "--lr", "1e4", "--opt", "sgd", "--out", str(out), said=tmp_path / "said")
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "finite" in ended.err
    assert "--lr" in ended.err
    if (out / "last").exists():
        parts = files.load_checkpoint(out / "last").parts
        assert all(tensor.isfinite().all() for tensor in parts["model"].values())


def test_a_disk_that_fills_up_costs_no_more_than_the_steps_since_the_last_save(
    words: list[str], tmp_path: Path
) -> None:
    """A real one where this user may mount one; else a limit on the size of files."""
    command = ["distill", *words, "--recovery-interval", "1"]
    whole = run(*command, "--out", str(tmp_path / "whole"), said=tmp_path / "whole-said")
    assert whole.code == 0, whole.err
    disk = tmp_path / "disk"
    disk.mkdir()
    # Room for the first saves and not for the second epoch's, whose old and new best stand side by side.
    mount = ["mount", "-t", "tmpfs", "-o", "size=260k", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        fill = partial(_disk_fills_up, str(disk / "ballast") if mounted else "")
        ended = run(*command, "--out", str(disk / "run"), said=tmp_path / "said", prepare=fill)
        assert ended.code == 2, ended.err
        assert len(ended.err.splitlines()) == 1
        assert "sav" in ended.err
        assert "--resume" in ended.err
        assert files.load_checkpoint(disk / "run" / "last").state["loop"]["step"] == 4
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        ended = run(*command, "--out", str(disk / "run"), "--resume", said=tmp_path / "again")
        assert ended.code == 0, ended.err
        assert contents(disk / "run") == contents(tmp_path / "whole")
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def _disk_fills_up(ballast: str) -> None:
    """At the fifth save: something else takes all the room, or no file may grow past a few bytes."""
    save, saves = Trainer.save, []

    def full(self: Trainer, best: bool = False) -> None:
        saves.append(1)
        if len(saves) == 5 and ballast:
            with suppress(OSError), open(ballast, "wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 1024)
        elif len(saves) == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        save(self, best)

    Trainer.save = full


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda state: state["spec"].update(model="resnet18"),
            "it holds a resnet18, not the vit_tiny_patch16_224",
        ),
        (lambda state: state.pop("loop"), "loop: field required"),
        (lambda state: state["loop"].update(colour="red"), "colour"),
        (lambda state: state.update(loop=[]), "loop: "),
        (lambda state: state["loop"].update(step="x"), "loop.step: "),
        (lambda state: state["loop"].update(sums=[1.0, "x"]), "loop.sums.1: "),
        (lambda state: state["metrics"].update({"metrics.csv": -1}), "metrics.metrics.csv: "),
        (lambda state: state["optimizer"]["param_groups"].pop("0"), "param"),
        (lambda state: state.update(optimizer=None), "does not fit this run"),
    ],
)
def test_a_checkpoint_of_another_run_is_an_error_of_one_line(spoil: Any, said: str, tmp_path: Path) -> None:
    command = saved_run(tmp_path)
    rewrite_index(tmp_path / "last" / "checkpoint.json", spoil)
    with pytest.raises(UserError, match="checkpoint") as caught:
        trainer_of(*command, "--resume").restore()
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def saved_run(out: Path) -> list[str]:
    """The command line of a run in ``out`` that has saved its start."""
    command = [*TINY_STUDENT, "--epochs", "1", "--out", str(out)]
    trainer_of(*command, folder=RunFolder(config_of(*command))).save()
    return command


def test_what_was_saved_is_restored(tmp_path: Path) -> None:
    trainer = trainer_of(*saved_run(tmp_path), "--resume")
    wanted = weights(trainer)
    for parameter in trainer.objective.student.parameters():
        parameter.data.zero_()
    trainer.restore()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights(trainer).items())
