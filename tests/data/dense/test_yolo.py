"""Boxes in YOLO's text files: the layouts that people have, and what is found before training."""

from pathlib import Path

import numpy as np
import pytest

from helpers.dense_files import write_picture, write_yolo
from isometry.config import DataConfig
from isometry.data.dense.sources import DenseSources, find_dense_sources
from isometry.errors import UserError


def opened(root: Path, **options: object) -> DenseSources:
    return find_dense_sources(DataConfig(data_dir=str(root), **options), "detect")


@pytest.mark.parametrize("given", ["folder", "data.yaml"])
def test_a_folder_or_its_data_yaml_is_read(tmp_path, given):
    root = write_yolo(tmp_path)
    sources = opened(root / given if given != "folder" else root)
    assert (len(sources.train), len(sources.val), sources.test) == (4, 4, None)
    assert sources.class_names == ["cat", "dog"]
    assert sources.notes == []
    image, boxes = sources.train.load(1)
    assert image.size == (60, 40)
    assert boxes.xyxy.tolist() == [[0, 0, 30, 20]]
    assert boxes.labels.tolist() == [1]
    assert boxes.areas.tolist() == [600]


def test_roboflows_paths_begin_one_folder_too_high(tmp_path):
    root = write_yolo(tmp_path / "set")
    for kind in ("images", "labels"):
        for split, name in (("train", "train"), ("val", "valid")):
            (root / name).mkdir(exist_ok=True)
            (root / kind / split).rename(root / name / kind)
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnames: {0: cat, 1: dog}\nnc: 2\n"
    )
    sources = opened(root)
    assert (len(sources.train), len(sources.val)) == (4, 4)
    assert sources.train.boxes(0).xyxy.tolist() == [[0, 0, 30, 20]]


def test_a_path_and_lists_of_pictures_are_obeyed(tmp_path):
    root = write_yolo(tmp_path / "set")
    (root / "some.txt").write_text("./images/train/0.png\nimages/train/2.png\nimages/train/9.png\n")
    (root / "data.yaml").rename(tmp_path / "here.yaml")
    (tmp_path / "here.yaml").write_text("path: set\ntrain: some.txt\nval: [images/val]\nnames: [cat, dog]\n")
    sources = opened(tmp_path / "here.yaml")
    assert [sources.train.where(n)[-5:] for n in range(len(sources.train))] == ["0.png", "2.png"]
    assert sources.notes[0] == "train: pictures left out (not found): 1, e.g. set/images/train/9.png"


def test_without_data_yaml_names_are_those_of_classes_txt_or_numbers(tmp_path):
    root = write_yolo(tmp_path)
    (root / "data.yaml").unlink()
    assert opened(root).class_names == ["0", "1"]
    (root / "classes.txt").write_text("cat\ndog\nbird\n")
    sources = opened(root)
    assert sources.class_names == ["cat", "dog", "bird"]
    assert "train: classes without a box: 1, e.g. bird" in sources.notes[0]


@pytest.mark.parametrize("form", ["[{}, {}, {}, {}, {}]", "{{0: {}, 1: {}, 2: {}, 3: {}, 4: {}}}"])
def test_names_are_those_that_are_written(tmp_path, form):
    root = write_yolo(tmp_path)
    names = ["no", "010", "1_000", "null", "2001-01-01"]
    (root / "data.yaml").write_text(
        f"train: images/train\nval: images/val\ntest:\npath: null\nnames: {form.format(*names)}\n"
    )
    assert opened(root).class_names == names


UNRELATED = {
    "a list": "- numpy\n- torch\n",
    "a tag": "site_name: !ENV NAME\n",
    "no YAML": "a: [\n",
    "other keys": "name: base\n",
}


@pytest.mark.parametrize("kind", UNRELATED)
def test_other_yaml_files_do_not_matter(tmp_path, kind):
    root = write_yolo(tmp_path)
    (root / "conda.yaml").write_text(UNRELATED[kind])
    assert opened(root).class_names == ["cat", "dog"]
    (root / "data.yaml").unlink()
    assert opened(root).class_names == ["0", "1"]
    (root / "conda.yaml").write_text("names: [cat\n")
    with pytest.raises(UserError, match=r"conda\.yaml: is not YAML"):
        opened(root)


@pytest.mark.parametrize(
    ("images", "labels"), [("Images", "Labels"), ("IMAGES", "labels"), ("images", "LABELS")]
)
@pytest.mark.parametrize("layout", ["splits inside", "splits outside", "data.yaml"])
def test_folders_may_be_written_in_capitals(tmp_path, images, labels, layout):
    root = write_yolo(tmp_path)
    (root / "data.yaml").unlink()
    for kind, name in (("images", images), ("labels", labels)):
        for split in ("train", "val") if layout == "splits outside" else ():
            (root / split).mkdir(exist_ok=True)
            (root / kind / split).rename(root / split / name)
        (root / kind).rename(root / name) if layout != "splits outside" else (root / kind).rmdir()
    if layout == "data.yaml":
        (root / layout).write_text(f"train: {images}/train\nval: {images}/val\nnames: [0, 1]\n")
    sources = opened(root)
    assert (len(sources.train), len(sources.val), sources.class_names) == (4, 4, ["0", "1"])
    assert sources.notes == []


def test_pictures_that_share_a_label_file_are_named(tmp_path):
    root = write_yolo(tmp_path)
    write_picture(root / "images/train/0.jpg")
    sources = opened(root)
    assert len(sources.train) == 5
    assert sources.notes == [
        "train: pictures that share a label file (their names differ in the ending alone): 2, e.g. images/train/0.jpg"
    ]


def test_a_huge_class_makes_no_names_up_to_it(tmp_path):
    root = write_yolo(tmp_path)
    (root / "data.yaml").unlink()
    (root / "labels/train/0.txt").write_text("0 0.25 0.25 0.5 0.5\n2000000000 0.5 0.5 0.1 0.1\n")
    sources = opened(root)
    assert sources.class_names == ["0", "1"]
    assert "(they don't begin with the number of a class): 1, e.g. line 2 of" in sources.notes[0]


def test_validation_is_split_off_where_it_is_missing(tmp_path):
    root = write_yolo(tmp_path, images=10)
    (root / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    sources = opened(root, val_fraction=0.3)
    assert (len(sources.train), len(sources.val)) == (7, 3)


LINES = {
    "words": ("cat 0.5 0.5 0.1 0.1", "(they don't begin with the number of a class): 1, e.g. line 2 of"),
    "infinite class": ("inf 0.5 0.5 0.1 0.1", "(they don't begin with the number of a class): 1"),
    "overflowing class": ("1e400 0.5 0.5 0.1 0.1", "(they don't begin with the number of a class): 1"),
    "half a class": ("0.5 0.5 0.5 0.1 0.1", "(they don't begin with the number of a class): 1"),
    "no class": ("-1 0.5 0.5 0.1 0.1", "(they don't begin with the number of a class): 1"),
    "too few": ("0 0.5 0.5 0.1", "(neither the four numbers of a box nor the points of a polygon): 1"),
    "too many": (
        "0 0.5 0.5 0.1 0.1 0.9",
        "(neither the four numbers of a box nor the points of a polygon): 1",
    ),
    "NaN": ("0 nan 0.5 0.1 0.1", "(neither the four numbers of a box nor the points of a polygon): 1"),
    "a word": ("0 0.5 0.5 0.1 wide", "(neither the four numbers of a box nor the points of a polygon): 1"),
    "pixels": ("0 30 20 10 10", "(coordinates that are not from 0 to 1, such as pixels): 1, e.g. line 2 of"),
    "pixels of a polygon": ("0 3 2 9 2 9 7", "(coordinates that are not from 0 to 1, such as pixels): 1"),
    "beyond the names": ("7 0.5 0.5 0.1 0.1", "lines left out (a class without a name): 1, e.g. line 2 of"),
    "twice": ("0 0.25 0.25 0.5 0.5", "lines left out (written twice): 1, e.g. line 2 of"),
    "no area": ("0 0.5 0.5 0 0.1", "boxes left out (of no area): 1, e.g. line 2 of"),
    "outside": ("0 1.2 0.5 0.1 0.1", "boxes left out (outside their picture): 1, e.g. line 2 of"),
}


@pytest.mark.parametrize("fault", LINES)
def test_faulty_lines_are_counted_and_named(tmp_path, fault):
    line, note = LINES[fault]
    root = write_yolo(tmp_path)
    with (root / "labels/train/0.txt").open("a") as file:
        file.write(f"{line}\n\n")
    sources = opened(root)
    assert len(sources.notes) == 1
    assert note in sources.notes[0]
    assert sources.notes[0].startswith("train: ")
    assert "e.g. line 2 of labels/train/0.txt" in sources.notes[0]
    assert sources.train.boxes(0).xyxy.tolist() == [[0, 0, 30, 20]]


def test_boxes_that_reach_out_are_clipped(tmp_path):
    root = write_yolo(tmp_path)
    (root / "labels/train/0.txt").write_text("1 1.0 0.5 0.2 0.5\n")
    sources = opened(root)
    np.testing.assert_allclose(sources.train.boxes(0).xyxy, [[54, 10, 60, 30]], atol=1e-4)
    np.testing.assert_allclose(sources.train.boxes(0).areas, [120], atol=1e-3)
    assert "boxes clipped (they reach out of their picture): 1" in sources.notes[0]


def test_polygons_become_their_boxes_and_are_counted(tmp_path):
    root = write_yolo(tmp_path)
    (root / "labels/train/0.txt").write_text("1 0.5 0.1 0.9 0.5 0.5 0.9 0.1 0.5\n")
    (root / "labels/train/2.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.1 0.2 0.4 0.2 0.3 0.6\n")
    sources = opened(root)
    np.testing.assert_allclose(sources.train.boxes(0).xyxy, [[6, 4, 54, 36]], atol=1e-4)
    np.testing.assert_allclose(sources.train.boxes(2).xyxy, [[15, 10, 45, 30], [6, 8, 24, 24]], atol=1e-4)
    (note,) = sources.notes
    assert "polygons (the box around each is used): 2, e.g. line 1 of" in note


POSE = "1 0.5 0.5 0.5 0.5 0.1 0.1 2 0.9 0.9 0"
"""A box with two key points, each with how well it is seen."""


def test_of_a_pose_the_box_is_read_and_no_polygon(tmp_path):
    root = write_yolo(tmp_path)
    with (root / "data.yaml").open("a") as file:
        file.write("kpt_shape: [2, 3]\n")
    (root / "labels/train/0.txt").write_text(f"{POSE}\n0 0.25 0.25 0.5 0.5\n1 0.1 0.2 0.4 0.2 0.3 0.6\n")
    sources = opened(root)
    assert sources.train.boxes(0).xyxy.tolist() == [[15, 10, 45, 30], [0, 0, 30, 20]]
    assert sources.notes == [
        "train: lines with key points (the box before them is used): 1, e.g. line 1 of labels/train/0.txt",
        "train: lines left out (neither the four numbers of a box nor the points of a polygon): 1, e.g. line 3 of "
        "labels/train/0.txt",
    ]


def test_a_number_of_classes_that_is_not_that_of_the_names_is_said(tmp_path):
    root = write_yolo(tmp_path)
    with (root / "data.yaml").open("a") as file:
        file.write("nc: 3\n")
    sources = opened(root)
    assert sources.class_names == ["cat", "dog"]
    assert sources.notes == ["data.yaml: nc is 3, and 2 classes have names: those are used"]


@pytest.mark.parametrize("exif", ["upright", "ignore"])
def test_boxes_are_shares_of_the_upright_picture(tmp_path, exif):
    root = write_yolo(tmp_path)
    # Turned by 90°, the red quarter lies at the right and top of a picture of 40×60.
    write_picture(root / "images/train/0.png", (60, 40), orientation=6)
    (root / "labels/train/0.txt").write_text("0 0.75 0.25 0.5 0.5\n")
    sources = opened(root, exif=exif)
    boxes = sources.train.boxes(0)
    assert boxes.xyxy.tolist() == [[20, 0, 40, 30] if exif == "upright" else [0, 0, 30, 20]]
    # Shares are the same of either size.
    assert "train: pictures with an EXIF orientation (their boxes are taken to be of" in sources.notes[0]


def test_missing_and_superfluous_label_files_are_counted(tmp_path):
    root = write_yolo(tmp_path)
    (root / "labels/train/1.txt").unlink()
    (root / "labels/val/cat.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    sources = opened(root)
    assert len(sources.train) == 4
    assert len(sources.train.boxes(1)) == 0
    assert sources.notes == [
        "train: pictures without a label file (taken as without objects): 1, e.g. images/train/1.png",
        "val: label files without a picture: 1, e.g. labels/val/cat.txt",
    ]


REFUSED = {
    "not YAML": ("names: [", "is not YAML"),
    "names are numbers alone": ("names: 3\ntrain: images/train\n", r"is no data.yaml of YOLO's \(names"),
    "no names": ("names: []\ntrain: images/train\n", "names: give a list of classes"),
    "huge index": ("names: {0: a, 999999999: b}\ntrain: images/train\n", "names: give a list of classes"),
    "no such folder": ("names: [a]\ntrain: images/gone\n", "train: images/gone can't be found"),
    "a name that no disk has": (f"names: [a]\ntrain: {'a' * 300}\n", "a can't be found; correct the path"),
    "a path that no disk has": (
        f"names: [a]\npath: {'a' * 300}\ntrain: gone\n",
        "train: gone can't be found",
    ),
    "no training": ("names: [a, b]\nval: images/val\n", "has no train part"),
    "no pictures": ("names: [a, b]\ntrain: empty\n", "the train part has no pictures"),
    "key points": ("names: [a]\ntrain: images/train\nkpt_shape: [0, 3]\n", "kpt_shape: give the number of"),
    "a number": ("names: [a]\ntrain: 3\n", r"is no data.yaml of YOLO's \(train"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_data_yaml_that_cannot_be_used_is_refused_in_one_line(tmp_path, fault):
    text, message = REFUSED[fault]
    root = write_yolo(tmp_path)
    (root / "empty").mkdir()
    (root / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        opened(root / "data.yaml")
    assert "\n" not in str(caught.value)


def test_labels_that_leave_nothing_are_refused(tmp_path):
    root = write_yolo(tmp_path)
    for path in root.glob("labels/train/*.txt"):
        path.write_text("0 30 20 10 10\n")
    with pytest.raises(UserError, match=r"train part has no box that can be used .*lines left out .*: 4"):
        opened(root)
