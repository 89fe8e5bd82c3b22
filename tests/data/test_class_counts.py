"""Classes with few images: named where validation can't judge them."""

from pathlib import Path

from helpers.image_files import folder_config, write_classes
from isometry.data import find_sources, without_labels
from isometry.data.class_counts import not_validated


def test_a_class_of_one_image_is_named(tmp_path: Path):
    write_classes(tmp_path, {"cat": 9, "dog": 2, "emu": 1})
    sources = find_sources(folder_config(tmp_path))
    assert sources.train_counts == {"cat": 8, "dog": 1, "emu": 1}
    assert sources.class_notes == [
        "classes without an image in validation, and their training images: emu (1)"
    ]
    assert without_labels(sources).class_notes == []


def test_a_validation_folder_that_lacks_a_class(tmp_path: Path):
    write_classes(tmp_path / "train", {"ant": 2, "cat": 2, "dog": 2})
    write_classes(tmp_path / "val", {"dog": 2})
    (note,) = find_sources(folder_config(tmp_path)).class_notes
    assert note.endswith("ant (2), cat (2)")


def test_a_terminal_names_only_the_first():
    train = {f"c{number}": number for number in range(9)}
    (note,) = not_validated(train, dict.fromkeys(train, 0))
    assert note.endswith("c7 (7), c8 (8)")
    assert "c4 (4), c5 (5) and 3 more" in note.short
    assert not_validated(train, dict.fromkeys(train, 1)) == []
    assert not_validated(None, None) == []
