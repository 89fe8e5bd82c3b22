"""Runs for boxes and masks from the command line: what they leave, and that disturbed ones end with the same bits."""

import json
import re
import signal
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import load_file

import isometry
from helpers.dense_files import write_yolo
from helpers.runs import call_at, check_equal, contents, run, send_self
from helpers.scenes import NETWORK, TINY, few_scenes
from isometry.config import RunConfig
from isometry.data.dense import digit_scenes
from isometry.recipes import read_saved


def started(task, out, *words, prepare=few_scenes):
    words = ["transfer", *TINY, "--task", task, "--out", str(out / "run"), *words]
    return run(*words, said=out / "said", prepare=prepare, report=True)


@pytest.fixture(scope="module", params=["detect", "segment"])
def finished(request, tmp_path_factory):
    """A run that nothing happened to, and its task."""
    folder = tmp_path_factory.mktemp(request.param)
    ended = started(request.param, folder)
    assert ended.code == 0, ended.err
    return request.param, folder / "run", ended


def test_what_a_run_leaves(finished):
    task, folder, ended = finished
    (row,) = json.loads((folder / "summary.json").read_text())
    score = "ap" if task == "detect" else "miou"
    assert (row["task"], row["part"], row["role"]) == (task, "test", "student")
    assert 0 <= row[f"{score}_low"] <= row[score] <= row[f"{score}_high"] <= 100
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [each["epoch"] for each in rows] == [1, 2]
    assert all(0 <= each[f"val/{score}"] <= 100 for each in rows)
    assert rows[1]["train/loss"] < rows[0]["train/loss"]
    assert f"Network  {folder / 'model'}" in ended.out
    assert set(json.loads((folder / "data.json").read_text())["inventory"]["images"]) >= {
        "training",
        "validation",
    }
    config: RunConfig = read_saved(folder / "config.yaml")[0]
    assert (config.task, config.hflip, config.img_size, config.in_chans) == (task, 0, 96, 1)


def test_what_the_data_hold_and_the_intervals_are_printed(finished):
    task, _, ended = finished
    said = " ".join((ended.out + ended.err).split())
    kind, name = ("boxes", "AP") if task == "detect" else ("masks", "mIoU")
    assert f"digit-scenes: 40 training, 12 validation, 12 test images with {kind}" in said
    assert ("by COCO's sizes" in said) == (task == "detect")
    assert bool(re.search(r"Classes smallest \d \(\d+\), largest \d \(\d+\)", said)) == (task == "detect")
    assert re.search(rf"95 % interval over pictures: {name} \d+\.\d to \d+\.\d %", said)


def test_the_network_loads_and_its_backbone_is_a_plain_timm_folder(finished):
    task, folder, _ = finished
    network = isometry.load(folder)
    assert network.task == task
    assert network.class_names[-1] == "9"
    student = timm.create_model(f"local-dir:{folder / 'student'}", pretrained=True).eval()
    assert student.num_classes == 0
    images = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(student.forward_features(images), network.backbone.forward_features(images))


def test_the_best_epoch_is_delivered(finished):
    task, folder, _ = finished
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    key = "val/ap" if task == "detect" else "val/miou"
    best = max(rows, key=lambda row: row[key])["epoch"]
    assert json.loads((folder / "best" / "checkpoint.json").read_text())["epoch"] == best


def test_the_report_shows_the_scores_and_the_pictures(finished):
    task, folder, _ = finished
    page = (folder / "report.html").read_text()
    assert '<section id="task"' in page
    assert re.search("Worst pictures.*Best pictures", page, re.DOTALL)
    assert "scene" in page
    assert f"<h2>{'Boxes' if task == 'detect' else 'Masks'}</h2>" in page
    # None of the best has a score of 0.
    shown = 4 + len(re.findall("<h4[^>]*>", page[page.index("Best pictures") :]))
    assert page.count('<image width="96"') == shown * (2 if task == "detect" else 3)
    assert "No accuracy was measured" not in page
    if task == "detect":
        assert all(text in page for text in ("AR@100", "boxes in training", "Focal loss", "GIoU loss"))
        assert re.search(r"with which F1 over all pictures is largest|No box is right", page)
        assert "bbox_" not in page


STEP = "isometry.training.transfer.dense:DenseTrainer.train_step"
DISTURBANCES = {
    "killed inside an epoch": (STEP, 6, signal.SIGKILL, -9),
    "stopped inside an epoch": (STEP, 3, signal.SIGTERM, 0),
    "stopped in the second epoch": (STEP, 7, signal.SIGINT, 130),
    "killed before a save": ("isometry.training.transfer.dense:DenseTrainer.save", 3, signal.SIGKILL, -9),
    "killed at the end": ("isometry.training.transfer.run:finish_dense", 1, signal.SIGKILL, -9),
    "stopped in a validation": (
        "isometry.training.transfer.dense:DenseTrainer.validate",
        2,
        signal.SIGTERM,
        0,
    ),
}


def disturbed(target, number, signal_number):
    few_scenes()
    call_at(target, number, partial(send_self, signal_number))


@pytest.mark.parametrize(
    ("finished", "what"),
    [("detect", "killed inside an epoch"), *(("segment", what) for what in DISTURBANCES)],
    indirect=["finished"],
)
def test_a_disturbed_run_ends_with_the_same_bits(what, finished, tmp_path):
    task, folder, _ = finished
    *place, code = DISTURBANCES[what]
    ended = started(task, tmp_path, prepare=partial(disturbed, *place))
    assert ended.code == code, ended.err
    if code in (0, 130):
        assert "saved; go on with --resume" in ended.err
    ended = started(task, tmp_path, "--resume")
    assert ended.code == 0, ended.err
    check_equal(contents(tmp_path / "run"), contents(folder))


MIXED = ["--overrides", "amp=true", "channels_last=true"]


def test_mixed_precision_trains_nearly_the_same_and_resumes_with_the_same_bits(finished, tmp_path):
    task, plain, _ = finished
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    ended = started(task, whole, *MIXED)
    assert ended.code == 0, ended.err
    mixed, exact = (
        [json.loads(line)["train/loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole / "run", plain)
    )
    assert mixed != exact
    assert mixed == pytest.approx(exact, rel=0.05)
    *place, code = DISTURBANCES["killed inside an epoch"]
    ended = started(task, cut, *MIXED, prepare=partial(disturbed, *place))
    assert ended.code == code, ended.err
    ended = started(task, cut, *MIXED, "--resume")
    assert ended.code == 0, ended.err
    check_equal(contents(cut / "run"), contents(whole / "run"))


def test_convolutions_laid_out_for_speed_are_saved_as_any(tmp_path):
    kwargs = ["in_chans=1", "layers=[1,1,1,1]", "channels=[8,8,16,16]"]
    words = [*("resnet18", "--random-weights", "--img-size", "96"), "--model-kwargs", *kwargs]
    words += [*("--batch-size", "10", "--epochs", "1", "--workers", "0", "--device", "cpu")]
    words += ["--dataset", "digit-scenes", "--task", "segment", "--out", str(tmp_path / "run"), *MIXED]
    ended = run("transfer", *words, said=tmp_path / "said", prepare=few_scenes, report=True)
    assert ended.code == 0, ended.err
    student = timm.create_model(f"local-dir:{tmp_path / 'run' / 'student'}", pretrained=True)
    assert torch.equal(student.conv1.weight, isometry.load(tmp_path / "run").backbone.conv1.weight)


def test_a_run_that_resumes_says_which_annotations_have_changed(tmp_path):
    write_yolo(tmp_path / "data", images=20)
    words = ["transfer", *NETWORK, "--task", "detect", "--data-dir", str(tmp_path / "data")]
    words += ["--out", str(tmp_path / "run")]
    ended = run(
        *words, said=tmp_path / "said", prepare=partial(call_at, STEP, 3, partial(send_self, signal.SIGTERM))
    )
    assert "stopped at step 3 of 4" in ended.err
    (label,) = (tmp_path / "data" / "labels" / "val").glob("7.txt")
    kind, *_ = label.read_text().split()
    label.write_text(f"{kind} 0.5 0.5 0.2 0.2\n")
    ended = run(*words, "--resume", said=tmp_path / "said", report=True)
    assert ended.code == 0, ended.err
    (note,) = json.loads((tmp_path / "run" / "data.json").read_text())["notes"]
    assert note.startswith(
        "resumed inside an epoch with other images: validation 20 images, 20 now (images/val/ 20"
    )
    assert "but of other names, sizes or labels" in note
    assert "the best epoch is chosen anew" in note
    assert json.loads((tmp_path / "run" / "best" / "checkpoint.json").read_text())["epoch"] == 2
    assert "resumed inside an epoch with other images" in (tmp_path / "run" / "report.html").read_text()
    assert "resumed inside an epoch with other images" in ended.out + ended.err


def not_a_number():
    """The third step's losses are NaN."""
    from isometry.training.transfer.dense import DenseTrainer

    few_scenes()
    original = DenseTrainer._losses

    def losses(self, batch):
        found = original(self, batch)
        return (
            {name: value * float("nan") for name, value in found.items()} if self.state.step == 2 else found
        )

    DenseTrainer._losses = losses


def test_a_loss_that_is_not_finite_is_refused_after_a_save(tmp_path):
    ended = started("segment", tmp_path, prepare=not_a_number)
    assert ended.code == 2
    assert "step 2 (epoch 1): the sum of losses is not finite" in ended.err
    assert "saved at step 2" in ended.err
    assert json.loads((tmp_path / "run" / "not_finite.json").read_text())["step"] == 2
    ended = started("segment", tmp_path, "--resume")
    assert ended.code == 0, ended.err
    assert not (tmp_path / "run" / "not_finite.json").exists()


def test_a_frozen_backbone_keeps_its_bits(tmp_path, finished):
    task, folder, _ = finished
    words = [
        "transfer",
        str(folder),
        "--dataset",
        "digit-scenes",
        "--task",
        task,
        "--freeze",
        "--workers",
        "0",
    ]
    words += ["--epochs", "1", "--batch-size", "20", "--device", "cpu", "--out", str(tmp_path / "frozen")]
    ended = run(*words, said=tmp_path / "said", prepare=few_scenes)
    assert ended.code == 0, ended.err
    before = load_file(folder / "student" / "model.safetensors")
    after = load_file(tmp_path / "frozen" / "student" / "model.safetensors")
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def fewer_scenes():
    few_scenes()
    digit_scenes.TRAIN = 30


def test_other_data_is_refused_when_a_run_resumes(tmp_path):
    prepare = partial(disturbed, STEP, 3, signal.SIGTERM)
    assert started("segment", tmp_path, prepare=prepare).code == 0
    ended = started("segment", tmp_path, "--resume", prepare=fewer_scenes)
    assert ended.code == 2
    assert "--resume: the data is not that of the run" in ended.err
    assert "40 training" in ended.err
    assert "30 training" in ended.err
