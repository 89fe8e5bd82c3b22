"""Files of strangers name pictures: those outside of the folder that the user named are refused, or said to be read."""

import json
import re
from pathlib import Path

import pytest

from helpers.dense_files import coco, write_coco, write_masks, write_picture, write_yolo
from isometry.config import DataConfig
from isometry.data.dense.bounds import leads_out
from isometry.data.dense.sources import DenseSources, find_dense_sources
from isometry.errors import UserError

NAMED = "train: {}\nval: images/val\nnames: [cat, dog]\n"


def opened(root: Path, task: str = "detect") -> DenseSources:
    return find_dense_sources(DataConfig(data_dir=str(root)), task)


@pytest.mark.parametrize(
    ("path", "out"),
    [
        *[("set/a.png", False), ("set/../set/a.png", False), ("set", False)],
        *[("set/../a.png", True), ("settled/a.png", True), ("../a.png", True), ("/etc/passwd", True)],
    ],
)
def test_a_path_is_judged_as_it_is_written(tmp_path, monkeypatch, path, out):
    monkeypatch.chdir(tmp_path)
    assert leads_out(path, [Path("set")]) is out
    assert leads_out(path, [tmp_path / "elsewhere", tmp_path / "set"]) is out
    assert not leads_out(path, [Path("/")])


@pytest.mark.parametrize("name", ["../../secret.png", "{}/secret.png", "a/../../../secret.png"])
def test_a_file_name_of_coco_that_leads_out_is_refused(tmp_path, name):
    name, root = name.format(tmp_path), tmp_path / "set"
    write_picture(tmp_path / "secret.png")
    content = coco(4)
    write_coco(root / "train.json", content, root / "images")
    content["images"][2]["file_name"] = name
    (root / "train.json").write_text(json.dumps(content))
    said = (
        f"train.json: the file_name of image 12, {name}, leads out of {root}; correct it, or give --data-dir"
    )
    for given in (root, root / "train.json"):
        with pytest.raises(UserError, match=re.escape(said)):
            opened(given)


def test_a_file_name_that_is_written_in_full_or_goes_round_is_read_inside(tmp_path):
    content = coco(4)
    content["images"][1]["file_name"] = str(tmp_path / "images/1.png")
    content["images"][2]["file_name"] = "../images/2.png"
    write_coco(tmp_path / "train.json", coco(4), tmp_path / "images")
    write_coco(tmp_path / "train.json", content, tmp_path / "images")
    sources = opened(tmp_path)
    assert (len(sources.train) + len(sources.val), sources.notes) == (4, [])


@pytest.mark.parametrize("line", ["../secret.png", "{}/secret.png"])
def test_a_line_of_a_list_that_leads_out_is_refused_unless_data_yaml_names_the_folder(tmp_path, line):
    line, root = line.format(tmp_path), write_yolo(tmp_path / "set")
    write_picture(tmp_path / "secret.png")
    (root / "some.txt").write_text(f"images/train/0.png\n{line}\n")
    (root / "data.yaml").write_text(NAMED.format("some.txt"))
    said = f"some.txt: line 2, {line}, leads out of {root}; correct it, or name the folder of the pictures in data.yaml"
    with pytest.raises(UserError, match=re.escape(said)):
        opened(root)
    (root / "data.yaml").write_text(f"path: {tmp_path}\n" + NAMED.format(root / "some.txt"))
    sources = opened(root)
    assert len(sources.train) == 2
    said = "train: pictures outside of the folder (read where data.yaml says): 1, e.g. "
    assert f"{said}{tmp_path}/secret.png" in sources.notes


@pytest.mark.parametrize("given", ["../other/images/train", "{}/other/images/train"])
def test_folders_of_a_data_yaml_are_read_wherever_they_are_and_said(tmp_path, given):
    root = write_yolo(tmp_path / "set")
    write_yolo(tmp_path / "other")
    (root / "data.yaml").write_text(NAMED.format(given.format(tmp_path)))
    sources = opened(root)
    assert sources.train.where(0) == str(tmp_path / "other/images/train/0.png")
    assert sources.notes == [
        "train: pictures outside of the folder (read where data.yaml says): 4, e.g. "
        f"{tmp_path}/other/images/train/0.png"
    ]


def test_a_list_of_voc_names_nothing_outside(tmp_path):
    root = tmp_path / "set"
    write_masks(root)
    for kind, name in (("images", "JPEGImages"), ("masks", "SegmentationClass")):
        (root / kind).rename(root / name)
    write_picture(tmp_path / "secret.png")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("train/0\ntrain/1\nval/0\n../../secret\n")
    sources = opened(root, "segment")
    assert len(sources.train) + len(sources.val) == 3
    assert "listed names left out (without picture and mask): 1, e.g. ../../secret" in sources.notes


def test_links_are_followed_as_in_classification(tmp_path):
    write_masks(tmp_path / "disk")
    (tmp_path / "set").mkdir()
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind).symlink_to(tmp_path / "disk" / kind)
    sources = opened(tmp_path / "set", "segment")
    assert (len(sources.train), len(sources.val)) == (4, 4)
    root = write_yolo(tmp_path / "boxes")
    (root / "images").rename(tmp_path / "pictures")
    (root / "images").symlink_to(tmp_path / "pictures")
    assert opened(root).notes == []
