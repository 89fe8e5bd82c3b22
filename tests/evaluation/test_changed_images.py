"""Images that changed after a run are said by whatever judges it on them."""

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from helpers.image_files import write_classes, write_image
from isometry.config import RunConfig
from isometry.data import find_sources
from isometry.data.inventory import take_inventory
from isometry.evaluation.changed_images import changed_images
from isometry.evaluation.saved_network import SavedNetwork
from isometry.training.data_changes import write_record


def trained_on(photos: Path, run: Path) -> SavedNetwork:
    """A run on a folder, as far as it is read here."""
    config = RunConfig(data_dir=str(photos), num_classes=2, val_fraction=0.2)
    run.mkdir()
    write_record(run, {"inventory": take_inventory(find_sources(config), str(photos)), "notes": []})
    return SavedNetwork("run", nn.Identity(), run=run, config=config)


def said(saved: SavedNetwork, data_dir: Path) -> list[str]:
    assert saved.config is not None
    config = replace(saved.config, data_dir=str(data_dir))
    return changed_images(saved, config, find_sources(config))


def test_images_that_were_added_to_one_folder_may_have_been_trained_on(tmp_path: Path):
    photos = write_classes(tmp_path / "photos", {"ant": 10, "bee": 10})
    saved = trained_on(photos, tmp_path / "run")
    assert said(saved, photos) == []
    write_classes(photos, {"ant": 20})
    drawn = "but of other names, sizes or labels"
    assert said(saved, photos) == [
        f"the image files of {tmp_path / 'run'} have changed since it was trained: training 16 images, 24 now "
        f"(ant/ 8, 16 now, bee/ 8, {drawn}); validation 4 images, 6 now (ant/ 2, 4 now, bee/ 2, {drawn}). If "
        "validation is split off one folder, it now has images that were trained on"
    ]


def test_with_a_test_split_only_the_counts_are_said(tmp_path: Path):
    for part in ("train", "val", "test"):
        write_classes(tmp_path / "photos" / part, {"ant": 4, "bee": 4})
    saved = trained_on(tmp_path / "photos", tmp_path / "run")
    write_image(tmp_path / "photos" / "test" / "bee" / "new.png", seed=9)
    (note,) = said(saved, tmp_path / "photos")
    assert note.endswith("have changed since it was trained: test 8 images, 9 now (test/bee/ 4, 5 now)")


def test_images_that_are_not_the_run_s_are_not_compared(tmp_path: Path):
    saved = trained_on(write_classes(tmp_path / "photos", {"ant": 10, "bee": 10}), tmp_path / "run")
    others = write_classes(tmp_path / "others", {"ant": 5, "bee": 5})
    assert said(saved, others) == []
    write_classes(tmp_path / "photos", {"ant": 12})
    assert len(said(saved, tmp_path / "photos")) == 1
    (tmp_path / "run" / "data.json").unlink()
    assert said(saved, tmp_path / "photos") == []


@pytest.mark.parametrize("spelled", ["photos/", "./photos", "photos/../photos"])
def test_the_run_s_images_are_known_however_their_place_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelled: str
):
    saved = trained_on(write_classes(tmp_path / "photos", {"ant": 10, "bee": 10}), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert saved.config is not None
    config = replace(saved.config, data_dir=spelled)
    assert changed_images(saved, config, find_sources(config)) == []
    write_classes(tmp_path / "photos", {"ant": 12})
    (note,) = changed_images(saved, config, find_sources(config))
    assert "ant/ 8, 10 now" in note
