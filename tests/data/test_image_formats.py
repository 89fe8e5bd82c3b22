"""Which files are opened: those of a list of formats, whatever their names, and no pipes and devices."""

import io
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, features
from torchvision.datasets import VisionDataset

from helpers.image_files import EPS, RGB16, folder_config, write_classes
from helpers.pages import DOCS
from isometry.config import DataConfig
from isometry.data import Batch, find_sources, make_loaders
from isometry.data.image_formats import FORMATS, readable, readable_endings, these_formats_only
from isometry.data.timm_datasets import TorchvisionImages
from isometry.errors import UserError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Ghostscript was asked for."""
    asked: list[str] = []
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", lambda self: asked.append("opened"))
    return asked


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        write_classes(tmp_path / part, {"cat": 2, "dog": 2})
    return tmp_path


def validation(config: DataConfig) -> Batch:
    (batch,) = make_loaders(find_sources(config), config, RGB16, seed=1).val
    return batch


@pytest.mark.parametrize("dataset", ["", "torch/image_folder"])
def test_postscript_under_another_name_is_not_opened(photos: Path, started: list[str], dataset: str):
    path = photos / "val" / "cat" / "0.png"
    path.write_bytes(EPS)
    with pytest.raises(
        UserError, match=r"0\.png \(of no image format that is read \(PNG, JPEG, WEBP"
    ) as caught:
        validation(folder_config(photos, dataset=dataset))
    assert "\n" not in str(caught.value)
    batch = validation(folder_config(photos, dataset=dataset, skip_bad_images=True))
    assert batch.unreadable == [str(path)]
    assert started == []


def test_a_library_that_opens_pictures_itself_opens_no_other_format(started: list[str]):
    class Opens(VisionDataset):
        def __init__(self) -> None:
            pass

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.open(io.BytesIO(EPS)), 0

    with pytest.raises(Image.UnidentifiedImageError):
        TorchvisionImages(Opens()).load(0)
    assert started == []
    # Outside, Pillow is as it was.
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(EPS))
    assert started == ["opened"]


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_read(photos: Path, name: str):
    if name not in readable():
        pytest.skip(f"{name} is not read here")
    pixels = np.full((20, 24, 3), (200, 100, 50), dtype=np.uint8)
    for ending in FORMATS[name]:
        path = photos / "val" / "cat" / f"more{ending}"
        Image.fromarray(pixels).save(path, format=name)
    with these_formats_only():
        assert Image.open(path).format == name
    batch = validation(folder_config(photos, validation_batch_size=9))
    added = batch.images[2 : 2 + len(FORMATS[name])] if name != "PNG" else batch.images[2:3]
    assert batch.targets.tolist().count(0) == 2 + len(FORMATS[name])
    near = (added.float() - torch.tensor([200.0, 100.0, 50.0])[:, None, None]).abs()
    assert near.max() < 24  # GIF has 216 colours


def test_avif_is_read_where_pillow_can():
    assert (".avif" in readable_endings()) == features.check("avif")


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if pillow-heif were not installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    forget()
    yield
    monkeypatch.undo()
    forget()


def forget() -> None:
    readable.cache_clear()
    readable_endings.cache_clear()


TELEPHONES = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"
"""How a HEIC begins."""


def test_heic_without_its_extra_is_named_with_the_way_to_read_it(photos: Path, without_extra: None):
    (photos / "val" / "cat" / "IMG_1.HEIC").write_bytes(TELEPHONES)
    (note,) = find_sources(folder_config(photos)).notes
    assert note == f"{photos / 'val'}: files left out: 1 .heic (pip install pillow-heif)"


def test_so_it_is_under_another_name(photos: Path, without_extra: None):
    path = photos / "val" / "cat" / "0.png"
    path.write_bytes(TELEPHONES)
    with pytest.raises(
        UserError, match=r"0\.png \(of the format HEIF, which needs pip install pillow-heif\)"
    ):
        validation(folder_config(photos))


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "socket"])
@pytest.mark.parametrize("dataset", ["", "torch/image_folder"])
def test_what_is_no_regular_file_is_not_opened(
    photos: Path, dataset: str, kind: str, monkeypatch: pytest.MonkeyPatch
):
    path = photos / "val" / "cat" / "0.png"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(path.parent)  # a socket's path is short
        socket.socket(socket.AF_UNIX).bind(path.name)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"0\.png \(not a regular file"):
        validation(folder_config(photos, dataset=dataset))
    assert validation(folder_config(photos, dataset=dataset, skip_bad_images=True)).unreadable == [str(path)]


def test_the_documentation_lists_the_formats():
    page = " ".join((DOCS / "faults.md").read_text(encoding="utf-8").split())
    listed = ", ".join(f"{name} ({', '.join(endings)})" for name, endings in FORMATS.items())
    assert listed in page.replace("`", "")


@pytest.mark.parametrize("ending", [".jfif", ".JPE"])
def test_other_endings_of_jpegs_are_read_and_move_no_other_image(tmp_path: Path, ending: str):
    write_classes(tmp_path, {"cat": 20, "dog": 20}, ".jpg")
    before = find_sources(folder_config(tmp_path))
    judged = {before.val.where(index) for index in range(len(before.val))}
    for number in range(20):
        shutil.copy(tmp_path / "cat" / f"{number}.jpg", tmp_path / "cat" / f"a{number}{ending}")
    sources = find_sources(folder_config(tmp_path))
    assert len(sources.train) + len(sources.val) == 60
    assert sources.notes == []
    now = {sources.val.where(index) for index in range(len(sources.val))}
    assert {path for path in now if path.endswith(".jpg")} == judged
    assert len(now) == len(judged) + 2
