"""A run on images as people have them: what was left out is said, and small classes count in a figure of their own."""

import json
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


def test_check_shows_the_smallest_and_the_largest_class(photos: Path, capsys):
    assert main(["check", *OPTIONS, "--data-dir", str(photos)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Classes smallest emu (1), largest cat (36), by training images" in output
    for note in notes(photos):
        assert note in output
