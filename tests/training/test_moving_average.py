"""The moving average: a run that it can't follow, its weights put in place, and which weights are delivered."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.runs import TINY_STUDENT, config_of, run
from isometry.grow.schedule import Stage
from isometry.training.checkpoint.files import load_checkpoint
from isometry.training.moving_average import averaged_weights, delivered, slow_average

RUN = ["train", "--dataset", "digits", "--model", "cifar_resnet20", "--img-size", "16", "--batch-size", "50"]
RUN += ["--model-kwargs", "layers=[1,1,1]", "channels=[8,8,8]", "--workers", "0", "--warmup-epochs", "0"]
RUN += ["--lr", "0.02", "--no-aug", "--device", "cpu", "--model-ema", "--epochs", "3"]


@pytest.mark.parametrize(
    ("decay", "steps", "share"),
    [
        ("0.9998", 112, 98),
        ("0.9998", 11_000, 11),
        ("0.9998", 11_600, None),
        ("0.9", 21, 11),
        ("0.9", 22, None),
    ],
)
def test_an_average_that_can_not_have_moved_is_said(decay: str, steps: int, share: int | None) -> None:
    words = ["--model-ema", "--model-ema-decay", decay, "--model-ema-warmup", "false", "--epochs", "1"]
    config, stage = config_of(*words), Stage(0, 0, 1)
    notes = slow_average(config, stage, steps)
    assert [f"{share} % the first weights" in note for note in notes] == [True] * (share is not None)
    assert slow_average(replace(config, model_ema=False), stage, steps) == []
    assert slow_average(replace(config, model_ema_warmup=True), stage, steps) == []


def test_the_average_that_restarts_has_the_last_stage_alone() -> None:
    config = config_of(
        "--model-ema", "--model-ema-decay", "0.9", "--model-ema-warmup", "false", "--epochs", "8"
    )
    last = Stage(1, 6, 2)
    assert len(slow_average(config, last, 10)) == 1
    assert slow_average(replace(config, grow=replace(config.grow, ema="grow")), last, 10) == []


def test_the_average_is_in_place_inside_the_block_alone() -> None:
    student, average = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    average[1].num_batches_tracked.fill_(7)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with averaged_weights(student, average):
        for name, value in average.state_dict().items():
            assert torch.equal(student.state_dict()[name], value)
    for name, value in before.items():
        assert torch.equal(student.state_dict()[name], value)


def test_what_is_delivered_is_said_with_both_scores() -> None:
    row = {"epoch": 4, "val/top1": 95.2, "val_ema/top1": 10.1, "val/loss": 1.0, "val_ema/loss": 2.0}
    assert delivered(row, averaged=False) == (
        "--model-ema: delivered are the weights of epoch 4, not their moving average: 95.2 % on the validation split; "
        "the average has 10.1 %"
    )
    losses = {"epoch": 2, "val/loss": 0.25, "val_ema/loss": 0.125}
    assert delivered(losses, averaged=True).endswith(
        "a loss of 0.125 on the validation split; the weights have a loss of 0.25"
    )
    uneven = delivered(row | {"val/top1_by_class": 61.0, "val_ema/top1_by_class": 50.0}, averaged=False)
    assert "95.2 % (mean of classes 61.0 %) on the validation split" in uneven
    assert "(mean of classes 50.0 %)" in uneven
    assert "without a validation split" in delivered({"epoch": 1}, averaged=True)


def test_of_equals_it_is_said_why() -> None:
    row = {"epoch": 1, "val/top1": 50.0, "val_ema/top1": 50.0, "val/loss": 1.0, "val_ema/loss": 2.0}
    near = ", and the average is still near the first weights"
    assert delivered(row, averaged=False).endswith(
        f"50.0 % on the validation split; the average has 50.0 %{near}"
    )
    assert delivered({"epoch": 1}, averaged=False).endswith(f"they can't be compared{near}")
    assert near not in delivered(row, averaged=True)
    assert near not in delivered(row | {"val/top1": 60.0}, averaged=False)


@pytest.mark.parametrize(("decay", "averaged"), [("0.9998", False), ("0.5", True)])
def test_on_a_tie_an_average_that_can_not_have_moved_is_not_delivered(
    tmp_path: Path, decay: str, averaged: bool
) -> None:
    """At a rate of nearly 0 only the biases move, by too little to change an answer."""
    out = tmp_path / "run"
    words = ["train", *TINY_STUDENT, "--lr", "1e-9", "--warmup-epochs", "0", "--epochs", "1", "--model-ema"]
    words += ["--model-ema-warmup", "false", "--model-ema-decay", decay, "--out", str(out)]
    ended = run(*words, said=tmp_path / "said")
    assert (ended.code, ended.err) == (0, "")
    (row,) = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert row["val/top1"] == row["val_ema/top1"]
    best, last = load_checkpoint(out / "best").parts["model"], load_checkpoint(out / "last").parts
    same = {
        part: all(torch.equal(best[name], value) for name, value in last[part].items())
        for part in ("model", "ema")
    }
    assert same == {"model": not averaged, "ema": averaged}
    assert delivered(row, averaged) in ended.out


def test_the_weights_that_score_better_are_delivered(tmp_path: Path) -> None:
    """With a constant decay of 0.9998 the average stays where it began, near 10 % right."""
    out = tmp_path / "run"
    ended = run(*RUN, "--model-ema-warmup", "false", "--out", str(out), said=tmp_path / "said")
    assert (ended.code, ended.err) == (0, "")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    row = max(rows, key=lambda row: row["val/top1"])
    assert row["val/top1"] > row["val_ema/top1"] + 20
    assert "the average is still 99 % the first weights" in ended.out
    assert delivered(row, averaged=False) in ended.out
    student = load_file(out / "student" / "model.safetensors")
    best, average = load_checkpoint(out / "best").parts["model"], load_checkpoint(out / "last").parts["ema"]
    assert all(torch.equal(student[name], value) for name, value in best.items())
    assert not all(torch.equal(student[name], value) for name, value in average.items())
