"""`isometry check` of runs for boxes or masks: the plan of `isometry transfer`, and the data alone."""

import re
from pathlib import Path

import pytest
import torch

from helpers.dense_files import coco, write_coco, write_masks
from helpers.scenes import few_scenes
from isometry.cli.main import main
from isometry.cli.transfer import planned_transfer
from isometry.data.dense import digit_scenes
from isometry.distributed import World
from isometry.training.transfer.assemble import assemble_dense

ARGUMENTS = {"patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2, "in_chans": 1}
NETWORK = [
    *("--model", "vit_tiny_patch16_224", "--pretrained", "false", "--img-size", "96", "--device", "cpu"),
    *("--model-kwargs", *(f"{key}={value}" for key, value in ARGUMENTS.items())),
]
SCENES = [*NETWORK, "--dataset", "digit-scenes"]


@pytest.fixture(autouse=True)
def _few_scenes(monkeypatch):
    for name in ("TRAIN", "VALIDATION", "TEST"):
        monkeypatch.setattr(digit_scenes, name, getattr(digit_scenes, name))
    few_scenes()


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """What the command prints, in a folder that it must leave as it is."""
    monkeypatch.chdir(tmp_path)

    def tell(*words: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main(["check", *words]) == 0, capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before
        return capsys.readouterr().out

    return tell


def refused(capsys, *words):
    assert main(["check", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("isometry: ")


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_the_plan_is_that_of_transfer(task, told):
    text = told("--task", task, *SCENES)
    given = {"task": task, "dataset": "digit-scenes", "pretrained": False, "img_size": 96}
    config = planned_transfer("vit_tiny_patch16_224", {**given, "model_kwargs": ARGUMENTS}, {})
    network = assemble_dense(config, World(0, 1, torch.device("cpu"))).network
    whole, backbone = (
        sum(each.numel() for each in part.parameters()) for part in (network, network.backbone)
    )
    for name, count in (("backbone", backbone), ("with pyramid and head", whole)):
        assert re.search(rf"{name} +vit_tiny_patch16_224 +1×96×96 +{count / 1e3:.3g} k", text), name
    assert "digit-scenes: 40 training, 12 validation, 12 test images" in text
    assert "Training  12 epochs of 2 steps at --batch-size 16, learning rate 0.001" in text
    assert "an epoch has only 2 steps at --batch-size 16" in text
    assert "This run can start once --out names its folder" in text


def test_what_is_given_counts_even_where_it_is_the_default_of_training(told, tmp_path):
    Path(tmp_path / "few.yaml").write_text("epochs: 300\n", encoding="utf-8")
    text = told("--task", "detect", *SCENES, "--config", "few.yaml", "-b", "128", "--freeze", "--out", "run")
    assert "Training  300 epochs of 1 step at --batch-size 128" in text
    assert "Weights of the backbone  random, from the seed, frozen" in text
    assert "This run can start." in text


def test_boxes_by_class_and_faults_are_named(told, tmp_path):
    content = coco(images=6)
    content["annotations"][0]["bbox"] = [0, 0, 0, 20]
    write_coco(
        tmp_path / "data" / "annotations" / "instances_train.json", content, tmp_path / "data" / "train"
    )
    write_coco(tmp_path / "data" / "annotations" / "instances_val.json", coco(), tmp_path / "data" / "val")
    for words in (["--data"], NETWORK):
        text = told("--task", "detect", "--data-dir", "data", *words)
        rows = [line.split() for line in text.splitlines()]
        assert ["class", "3", "2", "2"] in rows
        assert ["class", "7", "3", "2"] in rows
        assert ["together", "5", "4"] in rows
        assert "boxes left out (of no area): 1, e.g. annotation 0" in text
        assert "median 60×40 of 6 images" in text
        # All of the same red quarter.
        first = tmp_path / "data" / "train" / "0.png"
        assert f"Duplicates  9 files equal another one; 1 in several splits: {first} = " in text


def test_pixels_by_class(told, tmp_path):
    write_masks(tmp_path / "data")
    text = told("--data", "--task", "segment", "--data-dir", "data")
    rows = [line.split() for line in text.splitlines()]
    # Four pictures of 60×40, a quarter of each of class 1 or 2.
    for row in (["0", "7,200", "7,200"], ["1", "1,200", "1,200"], ["2", "1,200", "1,200"]):
        assert row in rows
    assert "Warning  no classes.txt: the classes are named by the values that occur" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*SCENES, "--mixup", "1"], "--mixup: --task detect has no such option"),
        ([*SCENES, "--img-size", "8"], "can't take images"),
        ([*SCENES, "--epochs", "0"], "--epochs 0: must be at least 1"),
        ([*SCENES, "--out", "nowhere", "--resume"], "--resume: there is no run in nowhere"),
        ([*NETWORK, "--data-dir", "nowhere"], "nowhere"),
    ],
)
def test_what_transfer_would_refuse_is_refused(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "--task", "detect", *words)


def test_a_run_that_resumes_is_compared_with_its_folder(told, tmp_path, capsys):
    few = ["--epochs", "1", "--batch-size", "10", "--workers", "0"]
    kwargs = [f"{key}={value}" for key, value in ARGUMENTS.items()]
    network = ["vit_tiny_patch16_224", "--random-weights", "--img-size", "96", "--model-kwargs", *kwargs]
    words = ["--task", "segment", "--dataset", "digit-scenes", "--device", "cpu", "--out", "run", *few]
    assert main(["transfer", *network, *words]) == 0
    capsys.readouterr()
    text = told("--config", "run/config.yaml", "--out", "run", "--resume")
    assert "This run can start." in text
    line = refused(capsys, "--config", "run/config.yaml", "--out", "run", "--resume", "--lr", "0.5")
    assert "--lr was" in line
    digit_scenes.TRAIN = 41
    line = refused(capsys, "--config", "run/config.yaml", "--out", "run", "--resume")
    assert "the data is not that of the run" in line
