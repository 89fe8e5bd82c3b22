"""`isometry transfer` from the command line: classes, refusals before anything is trained, and what follows a run."""

import json
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch
from safetensors.torch import load_file

from helpers.scenes import NETWORK, TINY, few_scenes
from isometry.cli.main import main
from isometry.data.dense import digit_scenes
from isometry.evaluation.dense import detection


@pytest.fixture(autouse=True)
def _few_scenes(monkeypatch):
    for name in ("TRAIN", "VALIDATION", "TEST"):
        monkeypatch.setattr(digit_scenes, name, getattr(digit_scenes, name))
    few_scenes()


def refused(capsys, *words):
    assert main(["transfer", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("isometry: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "digit-scenes"], "--task: not given"),
        (["--task", "find", "--dataset", "digit-scenes"], "--task find: expected"),
        (["--task", "detect", "--data-dir", "nowhere"], "nowhere"),
        (["--task", "segment", "--dataset", "digits"], "digits"),
        (
            ["--task", "detect"],
            "--data-dir: not given; give the folder of images with boxes, or --dataset digit-scenes",
        ),
        (
            ["--task", "detect", "--dataset", "digit-scenes", "--epochs", "0"],
            "--epochs 0: must be at least 1",
        ),
        (
            ["--task", "detect", "--dataset", "digit-scenes", "--overrides", "mixup=1"],
            "--overrides: mixup: --task detect has no such option",
        ),
        (["--task", "detect", "--dataset", "digit-scenes", "--img-size", "8"], "8"),
        (["--task", "detect", "--dataset", "digit-scenes", "--resume"], "--resume: there is no run"),
    ],
)
def test_refusals_leave_no_folder(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *NETWORK, *words, "--out", "out")
    assert message in line
    assert not Path("out").exists()


def test_without_the_extra_detection_is_refused_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(detection, "find_spec", lambda name: None)
    line = refused(capsys, *TINY, "--task", "detect", "--out", str(tmp_path / "out"))
    assert "faster_coco_eval is not installed" in line
    assert "isometry[detect]" in line
    assert not (tmp_path / "out").exists()


def test_other_commands_refuse_the_task(tmp_path, capsys):
    words = [
        "train",
        "--model",
        "resnet18",
        "--dataset",
        "digits",
        "--task",
        "detect",
        "--out",
        str(tmp_path / "a"),
    ]
    assert main(words) == 2
    assert "--task detect: is for isometry transfer" in capsys.readouterr().err


@pytest.mark.usefixtures("quick_results")
def test_classes_with_a_frozen_backbone(tiny_teacher, tmp_path, capsys):
    words = ["--task", "classify", "--dataset", "digits", "--freeze", "--epochs", "1", "--workers", "0"]
    words += ["--device", "cpu", "--overrides", "crop_pct=1", "--out", str(tmp_path / "run")]
    assert main(["transfer", str(tiny_teacher), *words]) == 0, capsys.readouterr().err
    (row,) = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert row["top1"] > 5
    before = load_file(tiny_teacher / "model.safetensors")
    after = load_file(tmp_path / "run" / "student" / "model.safetensors")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "head.weight",
        "head.bias",
    }


def test_a_run_is_evaluated_again_drawn_again_and_gives_a_backbone(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["transfer", *TINY, "--task", "segment", "--out", out]) == 0, capsys.readouterr().err
    (row,) = json.loads((tmp_path / "run" / "summary.json").read_text())
    page = (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    assert main(["evaluate", out, "--device", "cpu"]) == 0, capsys.readouterr().err
    assert "mIoU" in capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert (found["task"], found["part"]) == ("segment", "test")
    assert found["scores"]["miou"] == pytest.approx(row["miou"])
    assert found["scores"]["miou_low"] <= found["scores"]["miou"] <= found["scores"]["miou_high"]
    file = tmp_path / "run" / "evaluation.json"
    kept = file.read_bytes()
    file.write_text("edited")
    assert main(["evaluate", out, "--device", "cpu"]) == 2
    assert "evaluation.json: was changed since isometry wrote it" in capsys.readouterr().err
    assert file.read_text() == "edited"
    file.write_bytes(kept)
    # What was measured of its backbone stays.
    assert main(["evaluate", f"{out}/student", "--dense", "--device", "cpu"]) == 0, capsys.readouterr().err
    dense = json.loads(file.read_text())["dense"]
    assert main(["evaluate", out, "--device", "cpu"]) == 0
    assert json.loads(file.read_text()) == {**found, "date": ANY, "dense": dense}
    file.unlink()
    (tmp_path / "run" / "report.html").unlink()
    assert main(["report", out]) == 0
    assert (tmp_path / "run" / "report.html").read_text() == page
    # Its folder names the backbone for any other command.
    words = [
        "--dataset",
        "digit-scenes",
        "--workers",
        "0",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--batch-size",
        "20",
    ]
    again = ["transfer", out, "--task", "detect", *words, "--out", str(tmp_path / "detector")]
    assert main(again) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main(["evaluate", out, "--probe"]) == 2
    assert f"give its backbone instead: {out}/student" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "detector"), "--dataset", "digits", "--device", "cpu"]) == 2
