"""`isometry export` of detectors and segmentation networks: file, metadata, figures; what is for classifiers only is
refused."""

import hashlib
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torchvision.ops import batched_nms

from helpers.dense_networks import CLASSES, dense_network, images_of
from helpers.exported import export, names_in, vit_folder
from isometry.export import dense_onnx
from isometry.models.dense.saving import save_dense


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """The folder of a run: a detector, exported, and its backbone."""
    folder = tmp_path_factory.mktemp("run")
    save_dense(dense_network("detect"), folder / "model", {"exif": "ignore", "pixel_range": None})
    vit_folder(folder / "student")
    assert export(folder, "--to", "onnx", "--seconds", "0.01") == 0
    return folder


def told_by(folder):
    return {each.key: each.value for each in onnx.load(folder / "model.onnx").metadata_props}


def test_the_metadata_say_how_to_use_the_file(run_folder):
    told = told_by(run_folder)
    assert (told["task"], told["architecture"]) == ("detect", "vit_tiny_patch16_224")
    assert json.loads(told["class_names"]) == CLASSES
    assert json.loads(told["shape"]) == [3, 96, 96]
    assert (json.loads(told["mean"]), json.loads(told["std"])) == ([0.5] * 3, [0.25] * 3)
    assert told["exif"] == "ignore"
    assert "pixel_range" not in told
    assert "fit" in told["resize"]
    assert set(json.loads(told["outputs"])) == {"boxes", "scores"}


@torch.no_grad()
def test_file_and_metadata_are_enough_to_detect(run_folder):
    """A program of numpy and ONNX Runtime, with NMS of torchvision, finds what the network finds."""
    told = told_by(run_folder)
    session = onnxruntime.InferenceSession(run_folder / "model.onnx", providers=["CPUExecutionProvider"])
    images = images_of(3)
    boxes_BA4, scores_BAK = session.run(["boxes", "scores"], {"images": images.numpy()})
    for found, boxes, scores in zip(dense_network("detect")(images), boxes_BA4, scores_BAK, strict=True):
        places, labels = np.nonzero(scores > float(told["score_threshold"]))
        chosen = torch.from_numpy(boxes[places]), torch.from_numpy(scores[places, labels])
        kept = batched_nms(*chosen, torch.from_numpy(labels), float(told["nms_iou"]))
        kept = kept[: int(told["most_boxes"])]
        assert labels[kept].tolist() == found["labels"].tolist()
        torch.testing.assert_close(chosen[0][kept], found["boxes"], rtol=0, atol=1e-4)
        torch.testing.assert_close(chosen[1][kept], found["scores"], rtol=0, atol=1e-4)


def test_the_json_file_has_the_figures(run_folder):
    told = json.loads((run_folder / "model.json").read_text())
    file = (run_folder / "model.onnx").read_bytes()
    assert (told["bytes"], told["sha256"]) == (len(file), hashlib.sha256(file).hexdigest())
    assert [row["batch_size"] for row in told["checks"]] == [1, 3, 8]
    assert all(row["scores"] < 1e-4 and row["boxes"] < 1e-2 for row in told["checks"])
    assert [row["form"] for row in told["forms"]] == ["torch", "onnx"]
    assert not [name for name in names_in(run_folder) if name.endswith(".data")]


def test_a_segmentation_network_has_logits(tmp_path, capsys):
    save_dense(dense_network("segment"), tmp_path / "net")
    assert export(tmp_path / "net", "--to", "onnx", "--seconds", "0.01") == 0
    told = told_by(tmp_path / "net")
    assert set(json.loads(told["outputs"])) == {"logits"}
    assert "nms_iou" not in told
    assert "a segmentation network of 3 classes" in capsys.readouterr().out
    # Its files are replaced until they are changed.
    assert export(tmp_path / "net", "--to", "onnx", "--seconds", "0.01") == 0
    figures = tmp_path / "net" / "model.json"
    figures.write_text("edited")
    assert export(tmp_path / "net", "--to", "onnx", "--seconds", "0.01") == 2
    assert f"{figures}: was changed since isometry wrote it" in capsys.readouterr().err
    assert figures.read_text() == "edited"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "timm"], "--to timm: timm has no detectors and no segmentation networks; isometry export"),
        (["--to", "onnx", "--quantize", "int8"], "--quantize int8: is for classifiers; leave it out"),
        (["--to", "onnx", "--masked"], "--masked: detectors and segmentation networks have no gates"),
        (["--to", "onnx", "--dataset", "digits"], "--dataset: a detector or segmentation network is checked"),
        (["--to", "onnx", "--device", "cuda"], "--device cuda: --to onnx checks and measures on the CPU"),
        (["--to", "onnx", "--out", "file.txt"], "--out file.txt: give a file that ends in .onnx"),
    ],
)
def test_what_is_for_classifiers_is_refused_in_one_line(run_folder, capsys, words, told):
    before = names_in(run_folder)
    assert export(run_folder, *words) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert names_in(run_folder) == before


@pytest.mark.parametrize("name", ["c.onnx", "c.json"])
def test_files_of_the_users_are_not_replaced(run_folder, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(dense_onnx, "_built", None)
    (tmp_path / name).write_text('{"my": "data"}')
    assert export(run_folder, "--to", "onnx", "--out", tmp_path / "c.onnx") == 2
    assert f"{tmp_path / name}: isometry has no record of writing this file" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"my": "data"}')]


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch, capsys):
    save_dense(dense_network("segment"), tmp_path / "net")

    def other(network, images, path):
        with torch.no_grad():
            next(network.head.parameters()).mul_(1.01)
        write(network, images, path)
        next(network.head.parameters()).data.div_(1.01)

    write = dense_onnx.dense_to_onnx
    monkeypatch.setattr(dense_onnx, "dense_to_onnx", other)
    assert export(tmp_path / "net", "--to", "onnx") == 2
    assert "the file's logits differ from the network's by up to" in " ".join(capsys.readouterr().err.split())
    assert "net/model.onnx" not in names_in(tmp_path)
