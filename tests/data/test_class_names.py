"""Class names that may not be meant are told, with the numbers of their images."""

from pathlib import Path

from helpers.image_files import folder_config, write_classes, write_image
from isometry.data import find_sources


def test_one_name_in_several_folders_is_told_first(tmp_path: Path):
    for place, count in (("lo", 4), ("hi", 3)):
        write_classes(tmp_path / place, {"2019": count, "2020": count})
    sources = find_sources(folder_config(tmp_path))
    assert sources.class_names == ["2019", "2020"]
    (note,) = sources.notes
    assert note.startswith(f"{tmp_path}: folders of one name are ONE class, wherever they lie: ")
    assert "2019 (7 images of hi/2019, lo/2019), 2020 (7 images of hi/2020, lo/2020); if the folders" in note


def test_one_name_in_the_folder_and_deeper_is_told(tmp_path: Path):
    write_classes(tmp_path, {"cat": 4, "dog": 4})
    write_image(tmp_path / "dog" / "old" / "cat" / "1.png")
    (note,) = find_sources(folder_config(tmp_path)).notes
    assert "cat (5 images of cat, dog/old/cat)" in note


def test_classes_of_deeper_folders_are_told(tmp_path: Path):
    write_classes(tmp_path, {"ant": 4, "bee": 4})
    write_image(tmp_path / "bee" / "2019" / "summer" / "z.png")
    sources = find_sources(folder_config(tmp_path))
    assert sources.class_names == ["ant", "bee", "summer"]
    (note,) = [note for note in sources.notes if "deeper" in note]
    assert note.endswith("named by the innermost folder: bee/2019/summer (1)")


def test_a_class_map_that_names_the_folders_above_leaves_no_such_note(tmp_path: Path):
    write_classes(tmp_path, {"ant": 4, "bee": 4})
    write_image(tmp_path / "bee" / "summer" / "z.png")
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    notes = find_sources(folder_config(tmp_path, class_map="classes.txt")).notes
    assert any("not in --class-map" in note for note in notes)
    assert not any("deeper" in note for note in notes)


def test_names_that_differ_in_case_only_are_told(tmp_path: Path):
    write_classes(tmp_path / "photos", {"ant": 2, "ANT": 2, "bee": 2})
    (note,) = find_sources(folder_config(tmp_path / "photos")).notes
    assert note.endswith("though their names differ in case only: ANT and ant")
    text = "".join(f"photos/{name}/{number}.png,{name}\n" for name in ("ant", "ANT") for number in (0, 1))
    (tmp_path / "list.csv").write_text("path,label\n" + text)
    sources = find_sources(folder_config(tmp_path / "list.csv"))
    assert sources.class_names == ["ANT", "ant"]
    assert sources.notes == [
        f"{tmp_path / 'list.csv'}: classes of their own, though their names differ in case only: ANT and ant"
    ]


def test_usual_folders_need_no_word(tmp_path: Path):
    for part in ("train", "val"):
        write_classes(tmp_path / part, {"cat": 2, "dog": 2})
    assert find_sources(folder_config(tmp_path)).notes == []
