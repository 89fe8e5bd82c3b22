"""What a finished run for boxes says of its data, and `isometry evaluate` of the run's network."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.dense_files import write_yolo
from helpers.scenes import NETWORK
from isometry.cli.main import main

EXTRA = ["--overrides", "val_fraction=0.5"]
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
