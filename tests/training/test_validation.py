"""Validation: one pass for the student and its moving average, and the score of the better one."""

from contextlib import nullcontext
from typing import Any

import pytest

from helpers.runs import TINY_STUDENT, trainer_of
from isometry.data import Batch
from isometry.evaluation.accuracy import accuracy
from isometry.training.loop import Trainer
from isometry.training.validation import score_of, validate


@pytest.mark.parametrize(
    ("row", "score"),
    [
        ({"val/top1": 90.0, "val/loss": 0.1}, (90.0, False)),
        ({"val/top1": 90.0, "val_ema/top1": 91.0, "val/loss": 0.1, "val_ema/loss": 0.2}, (91.0, True)),
        ({"val/top1": 91.0, "val_ema/top1": 90.0}, (91.0, False)),
        ({"val/top1": 90.0, "val_ema/top1": 90.0}, (90.0, True)),
        ({"val/loss": 0.5}, (-0.5, False)),
        ({"val/loss": 0.5, "val_ema/loss": 0.75}, (-0.5, False)),
        ({"val/loss": 0.5, "val_ema/loss": 0.25}, (-0.25, True)),
    ],
)
def test_the_score_is_that_of_the_better_weights(row: dict[str, float], score: tuple[float, bool]) -> None:
    assert score_of({"epoch": 3.0, **row}, prefers_average=True) == score


@pytest.mark.parametrize("prefers", [False, True])
@pytest.mark.parametrize("name", ["top1", "loss"])
def test_of_equals_it_is_the_one_that_is_preferred(name: str, prefers: bool) -> None:
    sign = 1 if name == "top1" else -1
    for other, better in ((0.5, prefers), (0.25, sign < 0), (0.75, sign > 0)):
        row = {"epoch": 3.0, f"val/{name}": 0.5, f"val_ema/{name}": other}
        assert score_of(row, prefers) == (sign * (other if better else 0.5), better)


@pytest.mark.parametrize("prefers_average", [False, True])
def test_without_validation_the_last_epoch_is_the_best(prefers_average: bool) -> None:
    assert score_of({"epoch": 3, "train/loss": 0.5}, prefers_average) == (3.0, prefers_average)


@pytest.fixture
def trained(tiny_teacher: Any) -> Trainer:
    """After three steps, with a moving average that differs from the weights."""
    words = [*TINY_STUDENT, "--teacher", f"local-dir:{tiny_teacher}", "--model-ema", "--epochs", "1"]
    trainer = trainer_of(*words)
    for batches in list(trainer.batches.groups(0, 0))[:4]:
        trainer.train_step(batches)
    return trainer


def validated(trainer: Trainer, labelled: bool) -> tuple[dict[str, float], list[Batch]]:
    """Metrics, from batches that can be read once, and these batches."""
    batches = list(trainer.loaders.val)
    row = validate(
        trainer.objective, iter(batches), labelled, trainer.preprocess, trainer.world, trainer.autocast
    )
    return row, batches


def test_the_images_are_read_once_for_both_networks(trained: Trainer) -> None:
    row, batches = validated(trained, labelled=True)
    for prefix, ema in (("val", False), ("val_ema", True)):
        model = trained.objective.get_eval_model(ema=ema)
        alone = accuracy(model, batches, trained.preprocess, trained.world, nullcontext)
        assert {name: row[f"{prefix}/{name}"] for name in alone} == alone
    assert row["val/loss"] != row["val_ema/loss"]


def test_without_labels_the_loss_of_the_average_is_that_of_its_weights(trained: Trainer) -> None:
    row, _ = validated(trained, labelled=False)
    assert row.keys() == {"val/loss", "val_ema/loss"}
    student = trained.objective.student
    student.load_state_dict(trained.objective.get_eval_model(ema=True).state_dict())
    assert validated(trained, labelled=False)[0]["val/loss"] == pytest.approx(row["val_ema/loss"], rel=1e-6)
    assert row["val/loss"] != pytest.approx(row["val_ema/loss"], rel=1e-4)
