"""Class maps as people write them."""

import pickle
from pathlib import Path

import pytest

from helpers.image_files import not_regular
from isometry.config import RunConfig
from isometry.data.class_map import read_class_map
from isometry.errors import UserError


def read(path: Path) -> dict[str, int] | None:
    return read_class_map(RunConfig(class_map=str(path)))


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n \r\n\t\n"])
def test_blank_lines_at_the_end_are_no_classes(tmp_path: Path, end: str):
    path = tmp_path / "map.txt"
    path.write_text(f"cat\n dog \nother animal{end}", newline="")
    assert read(path) == {"cat": 0, "dog": 1, "other animal": 2}


def test_a_byte_order_mark_is_no_part_of_the_first_class(tmp_path: Path):
    path = tmp_path / "map.txt"
    path.write_text("cat\ndog\n", encoding="utf-8-sig")
    assert read(path) == {"cat": 0, "dog": 1}


@pytest.mark.parametrize("name", ["map.txt", "map.pkl"])
def test_a_pipe_or_a_device_is_not_read(tmp_path: Path, name: str):
    for path in not_regular(tmp_path, name):
        with pytest.raises(UserError, match=r"--class-map .*not a regular file"):
            read(path)


def test_a_map_is_found_in_the_folder_of_the_images(tmp_path: Path):
    (tmp_path / "map.txt").write_text("cat\ndog\n")
    assert read_class_map(RunConfig(class_map="map.txt", data_dir=str(tmp_path))) == {"cat": 0, "dog": 1}


def test_a_map_that_is_gone_is_told_as_gone(tmp_path: Path):
    for config in (
        RunConfig(class_map=str(tmp_path / "map.txt")),
        RunConfig(class_map="map.txt", data_dir=str(tmp_path)),
    ):
        with pytest.raises(
            UserError, match=r"^--class-map .*map\.txt: there is no such file, .* --class-map$"
        ):
            read_class_map(config)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("map.txt", b"cat\n\ndog\n", "line 2 is blank"),
        ("map.txt", b"\ncat\n", "line 1 is blank"),
        ("map.txt", b"cat\ndog\ncat\n", "line 3 has the class cat again"),
        ("map.txt", b"", "empty"),
        ("map.txt", b"\n\n", "empty"),
        ("map.txt", b"caf\xe9\n", "utf-8"),
        ("map.csv", b"cat,0\n", r"\.csv"),
        ("map.pkl", pickle.dumps({"cat": 0, "dog": 10**8}), "dog the index 100000000"),
        ("map.pkl", pickle.dumps({"cat": -1}), "cat the index -1"),
        ("map.pkl", pickle.dumps({"cat": "0"}), "cat the index '0'"),
        ("map.pkl", pickle.dumps(["cat"]), "dict"),
        ("map.pkl", b"", "cannot be read"),
        ("map.pkl", b"\x80\x04\x95" + b"\xff" * 8, "exceeds system's maximum"),
        ("map.pkl", b"\x80\x04\x8e" + b"\xff" * 8, "maximum"),
        ("map.pkl", b"\x80\x04h\x05.", "Memo value"),
        ("map.pkl", b"\x80\x04]K\x01s.", "cannot be read"),
    ],
)
def test_a_map_that_is_none(tmp_path: Path, name: str, content: bytes, why: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"--class-map .*{why}"):
        read(path)
