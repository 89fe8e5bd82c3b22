"""`isometry evaluate --dense` on real small runs: what it compares, what it writes, what it leaves out."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from helpers.mask_folders import write_masks
from helpers.runs import TINY_STUDENT, run
from isometry.cli.evaluate_dense import before_training, student_view
from isometry.cli.main import main
from isometry.config import RunConfig
from isometry.data import ImageSpec, find_sources
from isometry.distributed import World
from isometry.evaluation.dense import patch_probe
from isometry.evaluation.dense.feature_extractor import FeatureExtractor
from isometry.evaluation.saved_network import open_folder
from isometry.files import write_output
from isometry.models.build import save_model
from isometry.models.teacher import StudentView
from isometry.recipes import read_saved
from isometry.training.assemble import assemble

LABELLED = {"recall@1", "recall@5", "mAP"}
KEPT = {
    "kept neighbours, images",
    "kept neighbours, patches",
    "kept neighbours, all patches",
}


@pytest.fixture(scope="session")
def student(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a student of 2×2 patches, distilled for one epoch."""
    folder = tmp_path_factory.mktemp("student")
    words = [*TINY_STUDENT, "--teacher", f"local-dir:{tiny_teacher}", "--epochs", "1"]
    ended = run("distill", *words, "--out", str(folder / "run"), said=folder / "said")
    assert ended.code == 0, ended.err
    return folder / "run"


@pytest.fixture
def copied(student: Path, tmp_path: Path) -> Path:
    return shutil.copytree(student, tmp_path / "run")


def evaluated(*words: str) -> dict:
    assert main(["evaluate", *words, "--device", "cpu"]) == 0
    out = Path(words[words.index("--out") + 1]) if "--out" in words else Path(words[0])
    return json.loads((out / "evaluation.json").read_text())


def test_a_run_is_compared_with_its_start_and_its_teacher(copied, capsys):
    found = evaluated(str(copied), "--dense")
    rows = {(row["figure"], row["of"]): row for row in found["dense"]["figures"]}
    assert {figure for figure, _ in rows} == LABELLED | KEPT | {"correspondence"}
    assert {of for figure, of in rows if figure not in KEPT} == {"trained", "before training", "teacher"}
    assert {of for figure, of in rows if figure in KEPT} == {"trained", "before training"}
    assert found["dense"]["teacher"] == "cait_xxs24_224"
    for row in rows.values():
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 100
    assert rows["mAP", "trained"]["images"] == 500
    # The digits' ten classes are about equal in number.
    assert rows["recall@1", "trained"]["chance"] == pytest.approx(10, abs=1)
    assert rows["kept neighbours, images", "trained"]["chance"] == pytest.approx(1000 / 499)
    assert rows["correspondence", "teacher"]["chance"] == 25
    output = capsys.readouterr().out
    row = rows["mAP", "teacher"]
    assert f"{row['low']:.1f} to {row['high']:.1f} %" in output
    assert "…" not in output
    assert "top-1" in output
    # The same again, to the last digit.
    assert evaluated(str(copied), "--dense")["dense"] == found["dense"]


def test_the_report_has_the_section(copied, capsys):
    found = evaluated(str(copied), "--dense")
    assert f"Report   {copied / 'report.html'}" in capsys.readouterr().out
    written = (copied / "report.html").read_text()
    assert 'id="dense"' in written
    row = next(row for row in found["dense"]["figures"] if row["figure"] == "kept neighbours, images")
    assert f"{row['value']:.1f} ({row['low']:.1f}–{row['high']:.1f})" in written
    assert main(["report", str(copied)]) == 0
    assert (copied / "report.html").read_text() == written
    # Elsewhere, the run's page is left as it is.
    evaluated(str(copied), "--out", str(copied.parent / "other"), "--dense")
    assert (copied / "report.html").read_text() == written
    (copied / "report.html").write_text(f"{written}<p>mine</p>")
    capsys.readouterr()
    assert main(["evaluate", str(copied), "--dense", "--device", "cpu"]) == 2
    assert "report.html: was changed since" in " ".join(capsys.readouterr().err.split())
    (copied / "report.html").unlink()
    (copied / "evaluation.json").write_text('{"dense": {"figures": [{"figure": 1}]}}')
    assert main(["report", str(copied)]) == 0
    assert "evaluation.json: can't be read" in capsys.readouterr().out


def test_the_figures_stay_where_the_same_network_is_evaluated_without_them(copied, capsys):
    found = evaluated(str(copied), "--dense")
    written = (copied / "report.html").read_text()
    assert "on the test part of digits" in written
    capsys.readouterr()
    later = evaluated(str(copied))
    assert later["dense"] == found["dense"]
    # They are no result of this command.
    assert "kept neighbours" not in capsys.readouterr().out
    assert main(["report", str(copied)]) == 0
    assert (copied / "report.html").read_text() == written
    weights = copied / "student" / "model.safetensors"
    tensors = load_file(weights)
    tensors["head.bias"] += 1
    save_file(tensors, weights, {"format": "pt"})
    capsys.readouterr()
    changed = evaluated(str(copied))
    assert "dense" not in changed
    assert any("they are of other weights" in note for note in changed["notes"])
    assert main(["report", str(copied)]) == 0
    assert 'id="dense"' not in (copied / "report.html").read_text()
    # What an older version measured does not name its weights.
    del found["dense"]["weights"]
    write_output(copied / "evaluation.json", json.dumps(found))
    assert "dense" not in evaluated(str(copied))


def test_the_network_before_training_is_that_of_the_runs_first_step(student):
    saved = open_folder(str(student), command="evaluate")
    before = before_training(saved, notes := [])
    begun = assemble(read_saved(student / "config.yaml")[0], World(0, 1, torch.device("cpu")))
    assert notes == []
    assert before is not None
    theirs = begun.student.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in before.state_dict().items())
    trained = saved.network.state_dict()
    assert not all(torch.equal(tensor, trained[name]) for name, tensor in before.state_dict().items())


def test_the_run_of_a_teacher_against_itself_keeps_all(tiny_teacher, tmp_path):
    words = ["--dense", "--teacher", str(tiny_teacher.parent), "--out", str(tmp_path)]
    found = evaluated(str(tiny_teacher.parent), *words)
    rows = {(row["figure"], row["of"]): row["value"] for row in found["dense"]["figures"]}
    for figure in KEPT:
        assert rows[figure, "trained"] == 100
        assert rows[figure, "before training"] < 100
    for figure in (*LABELLED, "correspondence"):
        assert rows[figure, "trained"] == rows[figure, "teacher"]


def test_the_teacher_sees_the_pixels_that_it_saw_in_training(tmp_path, monkeypatch):
    """Pictures of stripes that the student's size does not show."""
    pictures = tmp_path / "pictures"
    stripes = np.zeros((32, 32), np.uint8)
    stripes[::2] = 255
    for number in range(24):
        path = pictures / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stripes).save(path)
    words = (
        f"--data-dir {pictures} --val-fraction 0.5 -b 6 --workers 0 --epochs 1 --device cpu --no-aug --crop-pct 1 "
        "--student vit_tiny_patch16_224 --student-kwargs patch_size=4 embed_dim=16 depth=1 num_heads=2 --img-size 8 "
        "--teacher vit_tiny_patch16_224 --teacher-weights none --teacher-kwargs img_size=32 patch_size=16 embed_dim=16 "
        "depth=1 num_heads=2 num_classes=2 --losses.whole 1"
    ).split()
    seen = {}

    def keep(self, images_BCHW):
        made = features(self, images_BCHW)
        if self.adapter is not None:
            shown = self.adapter(images_BCHW)
            seen.setdefault(tuple(shown.shape[1:]), []).append(shown)
        return made

    features = FeatureExtractor.features
    monkeypatch.setattr(FeatureExtractor, "features", keep)
    for name, more in (("plain", []), ("original", ["--teacher-pixels", "original"])):
        ended = run("distill", *words, *more, "--out", str(tmp_path / name), said=tmp_path / "said")
        assert ended.code == 0, ended.err
        seen.clear()
        notes = evaluated(str(tmp_path / name), "--dense")["notes"]
        # Of the images as they are read, before the views of them that correspondence crops.
        first = seen[3, 32, 32][0]
        detail = float((first[:, :, 1:] - first[:, :, :-1]).abs().mean())
        assert detail == pytest.approx(2 if name == "original" else 0, abs=0.2)
        assert any("images are read at 32×32 pixels for the teacher" in n for n in notes) == (
            name == "original"
        )
    # Scaled down, and to the last bit what training shows the student of them.
    large = seen[3, 32, 32][0]
    spec = ImageSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    view = StudentView(replace(spec, interpolation="bicubic"), replace(spec, input_size=(3, 32, 32)))
    assert torch.equal(seen[3, 8, 8][0], view(large))


def test_a_teacher_of_no_larger_images_is_said():
    config = replace(RunConfig(), teacher_pixels="original")
    spec = ImageSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    assert student_view(config, spec, spec, notes := []) is None
    assert notes == [
        "--teacher-pixels original of the run is not followed: the teacher takes 8×8 pixels, and sees the network's "
        "images, scaled"
    ]
    assert student_view(RunConfig(), spec, spec, notes := []) is None
    assert notes == []


def test_without_labels_and_without_a_run(copied, tmp_path, capsys):
    plain = tmp_path / "plain"
    plain.mkdir()
    images = find_sources(RunConfig(dataset="digits")).train
    for number in range(200):
        images.load(number)[0].save(plain / f"{number}.png")
    (copied / "config.yaml").unlink()
    words = [str(copied / "student"), "--data-dir", str(plain), "--dense", "--out", str(tmp_path)]
    found = evaluated(*words)
    assert {row["figure"] for row in found["dense"]["figures"]} == {"correspondence"}
    assert {row["of"] for row in found["dense"]["figures"]} == {"trained"}
    assert not {"scores", "probes"} & set(found)
    for part in (
        "before training is left out",
        "kept geometry is left out; name one with --teacher",
        "no labels",
    ):
        assert any(part in note for note in found["notes"]), part
    capsys.readouterr()
    assert main(["evaluate", *words, "--probe", "--device", "cpu"]) == 2
    assert "no labels" in capsys.readouterr().err


def test_a_teacher_that_is_gone_is_a_note_and_a_named_one_an_error(copied, capsys):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("teacher: local-dir:", "teacher: local-dir:/nowhere"))
    found = evaluated(str(copied), "--dense")
    assert not KEPT & {row["figure"] for row in found["dense"]["figures"]}
    (note,) = [note for note in found["notes"] if "teacher" in note]
    assert "can't be opened" in note
    assert "/nowhere" in note
    text = config.read_text()
    config.write_text(re.sub(r"^teacher: .*$", "teacher: cait_s24_224", text, flags=re.MULTILINE))
    notes = evaluated(str(copied), "--dense")["notes"]
    assert any("its pretrained weights are not on this machine" in note for note in notes)
    for words, said in (
        (["--dense", "--teacher", "local-dir:nowhere"], "--teacher local-dir:nowhere"),
        (["--teacher", str(copied)], "add --dense"),
        (["--dense-masks", str(copied)], "add --dense"),
        (["--dense", "--dense-masks", str(copied)], "has no masks"),
    ):
        capsys.readouterr()
        assert main(["evaluate", str(copied), *words, "--device", "cpu"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line


def test_masks_of_a_folder_are_probed_whatever_the_images_are(copied, tmp_path):
    write_masks(tmp_path, {"train": 12, "val": 4}, squares=2)
    found = evaluated(str(copied), "--dense", "--dense-masks", str(tmp_path))
    rows = [row for row in found["dense"]["figures"] if row["figure"] == "patch mIoU"]
    assert [(row["of"], row["images"]) for row in rows] == [
        (name, 4) for name in ("trained", "before training", "teacher")
    ]
    assert any("12 training, 4 validation" in note for note in found["dense"]["notes"])


def test_scenes_have_masks_of_their_own(tmp_path, monkeypatch):
    for name, most in (("TRAINING_IMAGES", 40), ("JUDGED_IMAGES", 20)):
        monkeypatch.setattr(patch_probe, name, most)
    torch.manual_seed(0)
    sizes = {"img_size": 96, "patch_size": 12, "embed_dim": 24, "depth": 1, "num_heads": 2, "in_chans": 1}
    network = timm.create_model("vit_tiny_patch16_224", **sizes, num_classes=0)
    save_model(network, tmp_path, None, {"input_size": (1, 96, 96)})
    found = evaluated(str(tmp_path), "--dense", "--dataset", "digit-scenes")
    rows = {row["of"]: row for row in found["dense"]["figures"] if row["figure"] == "patch mIoU"}
    assert set(rows) == {"trained"}
    assert 0 < rows["trained"]["chance"] < 10
    assert rows["trained"]["chance"] <= rows["trained"]["value"] < 50
