"""The images that a saved network is evaluated on."""

from dataclasses import replace

import pytest
from torch import nn

from helpers.image_files import RGB16
from isometry.config import RunConfig
from isometry.data import Sources, make_loaders
from isometry.data.decoding import Reading
from isometry.data.digits import open_digits
from isometry.errors import UserError
from isometry.evaluation.saved_network import ImagesConfig, SavedNetwork, images_named


def test_images_are_decoded_as_in_the_run_unless_asked_otherwise():
    def decoded(of_the_run: str, asked: str | None, **images: str) -> str:
        saved = SavedNetwork("x", nn.Identity(), config=RunConfig(dataset="digits", decode=of_the_run))
        return images_named(saved, ImagesConfig(decode=asked, **images), command="evaluate").decode

    assert decoded("full", None) == "full"
    assert decoded("scaled", "full") == "full"
    assert decoded("full", "scaled", data_dir="others") == "scaled"
    assert decoded("full", None, data_dir="others") == "full"


def test_photographs_and_greys_are_seen_as_in_the_run_unless_asked_otherwise():
    run = RunConfig(dataset="digits", exif="ignore", pixel_range="0,4095")
    saved = SavedNetwork("x", nn.Identity(), config=run)
    assert images_named(saved, ImagesConfig(data_dir="others"), command="bench") == replace(
        run, data_dir="others", dataset=""
    )
    asked = images_named(saved, ImagesConfig(exif="upright", pixel_range="0,1"), command="bench")
    assert (asked.exif, asked.pixel_range) == ("upright", "0,1")
    with pytest.raises(UserError, match="--pixel-range auto"):
        images_named(saved, ImagesConfig(pixel_range="auto"), command="bench")


def test_the_choice_reaches_the_reader():
    train, val, test = open_digits()
    sources = Sources(train, val, test, 10, None, True, "digits")
    for options, wanted in (
        ({}, Reading("RGB", upright=True, greys=None, full=False)),
        (
            {"decode": "full", "exif": "ignore", "pixel_range": "-1,2.5"},
            Reading("RGB", upright=False, greys=(-1, 2.5), full=True),
        ),
    ):
        loaders = make_loaders(sources, RunConfig(workers=0, **options), RGB16, seed=0)
        readers = [loader._options["dataset"] for loader in (loaders.train, loaders.val, loaders.test)]
        assert [reader.reading for reader in readers] == [wanted] * 3
