"""Unreadable images: named in one line, or replaced by the next one and counted."""

from pathlib import Path

import pytest
import torch

from helpers.image_files import (
    RGB16,
    broken_dds,
    broken_tiff,
    folder_config,
    if_read,
    make_unreadable,
    truncate,
    write_classes,
    write_white,
)
from isometry.config import DataConfig
from isometry.data import Loaders, find_sources, make_loaders
from isometry.errors import UserError


def loaders(config: DataConfig) -> Loaders:
    return make_loaders(find_sources(config), config, RGB16, seed=1)


def broken_folder(root: Path, suffix: str = ".jpg") -> Path:
    """Four images of two classes in each part; image 2 of each is cut in half; returns validation's."""
    for part in ("train", "val"):
        write_classes(root / part, {"cat": 2, "dog": 2}, suffix)
        truncate(root / part / "dog" / f"0{suffix}")
    return root / "val" / "dog" / f"0{suffix}"


@pytest.mark.parametrize(
    "suffix",
    [".jpg", ".png", ".bmp", ".gif", ".tif", ".webp", if_read("AVIF", ".avif"), if_read("HEIF", ".heic")],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named_in_one_line(tmp_path: Path, suffix: str, workers: int):
    broken = broken_folder(tmp_path, suffix)
    with pytest.raises(UserError, match="--skip-bad-images") as caught:
        list(loaders(folder_config(tmp_path, workers=workers)).val)
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="image"):
        list(loaders(folder_config(tmp_path, workers=workers)).train.epoch(0))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "of no image format that is read"),
        (b"GIF89a", "of no image format that is read"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG|Truncated"),
        (b"<html>not found</html>", "of no image format that is read"),
        (broken_tiff(), "TypeError"),
        (broken_dds(), "of no image format that is read"),
    ],
    ids=["empty", "GIF", "PNG", "HTML", "TIFF", "DDS"],
)
def test_a_file_that_is_no_image(tmp_path: Path, content: bytes, why: str):
    check_refused(tmp_path, content, why)


def check_refused(root: Path, content: bytes, why: str) -> None:
    """An image of such bytes is named in one line with the reason, and replaced where that was asked for."""
    broken = broken_folder(root)
    broken.write_bytes(content)
    with pytest.raises(UserError, match=f"image .*{why}") as caught:
        list(loaders(folder_config(root)).val)
    assert str(broken) in str(caught.value)
    assert str(caught.value).count(str(broken)) == 1
    assert "\n" not in str(caught.value)
    (batch,) = loaders(folder_config(root, skip_bad_images=True)).val
    assert batch.unreadable == [str(broken)]


def test_an_image_beyond_pillows_limit_of_size(tmp_path: Path):
    bomb = write_white(tmp_path / "bomb.png", 30_000, 30_000)
    assert bomb.stat().st_size < 1e6
    check_refused(tmp_path / "images", bomb.read_bytes(), "DecompressionBombError: .*exceeds limit")


def test_a_line_of_pixels_that_evaluation_would_scale_up_to_gigabytes(tmp_path: Path):
    line = write_white(tmp_path / "line.png", 60_000, 1)
    assert line.stat().st_size < 1000
    check_refused(tmp_path / "images", line.read_bytes(), "60000×1 pixels, an aspect ratio too large")


def test_an_image_that_must_not_be_read(tmp_path: Path):
    broken = broken_folder(tmp_path)
    make_unreadable(broken)
    with pytest.raises(UserError, match=r"permission denied|no such file") as caught:
        list(loaders(folder_config(tmp_path)).val)
    assert str(broken) in str(caught.value)


def test_a_link_to_itself(tmp_path: Path):
    broken = broken_folder(tmp_path)
    broken.unlink()
    broken.symlink_to(broken.name)
    with pytest.raises(UserError, match="too many levels of symbolic links"):
        list(loaders(folder_config(tmp_path)).val)


def test_a_folder_that_is_called_as_an_image_is_no_image(tmp_path: Path):
    broken = broken_folder(tmp_path)
    broken.unlink()
    broken.mkdir()
    (batch,) = loaders(folder_config(tmp_path)).val
    assert batch.targets.tolist() == [0, 0, 1]


def test_a_file_deleted_meanwhile(tmp_path: Path):
    broken = broken_folder(tmp_path)
    opened = loaders(folder_config(tmp_path))
    broken.unlink()
    with pytest.raises(UserError, match="no such file or directory"):
        list(opened.val)


@pytest.mark.parametrize("workers", [0, 1])
def test_skipping_replaces_training_images_by_the_next_readable_one(tmp_path: Path, workers: int):
    broken_folder(tmp_path)
    config = folder_config(tmp_path, workers=workers, skip_bad_images=True, no_aug=True)
    (batch,) = loaders(config).train.epoch(0)
    assert sorted(batch.indices.tolist()) == [0, 1, 3, 3]
    assert sorted(batch.targets.tolist()) == [0, 0, 1, 1]
    assert batch.unreadable == [str(tmp_path / "train" / "dog" / "0.jpg")]
    first, second = batch.images[batch.indices == 3]
    torch.testing.assert_close(first, second)


def test_the_last_training_image_is_replaced_by_the_first(tmp_path: Path):
    broken_folder(tmp_path)
    truncate(tmp_path / "train" / "dog" / "1.jpg")
    (batch,) = loaders(folder_config(tmp_path, skip_bad_images=True)).train.epoch(0)
    assert sorted(batch.indices.tolist()) == [0, 0, 0, 1]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "bad", [["cat/0"], ["cat/1", "dog/0"], ["dog/0", "dog/1"], ["cat/0", "cat/1", "dog/1"]]
)
def test_an_evaluated_split_has_each_readable_image_once(
    tmp_path: Path, workers: int, batch_size: int, bad: list[str]
):
    for part in ("train", "val"):
        write_classes(tmp_path / part, {"cat": 2, "dog": 2}, ".jpg")
    broken = {str(truncate(tmp_path / "val" / f"{name}.jpg")) for name in bad}
    config = folder_config(tmp_path, workers=workers, batch_size=batch_size, skip_bad_images=True)
    batches = list(loaders(config).val)
    assert all(len(batch) for batch in batches)
    readable = [index for index, name in enumerate(["cat/0", "cat/1", "dog/0", "dog/1"]) if name not in bad]
    assert [index for batch in batches for index in batch.indices.tolist()] == readable
    assert [target for batch in batches for target in batch.targets.tolist()] == [n // 2 for n in readable]
    assert {name for batch in batches for name in batch.unreadable} == broken


def test_skipping_leaves_the_other_images_as_they_are(tmp_path: Path):
    write_classes(tmp_path / "train", {"cat": 2, "dog": 2}, ".jpg")
    write_classes(tmp_path / "val", {"cat": 2, "dog": 2}, ".jpg")
    config = folder_config(tmp_path, skip_bad_images=True)
    (before,) = loaders(config).train.epoch(0)
    truncate(tmp_path / "train" / "dog" / "0.jpg")
    (after,) = loaders(config).train.epoch(0)
    kept = before.indices != 2
    torch.testing.assert_close(after.images[kept], before.images[kept], rtol=0, atol=0)
    assert after.indices[~kept].tolist() == [3]


def test_nothing_readable(tmp_path: Path):
    broken_folder(tmp_path)
    for path in (tmp_path / "val").rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="4 images"):
        list(loaders(folder_config(tmp_path, skip_bad_images=True)).val)
