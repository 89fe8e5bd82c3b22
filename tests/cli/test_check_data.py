"""`isometry check --data`: a report on a folder, without a model."""

import shutil
from pathlib import Path

import pytest

from helpers.image_files import folder_config, truncate, write_classes
from helpers.messages import mentions
from isometry.cli import check_data
from isometry.cli.check_data import classes_text
from isometry.cli.main import main
from isometry.data import find_sources
from isometry.errors import UserError


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What the command says of a folder, by the words that lines begin with."""

    def tell(*words: str) -> str:
        assert main(["check", "--data", "--data-dir", str(tmp_path / "photos"), *words]) == 0
        return capsys.readouterr().out

    return tell


def test_the_report_has_what_there_is_to_know(tmp_path: Path, told):
    photos = tmp_path / "photos"
    write_classes(photos / "train", {"cat": 5, "dog": 3})
    write_classes(photos / "val", {"cat": 1, "dog": 2}, suffix=".jpg")
    shutil.copy(photos / "train" / "cat" / "0.png", photos / "val" / "dog" / "copy.png")
    truncate(photos / "train" / "dog" / "1.png")
    (photos / "train" / ".ipynb_checkpoints").mkdir()
    text = told()
    rows = [line.split() for line in text.splitlines()]
    assert ["cat", "5", "1"] in rows
    assert ["dog", "3", "3"] in rows
    assert ["together", "8", "4"] in rows
    for words in (
        "Pixels  smallest 24×20, median 24×20, largest 24×20",
        "Formats  PNG 8, JPEG 3",
        "Modes  RGB 11",
        "Turned  0 by their EXIF orientation",
        "Unreadable  1: … dog/1.png (",
        "Duplicates  1 file equals another one; 1 in several splits: … cat/0.png = … copy.png; 1 in several classes",
        "folders left out (programs make them, so they are no classes): .ipynb_checkpoints",
    ):
        assert mentions(text, words), words


def test_one_is_one(tmp_path: Path, told):
    photos = tmp_path / "photos"
    write_classes(photos / "train", {"cat": 2, "dog": 2})
    write_classes(photos / "val", {"cat": 1}, suffix=".jpg")
    shutil.copy(photos / "train" / "cat" / "1.png", photos / "train" / "cat" / "2.png")
    shutil.copy(photos / "train" / "cat" / "1.png", photos / "train" / "cat" / "3.png")
    text = told()
    assert mentions(text, "6 training, 1 validation image, 2 classes")
    assert mentions(text, "Duplicates  2 files equal another one")


def test_of_many_classes_the_largest_and_the_smallest_are_shown(
    tmp_path: Path, told, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(check_data, "MOST_CLASSES", 4)
    write_classes(tmp_path / "photos" / "train", {f"c{count}": count for count in range(1, 8)})
    write_classes(tmp_path / "photos" / "val", {f"c{count}": 1 for count in range(1, 8)})
    rows = [line.split()[:2] for line in told().splitlines() if line.startswith(("c1", "c", "..."))][1:]
    assert rows == [["c7", "7"], ["c6", "6"], ["...", "3"], ["c2", "2"], ["c1", "1"]]


def test_a_folder_without_faults_says_so(tmp_path: Path, told):
    write_classes(tmp_path / "photos", {"cat": 4, "dog": 4})
    text = told()
    assert mentions(text, "Unreadable  none (by the headers of all and the pixels of 8)")
    assert "no two files are equal" in text
    assert "Left out  nothing" in text


def test_loose_images_are_counted_in_the_report_and_refused_by_a_run(tmp_path: Path, told):
    photos = write_classes(tmp_path / "photos", {"cat": 4, "dog": 4})
    for number in range(2):
        shutil.copy(photos / "cat" / "0.png", photos / f"loose{number}.png")
    fault = "2 images are beside the class folders: loose0.png, loose1.png; move them into one of these"
    text = told()
    assert mentions(text, f"Warning  {photos}: left out here, and refused by a run: {fault}")
    assert ["together", "6", "2"] in [line.split() for line in text.splitlines()]
    with pytest.raises(UserError, match=fault):
        find_sources(folder_config(photos))


def test_classes_of_one_size_are_said_at_once():
    assert check_data.classes_text({"cat": 54, "dog": 54}) == "each 54 training images"
    assert check_data.classes_text({"cat": 1}) == "each 1 training image"


def test_all_that_is_left_out_is_named_here_and_the_first_at_the_start_of_a_run(tmp_path: Path, told, capsys):
    photos = write_classes(tmp_path / "photos", {"cat": 4, "dog": 4})
    for number in range(8):
        (photos / f"empty{number}").mkdir()
        (photos / "cat" / f"x.e{number}").touch()
    told_all = told()
    assert mentions(told_all, "(without images): " + ", ".join(f"empty{number}" for number in range(8)))
    assert mentions(told_all, "files left out: " + ", ".join(f"1 .e{number}" for number in range(8)))
    words = ["--model", "cifar_resnet20", "--img-size", "16", "-b", "2", "--data-dir", str(photos)]
    assert main(["check", *words]) == 0
    short = capsys.readouterr().out
    assert mentions(short, "empty3, empty4 and 3 more (isometry check --data names all)")
    assert mentions(short, "1 .e4 and 3 more (isometry check --data names all)")
    assert "empty5" not in short


def test_data_that_are_no_files_are_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["check", "--data", "--dataset", "digits"]) == 2
    assert (
        capsys.readouterr().err
        == "isometry: --data: looks at image files; name their folder or list with --data-dir\n"
    )


def test_the_number_of_images_of_classes():
    assert classes_text(None) == ""
    assert (
        classes_text({"ant": 5, "bee": 1200}) == "smallest ant (5), largest bee (1,200), by training images"
    )
