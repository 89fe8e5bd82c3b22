"""Whole runs on folders of images."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from helpers.messages import mentions
from helpers.runs import Ended, run

SIZE = ["--img-size", "16", "--batch-size", "8", "--epochs", "1", "--warmup-epochs", "0"]
FORM = [*SIZE, "--workers", "0", "--device", "cpu"]
STUDENT = [
    "--student",
    "vit_tiny_patch16_224",
    "--student-kwargs",
    "patch_size=8",
    "embed_dim=12",
    "depth=2",
    "num_heads=2",
]
TEACHER_KWARGS = {"patch_size": 8, "embed_dim": 18, "depth": 2, "num_heads": 3, "img_size": 16}
TEACHER = [
    "--teacher",
    "vit_tiny_patch16_224",
    "--teacher-kwargs",
    *(f"{key}={value}" for key, value in TEACHER_KWARGS.items()),
]


def paint(path: Path, hue: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(1000 * hue + number).integers(0, 80, (20, 24, 3), dtype=np.uint8)
    pixels[..., hue % 3] += 120
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path) -> Path:
    """One folder with a folder per class."""
    for hue, name in enumerate(("blue sky", "grass", "roses")):
        for number in range(12):
            paint(tmp_path / "photos" / name / f"{number}.{'png' if number % 2 else 'jpg'}", hue, number)
    return tmp_path / "photos"


@pytest.fixture
def teacher_file(tmp_path) -> Path:
    """A teacher of three classes, as a file of weights."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **TEACHER_KWARGS)
    save_file(model.state_dict(), tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


def distil(tmp_path: Path, *words: str) -> Ended:
    words = ("distill", *FORM, *STUDENT, *TEACHER, *words, "--out", str(tmp_path / "run"))
    return run(*words, said=tmp_path / "said", report=True)


def test_a_folder_of_class_folders_is_split(photos, teacher_file, tmp_path):
    ended = distil(tmp_path, "--data-dir", str(photos), "--teacher-weights", str(teacher_file))
    assert ended.code == 0, ended.err
    student = timm.create_model(f"local-dir:{tmp_path / 'run' / 'student'}", pretrained=True)
    assert student.num_classes == 3
    config = json.loads((tmp_path / "run" / "student" / "config.json").read_text())
    assert config["label_names"] == ["blue sky", "grass", "roses"]


def test_train_and_val_folders_of_torchvisions_scheme(photos, teacher_file, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "split").mkdir(exist_ok=True)
        (tmp_path / "split" / split).symlink_to(photos)
    words = ["--dataset", "torch/image_folder", "--data-dir", str(tmp_path / "split"), "--val-split", "val"]
    ended = distil(tmp_path, *words, "--teacher-weights", str(teacher_file))
    assert ended.code == 0, ended.err
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert 0 <= row["val/top1"] <= 100


def test_images_without_labels_train_with_terms_on_tokens(photos, tmp_path):
    for number, path in enumerate(sorted(photos.rglob("*.*"))):
        (tmp_path / "plain").mkdir(exist_ok=True)
        path.rename(tmp_path / "plain" / f"{number}{path.suffix}")
    words = ["--data-dir", str(tmp_path / "plain"), "--losses.whole", "1", "--teacher-weights", "none"]
    ended = distil(tmp_path, *words)
    assert ended.code == 0, ended.err
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert "val/top1" not in row
    assert row["train/whole"] > 0
    assert row["val/loss"] > 0
    assert timm.create_model(f"local-dir:{tmp_path / 'run' / 'student'}", pretrained=True).num_classes == 1000


def test_a_term_that_needs_labels_is_refused_without_them(photos, tmp_path):
    words = [
        "--data-dir",
        str(photos / "grass"),
        "--losses.ce",
        "1",
        "--losses.whole",
        "1",
        "--teacher-weights",
        "none",
    ]
    ended = distil(tmp_path, *words)
    assert ended.code == 2
    assert mentions(ended.err, "labels … losses.ce")


def test_a_teacher_of_other_classes_needs_terms_on_tokens(photos, teacher_file, tmp_path):
    for number in range(12):
        paint(photos / "sunsets" / f"{number}.png", 3, number)
    weights = ["--teacher-weights", str(teacher_file)]
    refused = distil(tmp_path, "--data-dir", str(photos), *weights)
    assert refused.code == 2
    assert "the teacher has 3 classes and the data 4" in refused.err
    words = ["--data-dir", str(photos), "--losses.whole", "4", "--losses.ce", "1", *weights]
    ended = distil(tmp_path, *words)
    assert ended.code == 0, ended.err
    teacher, _student = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "top1" not in teacher


def test_a_dry_run_is_noted_on_the_console_and_in_the_report(photos, tmp_path):
    words = ["--data-dir", str(photos), "--losses.whole", "1", "--teacher-weights", "none"]
    ended = distil(tmp_path, *words)
    assert "--teacher-weights none" in ended.out
    assert "--teacher-weights none" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_growth_on_images_without_labels_is_scored_by_the_loss(photos, tmp_path):
    for number, path in enumerate(sorted(photos.rglob("*.*"))):
        (tmp_path / "plain").mkdir(exist_ok=True)
        path.rename(tmp_path / "plain" / f"{number}{path.suffix}")
    words = ["--data-dir", str(tmp_path / "plain"), "--losses.whole", "1", "--teacher-weights", "none"]
    ended = distil(
        tmp_path, *words, "--epochs", "2", "--grow.depth", "1,2", "--grow.depth-operator", "identity"
    )
    assert ended.code == 0, ended.err
    first, second = json.loads((tmp_path / "run" / "stages.json").read_text())
    assert (first["score"], second["score"]) == ("loss", "loss")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert second["before"] == rows[0]["val/loss"]
    assert second["after"] > 0
    assert len(timm.create_model(f"local-dir:{tmp_path / 'run' / 'student'}", pretrained=True).blocks) == 2


def test_a_resnet_grows_on_a_users_images(photos, tmp_path):
    """As a recipe of one's own may have it: sizes as lists, the model without a teacher."""
    recipe = tmp_path / "grow.yaml"
    recipe.write_text(
        "model: resnet18\nmodel_kwargs: {layers: [1, 2, 1, 1], channels: [64, 16, 16, 16]}\nepochs: 3\n"
        "grow: {depth: [[1, 1, 1, 1], [1, 2, 1, 1]], width: [[64, 8, 8, 8], [64, 16, 16, 16]], at: [0, 2], "
        "depth_operator: identity}\n"
    )
    words = [
        "--img-size",
        "16",
        "--batch-size",
        "8",
        "--warmup-epochs",
        "0",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    out = str(tmp_path / "run")
    ended = run(
        "grow",
        "--config",
        str(recipe),
        *words,
        "--data-dir",
        str(photos),
        "--out",
        out,
        said=tmp_path / "said",
    )
    assert ended.code == 0, ended.err
    model = timm.create_model(f"local-dir:{out}/student", pretrained=True)
    assert (len(model.layer2), model.num_features, model.num_classes) == (2, 16, 3)
    first, second = json.loads((tmp_path / "run" / "stages.json").read_text())
    assert (first["epochs"], second["epochs"], second["by"]) == (2, 1, "identity + duplicate")


def test_unreadable_images_stop_the_run_or_are_counted_and_named(photos, teacher_file, tmp_path):
    bad = photos / "grass" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    words = ["--data-dir", str(photos), "--teacher-weights", str(teacher_file), "--val-fraction", "0.2"]
    ended = distil(tmp_path, *words)
    assert ended.code == 2
    assert str(bad) in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    ended = distil(
        tmp_path, *words, "--skip-bad-images", *(["--resume"] if (tmp_path / "run").exists() else [])
    )
    assert ended.code == 0, ended.err
    assert "1 unreadable image" in ended.out
    assert str(bad) in ended.out.replace("\n", "")


def test_a_finished_run_resumes_to_the_same_result(photos, teacher_file, tmp_path):
    words = ["--data-dir", str(photos), "--teacher-weights", str(teacher_file)]
    assert distil(tmp_path, *words).code == 0
    student = (tmp_path / "run" / "student" / "model.safetensors").read_bytes()
    ended = distil(tmp_path, *words, "--resume")
    assert ended.code == 0, ended.err
    assert (tmp_path / "run" / "student" / "model.safetensors").read_bytes() == student
