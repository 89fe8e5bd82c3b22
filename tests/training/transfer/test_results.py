"""What a finished run for boxes says of its data, and `isometry evaluate` of the run's network."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.dense_files import write_picture, write_yolo
from helpers.scenes import NETWORK
from isometry.cli.main import main

BROKEN = ["images/test/0.png", "images/train/3.png", "images/val/2.png"]


def write_broken(root: Path) -> Path:
    """Pictures with boxes in three splits, one of each of which can't be read."""
    write_yolo(root)
    for kind in ("images", "labels"):
        shutil.copytree(root / kind / "val", root / kind / "test")
    with (root / "data.yaml").open("a", encoding="utf-8") as file:
        file.write("test: images/test\n")
    for name in BROKEN:
        (root / name).write_bytes((root / name).read_bytes()[:80])
    return root


@pytest.fixture
def transferred(tmp_path, capsys):
    """Trains on the data in a folder, and gives what was printed."""

    def transfer(*words: str) -> str:
        data = ["--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
        assert main(["transfer", *NETWORK, "--task", "detect", *data, *words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return transfer


def test_unreadable_pictures_of_all_splits_are_counted_and_named(tmp_path, transferred, capsys):
    data = write_broken(tmp_path / "data")
    said = transferred("--skip-bad-images")
    skipped = f"3 unreadable images were skipped: {', '.join(str(data / name) for name in BROKEN)}"
    assert skipped in said
    assert skipped in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert main(["evaluate", str(tmp_path / "run"), "--device", "cpu"]) == 0
    left_out = f"1 unreadable image is left out of the figures: {data / BROKEN[0]}"
    assert left_out in capsys.readouterr().out
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["notes"][-1] == left_out
    assert evaluation["scores"]["images"] == 3


def test_data_that_changed_since_is_said_by_an_evaluation_and_by_a_finished_run(
    tmp_path, transferred, capsys
):
    data, run = write_yolo(tmp_path / "data"), str(tmp_path / "run")
    # Its boxes are others where it is not turned.
    write_picture(data / "images/val/0.png", (60, 40), orientation=6)
    transferred()
    (data / "labels/val/1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    for words in ([], ["--exif", "ignore"]):
        assert main(["evaluate", run, "--device", "cpu", *words]) == 0
        said = capsys.readouterr().out
        changed = f"the image files of {run} have changed since it was trained: validation 4 images, 4 now"
        assert f"{changed} (images/val/ 4, but of other names, sizes or labels)" in said
    said = transferred("--resume")
    assert "resumed with other images: validation 4 images, 4 now" in said
    assert "the best epoch is the one that was chosen on those of before" in said
    assert "resumed with other images" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert main(["evaluate", run, "--device", "cpu", "--exif", "ignore"]) == 0
    assert "have changed" not in capsys.readouterr().out
