"""A look at every file: counts, turns, faults and exact duplicates are those of the files as they were made."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.image_files import DIGITS, folder_config, truncate, write_classes, write_image
from isometry.data import file_survey, find_sources
from isometry.data.file_survey import FileSurvey, survey_files
from isometry.errors import UserError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two splits of two classes, three and one PNGs each."""
    for split, count in (("train", 3), ("val", 1)):
        for number, name in enumerate(("cat", "dog")):
            for image in range(count):
                write_image(
                    tmp_path / split / name / f"{image}.png", seed=hash((split, number, image)) % 2**32
                )
    return tmp_path


def look(folder: Path, **options: object) -> FileSurvey:
    return survey_files(find_sources(folder_config(folder, **options)))


def names(folder: Path, files: object) -> set[str]:
    return {str(Path(file.path).relative_to(folder)) for file in files}


def test_each_file_has_its_split_class_size_and_format(photos: Path):
    found = look(photos)
    assert [(file.split, file.label) for file in found.files].count(("train", 1)) == 3
    assert [(file.split, file.label) for file in found.files].count(("val", 0)) == 1
    assert {(file.format, file.mode, file.size, file.turned) for file in found.files} == {
        ("PNG", "RGB", (24, 20), False)
    }
    assert all(file.bytes == os.path.getsize(file.path) for file in found.files)
    assert (len(found.files), found.decoded, found.duplicates) == (8, 8, [])


def test_turned_photographs_are_counted_in_every_format(photos: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = Image.fromarray(np.zeros((8, 9, 3), np.uint8))
    for ending in ("jpg", "png", "webp", "tif"):
        pixels.save(photos / "train" / "cat" / f"turned.{ending}", exif=exif)
    turned = names(photos, (file for file in look(photos).files if file.turned))
    assert turned == {f"train/cat/turned.{ending}" for ending in ("jpg", "png", "webp", "tif")}


def test_what_cannot_be_read_is_named_and_nothing_waits(photos: Path):
    truncate(photos / "train" / "cat" / "0.png")
    (photos / "train" / "dog" / "text.jpg").write_text("no image")
    os.mkfifo(photos / "val" / "dog" / "pipe.png")
    (photos / "val" / "cat" / "device.png").symlink_to("/dev/zero")
    (photos / "val" / "cat" / "gone.png").symlink_to("nowhere")
    found = look(photos)
    faults = {Path(file.path).name: file.fault for file in found.files if file.fault}
    assert faults.keys() == {"0.png", "text.jpg", "pipe.png", "device.png", "gone.png"}
    assert "truncated" in faults["0.png"]
    assert "regular file" in faults["pipe.png"]
    assert len(found.readable) == len(found.files) - 5


def test_pixels_are_decoded_in_a_sample_of_large_folders_alone(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(file_survey, "DECODED", 2)
    for image in (photos / "train" / "cat").iterdir():
        truncate(image)
    found = look(photos)
    assert found.decoded == 2
    # The first is looked at, and headers are whole.
    assert sum(bool(file.fault) for file in found.files) == 1


def test_duplicates_are_files_of_equal_content(photos: Path):
    shutil.copy(photos / "train" / "cat" / "0.png", photos / "val" / "cat" / "copy.png")
    shutil.copy(photos / "train" / "cat" / "1.png", photos / "train" / "dog" / "other name.png")
    shutil.copy(photos / "val" / "dog" / "0.png", photos / "val" / "dog" / "again.png")
    found = look(photos)
    across = {
        name: [names(photos, group) for group in found.duplicates_across(name)] for name in ("split", "label")
    }
    assert len(found.duplicates) == 3
    assert across["split"] == [{"train/cat/0.png", "val/cat/copy.png"}]
    assert across["label"] == [{"train/cat/1.png", "train/dog/other name.png"}]


@pytest.mark.parametrize("place", [10, 6000, -10])
def test_files_that_differ_in_one_byte_are_no_duplicates(place: int, tmp_path: Path):
    """At the ends, which are looked at first, and between them. What follows a BMP's pixels is not read."""
    write_classes(tmp_path, {"a": 1, "b": 1}, suffix=".bmp")
    content = bytearray((tmp_path / "a" / "0.bmp").read_bytes() + bytes(20_000))
    (tmp_path / "a" / "0.bmp").write_bytes(content)
    content[len(content) + place if place < 0 else place + 2000] ^= 1
    (tmp_path / "b" / "0.bmp").write_bytes(content)
    assert look(tmp_path).duplicates == []
    shutil.copy(tmp_path / "a" / "0.bmp", tmp_path / "b" / "0.bmp")
    assert len(look(tmp_path).duplicates) == 1


def test_images_without_labels_are_looked_at_too(tmp_path: Path):
    for number in range(4):
        write_image(tmp_path / f"{number}.jpg", seed=number)
    assert len(look(tmp_path).files) == 4


def test_data_that_are_no_files_are_refused():
    with pytest.raises(UserError, match="--data: looks at image files"):
        survey_files(find_sources(DIGITS))


def test_no_more_pixels_are_decoded_than_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(file_survey, "DECODED", 4)
    for number in range(7):
        write_image(tmp_path / f"{number}.jpg", seed=number)
    assert look(tmp_path).decoded == 4
