"""What a run for boxes or masks says of its input size before it starts."""

import pytest
import torch

from helpers.dense_files import quarter_mask, write_mask, write_picture
from isometry.distributed import World
from isometry.training.transfer.assemble import assemble_dense
from isometry.training.transfer.options import transfer_config

SMALL = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


@pytest.fixture
def notes_at(tmp_path):
    def notes(size, given, **arguments):
        for number in range(4):
            write_picture(tmp_path / "images" / f"{number}.png", size)
            write_mask(tmp_path / "masks" / f"{number}.png", quarter_mask(size))
        network = {"model": "vit_tiny_patch16_224", "model_kwargs": SMALL | arguments, "img_size": given}
        config = transfer_config(network, {"task": "segment", "data_dir": str(tmp_path)}, {})
        return assemble_dense(config, World(0, 1, torch.device("cpu"))).notes

    return notes


def test_pictures_of_more_than_twice_an_inherited_size_are_noted(notes_at):
    (note,) = [note for note in notes_at((40, 130), None, img_size=64) if "--img-size" in note]
    assert "the network's own 64 pixels; the pictures are 40×130 (the median of 3)" in note
    assert "objects shrink to 0.49 of" in note


@pytest.mark.parametrize(("size", "img_size"), [((40, 128), None), ((40, 130), 64)])
def test_smaller_pictures_and_a_size_that_was_given_are_not(size, img_size, notes_at):
    assert not [note for note in notes_at(size, img_size, img_size=64) if "--img-size" in note]


def test_pixels_in_no_patch_are_noted(notes_at):
    (note,) = [note for note in notes_at((40, 60), 68) if "patches" in note]
    assert "4 rows of pixels at the bottom and 4 columns on the right" in note
    assert "--img-size 64 or 72" in note
