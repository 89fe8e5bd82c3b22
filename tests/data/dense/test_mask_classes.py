"""The classes of masks: names of values, and values that may be damage."""

import numpy as np
import pytest

from helpers.dense_files import quarter_mask, write_mask, write_masks
from isometry.config import DataConfig
from isometry.data.dense.mask_classes import read_value_names
from isometry.data.dense.sources import DenseSources, find_dense_sources
from isometry.errors import UserError


def opened(root, **options: object) -> DenseSources:
    return find_dense_sources(DataConfig(data_dir=str(root), workers=0, **options), "segment")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("road\nsky\n", {0: "road", 1: "sky"}),
        ("7 road\n24 rider on a horse\n19: sign\n", {7: "road", 19: "sign", 24: "rider on a horse"}),
        ("7,road\n255\tignored\n", {7: "road"}),
        ("7 road\nsky\n", {0: "7 road", 1: "sky"}),
        ("7\n8\n", {0: "7", 1: "8"}),
    ],
)
def test_lines_are_names_from_0_on_or_values_with_names(tmp_path, text, names):
    (tmp_path / "classes.txt").write_text(text)
    assert list(read_value_names(tmp_path / "classes.txt").items()) == list(names.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7 road\n7 sky\n", "names the value 7 twice"),
        ("7 road\n256 sky\n", "names the values 7 and 256; classes are 0 to 254, 255 is ignored"),
        ("255 void\n", "names the values 255; classes are 0 to 254"),
        ("x\n" * 300, "names the values 0-299; classes are 0 to 254"),
    ],
)
def test_names_of_impossible_values_are_refused(tmp_path, text, message):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_value_names(tmp_path / "classes.txt")


def test_sparse_values_get_their_names(tmp_path):
    root = write_masks(tmp_path)
    for path in root.glob("masks/*/*.png"):
        write_mask(path, np.where(quarter_mask() == 1, 24, 7).astype(np.uint8))
    (root / "classes.txt").write_text("7 road\n24 person\n26 car\n")
    sources = opened(root)
    assert sources.class_names == ["road", "person", "car"]
    assert sources.notes == ["classes without a pixel in the training masks: 1, e.g. car"]
    np.testing.assert_array_equal(sources.train.load(0)[1], quarter_mask())
    (root / "classes.txt").write_text("7 road\n26 car\n")
    with pytest.raises(
        UserError, match=r"names the values 7 and 26, and 8 masks have others, e\.g\. .*\(24\)"
    ):
        opened(root)


@pytest.mark.parametrize(("value", "masks", "named"), [(200, 1, True), (3, 1, False), (200, 2, False)])
def test_a_value_in_few_masks_far_from_others_is_named(tmp_path, value, masks, named):
    root = write_masks(tmp_path, images=10)
    for number in range(4, 4 + masks):
        write_mask(root / f"masks/train/{number}.png", quarter_mask(value=value))
    sources = opened(root)
    assert sources.class_names == ["0", "1", "2", str(value)]
    rare = [note for note in sources.notes if "values in few masks" in note]
    assert len(rare) == named
    if named:
        assert rare[0].endswith(": 1, e.g. 200 (in 1 of 20 masks, masks/train/4.png)")
    (root / "classes.txt").write_text("a\nb\nc\nd\n" if value == 3 else "0 a\n1 b\n2 c\n200 d\n")
    assert opened(root).notes == []
