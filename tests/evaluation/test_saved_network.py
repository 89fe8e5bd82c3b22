"""The images that a saved network is evaluated on."""

from torch import nn

from helpers.image_files import RGB16
from isometry.config import RunConfig
from isometry.data import Sources, make_loaders
from isometry.data.digits import open_digits
from isometry.evaluation.saved_network import ImagesConfig, SavedNetwork, images_named


def test_images_are_decoded_as_in_the_run_unless_asked_otherwise():
    def decoded(of_the_run: str, asked: str | None, **images: str) -> str:
        saved = SavedNetwork("x", nn.Identity(), config=RunConfig(data_dir="photos", decode=of_the_run))
        return images_named(saved, ImagesConfig(decode=asked, **images), command="evaluate").decode

    assert decoded("full", None) == "full"
    assert decoded("scaled", "full") == "full"
    assert decoded("full", "scaled", data_dir="others") == "scaled"
    assert decoded("full", None, data_dir="others") == "full"


def test_the_choice_reaches_the_reader():
    train, val, test = open_digits()
    sources = Sources(train, val, test, 10, None, True, "digits")
    for decode in ("full", "scaled"):
        loaders = make_loaders(sources, RunConfig(workers=0, decode=decode), RGB16, seed=0)
        readers = [loader._options["dataset"] for loader in (loaders.train, loaders.val, loaders.test)]
        assert {reader.decode for reader in readers} == {decode}
