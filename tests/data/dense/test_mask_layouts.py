"""Where pictures and masks lie: splits that lack one of both, and files of one name."""

import shutil

import pytest

from helpers.dense_files import quarter_mask, write_mask, write_masks, write_picture
from isometry.config import DataConfig
from isometry.data.dense.sources import DenseSources, find_dense_sources
from isometry.errors import UserError

LAYOUTS = ("{kind}/{split}", "{split}/{kind}")


def opened(root, **options: object) -> DenseSources:
    return find_dense_sources(DataConfig(data_dir=str(root), workers=0, **options), "segment")


def arranged(root, layout: str, splits=("train", "val")):
    """images/ and masks/ of 4 pictures a split, in a layout."""
    written = write_masks(root / "written")
    for split in splits:
        for kind in ("images", "masks"):
            place = root / "set" / layout.format(kind=kind, split=split)
            shutil.copytree(written / kind / ("val" if split == "test" else split), place)
    return root / "set"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_split_without_pictures_or_without_masks_is_refused(tmp_path, layout, split, kind):
    root = arranged(tmp_path, layout)
    shutil.rmtree(root / layout.format(kind=kind, split=split))
    reason = "pictures left out (without a mask)" if kind == "masks" else "masks left out (without a picture)"
    with pytest.raises(UserError, match=f"the {split} part has no picture with a mask") as caught:
        opened(root)
    assert f"{reason}: 4, e.g. " in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_test_pictures_without_masks_are_left_out_and_named(tmp_path, layout):
    root = arranged(tmp_path, layout, ("train", "val", "test"))
    assert len(opened(root).test) == 4
    shutil.rmtree(root / layout.format(kind="masks", split="test"))
    sources = opened(root)
    assert (len(sources.train), len(sources.val), sources.test) == (4, 4, None)
    assert sources.notes[0].startswith("test pictures left out (none has a mask): 4, e.g. ")


def test_pictures_of_one_name_are_named(tmp_path):
    root = write_masks(tmp_path)
    write_picture(root / "images/train/0.png")
    sources = opened(root)
    assert len(sources.train) == 4
    assert sources.train.where(0).endswith("0.jpg")
    assert sources.notes[:-1] == [
        "pictures left out (another has the same name, with another ending): 1, e.g. images/train/0.png"
    ]


def test_several_masks_of_a_picture_are_named(tmp_path):
    root = write_masks(tmp_path)
    write_mask(root / "masks/train/0_mask.png", quarter_mask(value=2))
    sources = opened(root)
    assert (sources.train.load(0)[1] == quarter_mask(value=1)).all()
    assert sources.notes[:-1] == [
        "masks left out (their picture has another mask): 1, e.g. masks/train/0_mask.png"
    ]


def test_pictures_may_be_called_mask(tmp_path):
    root = write_masks(tmp_path)
    for kind in ("images/train/{}.jpg", "masks/train/{}.png"):
        (root / kind.format(0)).rename(root / kind.format("0_mask"))
    assert len(opened(root).notes) == 1  # there is no classes.txt
