"""`isometry evaluate` of a detector or segmentation network: other classes, and pictures that can't be read."""

import json

from helpers.dense_files import write_masks, write_yolo
from helpers.dense_networks import dense_network
from isometry.cli.main import main
from isometry.models.dense.saving import save_dense


def test_classes_of_other_data_are_matched_by_name(tmp_path, capsys):
    """The scores are those of the same pictures with the network's own list of classes."""
    save_dense(dense_network("detect"), tmp_path / "model")
    scores = {}
    for order, line in (("own", "[cat, dog, eel]"), ("other", "[unicorn, dog, cat]")):
        root = write_yolo(tmp_path / order, names=("cat", "dog"))
        (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {line}\n")
        numbers = {"own": {"cat": 0, "dog": 1}, "other": {"cat": 2, "dog": 1}}[order]
        for path in root.glob("labels/*/*.txt"):
            name = ("cat", "dog")[int(path.stem) % 2]
            path.write_text(f"{numbers[name]} 0.25 0.25 0.5 0.5\n")
        words = [
            "evaluate",
            str(tmp_path / "model"),
            "--data-dir",
            str(root),
            "--out",
            str(tmp_path / f"{order}_out"),
        ]
        assert main([*words, "--device", "cpu"]) == 0, capsys.readouterr().err
        scores[order] = json.loads((tmp_path / f"{order}_out" / "evaluation.json").read_text())
    assert [row["name"] for row in scores["own"]["scores"]["classes"]] == ["cat", "dog", "eel"]
    assert scores["other"]["scores"] == scores["own"]["scores"]
    assert scores["other"]["notes"][-2:] == [
        "classes of the network that the data lacks: eel",
        "classes of the data that the network lacks (without boxes): unicorn",
    ]
    (root / "labels/val/0.txt").write_text("0 0.25 0.25 0.5 0.5\n")
    assert main([*words, "--device", "cpu"]) == 2
    assert "the validation images have boxes of unicorn" in capsys.readouterr().err


def test_what_the_error_of_an_unreadable_picture_advises_can_be_done(tmp_path, capsys):
    save_dense(dense_network("segment"), tmp_path / "model")
    root = write_masks(tmp_path / "data")
    (root / "classes.txt").write_text("cat\ndog\neel\n")
    broken = root / "images" / "val" / "1.jpg"
    broken.write_bytes(b"no picture")
    words = ["evaluate", str(tmp_path / "model"), "--data-dir", str(root), "--device", "cpu"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot read the image {broken}" in line
    assert line.endswith("or continue without it with --skip-bad-images")
    assert main([*words, "--skip-bad-images"]) == 0
    evaluation = json.loads((tmp_path / "model" / "evaluation.json").read_text())
    assert evaluation["notes"][-1] == f"1 unreadable image is left out of the figures: {broken}"
    assert evaluation["scores"]["images"] == 3
