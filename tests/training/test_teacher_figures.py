"""A teacher's accuracy is its own, whatever the student sees, and its speed is that of float32, as the student's."""

import json
from pathlib import Path

import pytest
import torch

from helpers.runs import DIGITS, TINY_STUDENT, run, trainer_of
from isometry.cli.main import main
from isometry.evaluation.accuracy import accuracy
from isometry.training import results
from isometry.training.loop import Trainer
from isometry.training.results import figures_of


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That knows some digits at 8 pixels."""
    folder = tmp_path_factory.mktemp("teacher")
    words = ["--model", "cifar_resnet20", "--no-aug", "--epochs", "1", "--lr", "1e-2", "--batch-size", "50"]
    ended = run("train", *DIGITS, *words, "--out", str(folder / "run"), said=folder / "said")
    assert ended.code == 0, ended.err
    return folder / "run" / "student"


def trainer_at(side: int, teacher: Path, *words: str) -> Trainer:
    """Of a student at ``side`` pixels under a teacher at 8."""
    sized = [
        "--img-size",
        str(side),
        "--student-kwargs",
        "patch_size=2",
        "embed_dim=16",
        "depth=1",
        "num_heads=2",
    ]
    return trainer_of(
        *TINY_STUDENT,
        *sized,
        "--teacher",
        f"local-dir:{teacher}",
        "--losses.soft",
        "1",
        "--crop-pct",
        "0.8",
        *words,
    )


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Types of the networks whose speed was measured."""
    types: list[torch.dtype] = []

    def measure(model: torch.nn.Module, *_: object, **__: object) -> float:
        types.append(next(model.parameters()).dtype)
        return 1.0

    monkeypatch.setattr(results, "images_per_second", measure)
    return types


@pytest.mark.usefixtures("timed")
def test_top1_is_what_evaluate_says_of_the_teacher_however_small_the_students_images(teacher, tmp_path):
    assert main(["evaluate", str(teacher), "--device", "cpu", "--out", str(tmp_path)]) == 0
    own = json.loads((tmp_path / "evaluation.json").read_text())["scores"]["top1"]["value"]
    trainer = trainer_at(4, teacher)
    figures = figures_of(trainer, trainer.run.teacher, trainer.loaders)
    assert own > 20
    assert figures["top1_part"] == "test"
    assert figures["top1"] == pytest.approx(own)
    scaled_up = accuracy(
        trainer.run.teacher, trainer.loaders.test, trainer.preprocess, trainer.world, trainer.autocast,
        trainer.objective.teacher.adapter,
    )  # fmt: skip
    assert abs(scaled_up["top1"] - own) > 1


@pytest.mark.usefixtures("timed")
def test_a_teacher_of_other_classes_has_no_accuracy_here(teacher):
    trainer = trainer_at(8, teacher)
    assert "top1" in figures_of(trainer, trainer.run.teacher, trainer.loaders)
    trainer.run.teacher.pretrained_cfg["label_names"] = list("abcdefghij")
    assert "top1" not in figures_of(trainer, trainer.run.teacher, trainer.loaders)


def test_speed_is_measured_in_float32_and_the_weights_stay_the_same_bits(teacher, timed):
    trainer = trainer_at(8, teacher, "--teacher-dtype", "bfloat16")
    network = trainer.run.teacher
    before = {
        name: tensor.clone() for name, tensor in network.state_dict().items() if tensor.is_floating_point()
    }
    figures_of(trainer, network, trainer.loaders)
    figures_of(trainer, trainer.run.student, trainer.loaders)
    assert timed == [torch.float32, torch.float32]
    after = network.state_dict()
    assert {after[name].dtype for name in before} == {torch.bfloat16}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
