"""Data with the classes of a network: matched by name, and what one of both lacks."""

import numpy as np
import pytest

from helpers.dense_files import quarter_mask, write_mask, write_masks, write_yolo
from isometry.config import DataConfig
from isometry.data.dense.class_match import with_classes
from isometry.data.dense.sources import find_dense_sources
from isometry.errors import UserError


def opened(root, task="detect"):
    return find_dense_sources(DataConfig(data_dir=str(root), workers=0), task)


def test_the_same_classes_are_left_as_they_are(tmp_path):
    sources = opened(write_yolo(tmp_path))
    assert with_classes(sources, ["cat", "dog"], "evaluate x") is sources


def test_boxes_are_renumbered_by_name_and_classes_without_any_may_differ(tmp_path):
    sources = opened(write_yolo(tmp_path, names=("dog", "cat")))  # images 0, 2 have dogs, 1, 3 cats
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [dog, cat, unicorn]\n")
    same = with_classes(sources, ["cat", "eel", "dog"], "evaluate x")
    more = with_classes(opened(tmp_path), ["cat", "eel", "dog"], "evaluate x")
    for found in (same, more):
        assert found.class_names == ["cat", "eel", "dog"]
        assert [found.val.load(n)[1].labels.tolist() for n in range(4)] == [[2], [0], [2], [0]]
        assert [found.train.boxes(n).labels.tolist() for n in range(4)] == [[2], [0], [2], [0]]
        assert found.val.where(1) == sources.val.where(1)
    assert same.notes == ["classes of the network that the data lacks: eel"]
    assert more.notes[-2:] == [
        "classes of the network that the data lacks: eel",
        "classes of the data that the network lacks (without boxes): unicorn",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "eel"], "has the classes cat, eel and the data cat, dog; the validation images have boxes of dog"),
        (["ant", "eel"], "has the classes ant, eel and the data cat, dog"),
        (["cat", "cat", "dog"], "has the classes cat, cat, dog and the data cat, dog"),
    ],
)  # fmt: skip
def test_boxes_of_other_classes_no_common_class_and_names_twice_are_refused(tmp_path, names, message):
    with pytest.raises(UserError, match=f"evaluate x: the network {message}") as caught:
        with_classes(opened(write_yolo(tmp_path)), names, "evaluate x")
    assert "give data of its classes with --data-dir" in str(caught.value)


def test_masks_are_renumbered_and_keep_what_is_ignored(tmp_path):
    root = write_masks(tmp_path)
    (root / "classes.txt").write_text("nothing\ncat\ndog\nhorse\n")
    mask = quarter_mask()
    mask[-1] = 255
    write_mask(root / "masks/val/0.png", mask)
    found = with_classes(opened(root, "segment"), ["dog", "cat", "nothing"], "evaluate x")
    expected = np.where(quarter_mask() == 1, 1, 2)
    expected[-1] = 255
    np.testing.assert_array_equal(found.val.load(0)[1], expected)
    assert found.val.load(0)[1].dtype == np.uint8
    assert found.val.boxes(0) is None
    assert found.notes[-1] == (
        "classes of the data that the network lacks (a mask that has one is refused): horse"
    )


def test_a_mask_with_a_class_that_the_network_lacks_is_refused_when_it_is_read(tmp_path):
    root = write_masks(tmp_path)
    (root / "classes.txt").write_text("nothing\ncat\ndog\n")
    found = with_classes(opened(root, "segment"), ["nothing", "cat"], "evaluate x")
    assert set(np.unique(found.val.load(0)[1])) == {0, 1}
    with pytest.raises(UserError, match=r"1\.jpg: has the class dog, which the network lacks"):
        found.val.load(1)
