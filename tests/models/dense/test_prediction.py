"""What predict answers to a picture is what evaluation compares with the truth."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import isometry
from helpers.dense_networks import CLASSES, dense_network
from isometry.config import DataConfig
from isometry.data import Preprocess
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.batches import dense_loaders
from isometry.data.dense.box_files import BoxFiles
from isometry.data.dense.sources import DenseSources
from isometry.errors import UserError
from isometry.evaluation.dense.answers import answers_to
from isometry.evaluation.dense.segmentation import class_pixels, confusion
from isometry.models.dense.saving import save_dense

SIZES = [(150, 40), (30, 77), (1200, 900), (50, 80), (60, 50)]
"""Upright, of the pictures that are written."""


@pytest.fixture
def files(tmp_path):
    """A wide and a high picture, a JPEG that is decoded at a smaller scale, one that is turned, a deep one."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (7, 5, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    names = [str(tmp_path / f"{number}.jpg") for number in range(4)]
    for name, size in zip(names, SIZES, strict=False):
        coarse.resize(size).save(name)
    coarse.resize((80, 50)).save(names[3], exif=exif)
    Image.fromarray(random.integers(0, 4096, (50, 60), dtype=np.uint16)).save(tmp_path / "4.png")
    return [*names, str(tmp_path / "4.png")]


class MaskFiles(BoxFiles):
    """The same pictures with random masks, some of whose pixels don't count."""

    def load(self, number):
        image, _ = super().load(number)
        return image, self.mask(number)

    def mask(self, number):
        width, height = SIZES[number]
        classes = np.array([0, 1, 2, 255], np.uint8)
        return classes[np.random.default_rng(number).integers(0, 4, (height, width))]


def loaded(folder, task, reading):
    save_dense(dense_network(task), folder / "model", reading)
    return isometry.load(folder)


def evaluated(network, files, reading):
    kind = BoxFiles if network.task == "detect" else MaskFiles
    images: Any = kind([(name, Boxes.of([[5, 5, 20, 20]], [1])) for name in files])
    sources = DenseSources(network.task, images, images, None, CLASSES, "files")
    config = DataConfig(batch_size=1, workers=0, **reading)
    loader = dense_loaders(sources, config, network.spec, 0).val
    assert loader is not None
    return images, answers_to(network, loader, Preprocess(config, network.spec, None, "cpu"))


READINGS: list[Any] = [
    {"exif": "upright", "pixel_range": "0,4095"},
    {"exif": "ignore", "pixel_range": None},
]


@pytest.mark.parametrize("reading", READINGS, ids=["upright", "as stored"])
def test_boxes_are_those_of_evaluation(files, tmp_path, reading):
    network = loaded(tmp_path / "run", "detect", reading)
    _, answers = evaluated(network, files, reading)
    for name, wanted in zip(files, answers.found, strict=True):
        found = network.predict(name)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
        assert len(found["boxes"]) > 5
    turned = network.predict(files[3])["boxes"].max(0).values
    width, height = (50, 80) if reading["exif"] == "upright" else (80, 50)
    assert turned[2] <= width
    assert turned[3] <= height


def test_masks_are_those_of_evaluation(files, tmp_path):
    network = loaded(tmp_path / "run", "segment", READINGS[0])
    images, answers = evaluated(network, files, READINGS[0])
    for number, (name, size) in enumerate(zip(files, SIZES, strict=True)):
        mask = network.predict(name)
        assert (mask.shape, mask.dtype) == ((size[1], size[0]), torch.int64)
        pixels = class_pixels(confusion(mask, torch.from_numpy(images.mask(number)), len(CLASSES)))
        assert np.array_equal(pixels, answers.pixels[number])
        assert len(mask.unique()) > 1


def test_an_image_of_pillow_is_left_as_it_is(files, tmp_path):
    network = loaded(tmp_path / "run", "detect", None).train()
    with Image.open(files[2]) as picture:
        found = network.predict(picture)
        assert picture.size == SIZES[2]
        assert np.array_equal(picture, Image.open(files[2]))
    assert network.training
    wanted = network.predict(files[2])
    # A file of this size is decoded at a smaller scale.
    assert torch.allclose(found["scores"][:5], wanted["scores"][:5], atol=0.02)
    assert torch.equal(network.predict(Image.open(files[0]))["boxes"], network.predict(files[0])["boxes"])


def test_what_is_no_picture_is_refused_in_a_line(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    network = dense_network("detect")
    for name in ("a.jpg", "nowhere.jpg"):
        with pytest.raises(UserError, match=rf"predict: cannot read the image .*{name} \(.*give another"):
            network.predict(tmp_path / name)
