"""The images that a saved network is evaluated on."""

import json
from dataclasses import replace
from pathlib import Path

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


def told_in(folder: Path, reading: object) -> Path:
    """A folder whose config.json has nothing but how images were read."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"isometry_images": reading} if reading else {}))
    return folder


def test_a_folder_without_its_run_says_how_images_are_read(tmp_path, monkeypatch):
    folder = told_in(tmp_path / "new", {"exif": "ignore", "pixel_range": "0,4095"})
    older = told_in(tmp_path / "older", None)

    def seen(saved: SavedNetwork, **asked: str) -> tuple[str, str | None]:
        config = images_named(saved, ImagesConfig(data_dir="others", **asked), command="bench")
        return config.exif, config.pixel_range

    saved = SavedNetwork("x", nn.Identity(), folder)
    assert seen(saved) == ("ignore", "0,4095")
    assert seen(saved, exif="upright") == ("upright", "0,4095")
    assert seen(saved, pixel_range="0,1") == ("ignore", "0,1")
    assert seen(SavedNetwork("x", nn.Identity(), older)) == ("upright", None)
    run = SavedNetwork("x", nn.Identity(), folder, tmp_path, RunConfig(pixel_range="0,9"))
    assert seen(run) == ("upright", "0,9"), "the config.yaml of the run goes first"
    cached = {"someone/something": folder / "model.safetensors"}
    monkeypatch.setattr("isometry.models.image_reading.cached_from_hub", cached.get)
    assert seen(SavedNetwork("hf-hub:someone/something", nn.Identity())) == ("ignore", "0,4095")
    assert seen(SavedNetwork("hf-hub:someone/else", nn.Identity())) == ("upright", None)


@pytest.mark.parametrize(
    ("reading", "fault"),
    [
        ({"exif": "sideways", "pixel_range": None}, "exif"),
        ({"exif": "ignore", "pixel_range": "auto"}, "'auto' is not LOW,HIGH"),
        ({"exif": "ignore", "pixel_range": "9,1"}, "'9,1' is not LOW,HIGH"),
        ({"exif": "ignore"}, "pixel_range"),
        ("ignore", "dictionary"),
    ],
)
def test_an_invalid_reading_in_a_folder_is_refused(tmp_path, reading, fault):
    folder = told_in(tmp_path / "new", reading)
    with pytest.raises(UserError, match=f'new/config.json: "isometry_images" is invalid .*{fault}'):
        images_named(
            SavedNetwork("x", nn.Identity(), folder), ImagesConfig(dataset="digits"), command="bench"
        )


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
