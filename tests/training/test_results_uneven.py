"""A run on images as people have them: what was left out is said, and small classes count in a figure of their own."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.image_files import write_classes, write_image
from helpers.runs import Ended, run
from isometry.cli.main import main

OPTIONS = [
    *("--model", "vit_tiny_patch16_224", "--img-size", "8"),
    *("--model-kwargs", "patch_size=4", "embed_dim=16", "depth=1", "num_heads=2"),
    *("--epochs", "1", "--batch-size", "8", "--workers", "0", "--device", "cpu", "--warmup-epochs", "0"),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_classes(tmp_path_factory.mktemp("photos"), {"cat": 40, "dog": 12, "emu": 1})
    write_image(root / ".ipynb_checkpoints" / "1.png")
    (root / "cat" / "1.pdf").touch()
    return root


@pytest.fixture(scope="module")
def ended(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    said = tmp_path_factory.mktemp("said") / "said"
    words = ("train", *OPTIONS, "--data-dir", str(photos), "--out", str(photos / "runs" / "first"))
    ended = run(*words, said=said, report=True)
    assert ended.code == 0, ended.err
    return ended


def notes(photos: Path) -> list[str]:
    return [
        f"{photos}: folders left out (programs make them, so they are no classes): .ipynb_checkpoints",
        f"{photos}: files left out: 1 .pdf",
        "classes without an image in validation, and their training images: emu (1)",
    ]


def test_the_console_and_the_report_say_what_was_left_out(photos: Path, ended: Ended):
    page = (photos / "runs" / "first" / "report.html").read_text(encoding="utf-8")
    for note in notes(photos):
        assert note in ended.out + ended.err
        assert note in page


def test_the_mean_of_the_classes_is_beside_top1(photos: Path, ended: Ended):
    folder = photos / "runs" / "first"
    (row,) = json.loads((folder / "summary.json").read_text())
    assert 0 <= row["top1_by_class"] <= 100
    (epoch,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert epoch["val/top1_by_class"] == row["top1_by_class"]
    assert "mean of" in ended.out  # the heading is wrapped
    assert "mean of classes" in (folder / "report.html").read_text(encoding="utf-8")


def test_evaluate_has_both_on_the_split_of_the_run(photos: Path, ended: Ended, capsys):
    """The run lies in the folder of its images, and is no class there."""
    folder = photos / "runs" / "first"
    assert main(["evaluate", str(folder)]) == 0
    assert "mean of the classes" in capsys.readouterr().out
    found = json.loads((folder / "evaluation.json").read_text())
    (row,) = json.loads((folder / "summary.json").read_text())
    assert found["scores"]["top1"]["images"] == 5
    assert found["scores"]["top1"]["value"] == pytest.approx(row["top1"])
    assert found["scores"]["top1_by_class"]["value"] == pytest.approx(row["top1_by_class"])
    assert notes(photos)[0] in found["notes"]


def test_exports_have_both(photos: Path, ended: Ended, tmp_path: Path, capsys):
    folder = photos / "runs" / "first"
    (row,) = json.loads((folder / "summary.json").read_text())
    beside = f"mean of classes {row['top1_by_class']:.1f} %"
    words = ("export", str(folder), "--seconds", "0.01")
    assert main([*words, "--to", "timm", "--out", str(tmp_path / "timm")]) == 0
    assert beside in capsys.readouterr().out.replace("\n", " ")
    assert beside in (tmp_path / "timm" / "README.md").read_text(encoding="utf-8")
    found = json.loads((tmp_path / "timm" / "export.json").read_text())["accuracy"]
    assert found["top1"] == pytest.approx(row["top1"])
    assert found["top1_by_class"] == pytest.approx(row["top1_by_class"])


def test_a_comparison_has_both(photos: Path, ended: Ended, tmp_path: Path):
    first, again = photos / "runs" / "first", tmp_path / "again"
    shutil.copytree(first, again)
    config = again / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.001", "lr: 0.002"))
    assert main(["report", str(first), str(again), "--out", str(tmp_path / "both.html")]) == 0
    assert "mean of classes, %" in (tmp_path / "both.html").read_text(encoding="utf-8")


def test_transfer_has_both(photos: Path, ended: Ended, tmp_path: Path, capsys):
    images = write_classes(tmp_path / "others", {"yak": 40, "zebu": 10})
    words = ("--transfer", str(images), "--out", str(tmp_path), "--device", "cpu")
    quick = ("--overrides", "epochs=1", "warmup_epochs=0", "workers=0", "img_size=8", "batch_size=8")
    assert main(["evaluate", str(photos / "runs" / "first"), *words, *quick]) == 0
    assert "mean of" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "evaluation.json").read_text())["transfer"]
    summary = json.loads((tmp_path / "transfer" / "others" / "summary.json").read_text())
    assert row["top1_by_class"] == summary[-1]["top1_by_class"]


def test_check_shows_the_smallest_and_the_largest_class(photos: Path, capsys):
    assert main(["check", *OPTIONS, "--data-dir", str(photos)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Classes smallest emu (1), largest cat (36), by training images" in output
    for note in notes(photos):
        assert note in output
