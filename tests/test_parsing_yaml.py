"""YAML from other people: aliases count as what they stand for, and what stays small is read as PyYAML reads it."""

import os
import threading
from pathlib import Path

import pytest
import yaml

from helpers.image_files import not_regular
from isometry.errors import UserError
from isometry.parsing import LONGEST, MOST_VALUES, parse_yaml, read_json, read_yaml


def doubled(times: int) -> str:
    """2^times values by as many anchors, and the lists around them."""
    return "\n".join(["- &a0 1", *(f"- &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, times + 1))])


def written_out(values: object) -> int:
    """Values in a tree, every one as often as it is met."""
    if isinstance(values, list):
        return 1 + sum(map(written_out, values))
    return 1


@pytest.mark.parametrize("times", range(1, 20))
def test_what_is_refused_is_what_would_be_too_large_written_out(times: int):
    text = doubled(times)
    size = written_out(yaml.safe_load(text))
    if size <= MOST_VALUES:
        assert parse_yaml(text) == yaml.safe_load(text)
    else:
        with pytest.raises(UserError, match="10,000 values"):
            parse_yaml(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1",
        "{a: [1, 2.5, x, null, true], b: 2024-01-31}",
        "a: &x {b: 1}\nc: {<<: *x, d: 2}",
        "a: '*'",
        "a: x*y",
    ],
)
def test_plain_values_are_read_as_pyyaml_reads_them(text: str):
    assert parse_yaml(text) == yaml.safe_load(text)


def test_a_text_just_short_enough_is_read():
    assert parse_yaml("a" * LONGEST) == "a" * LONGEST
    with pytest.raises(UserError, match="longer than"):
        parse_yaml("a" * (LONGEST + 1))


def test_nul_is_refused_with_its_line():
    with pytest.raises(UserError, match=r"control .*line 2"):
        parse_yaml('a: 1\nb: "x\\0"')


@pytest.mark.parametrize("character", ["\t", "\n", "\x1b", "\x7f", "\x9b", "\r", "\udce9"])
def test_what_file_names_can_hold_is_text(character: str):
    assert parse_yaml(yaml.safe_dump({"a": f"x{character}z"}, allow_unicode=True)) == {"a": f"x{character}z"}


def test_tags_of_python_make_nothing():
    for tag in (
        "object/apply:os.getcwd []",
        "name:os.system",
        "module:os",
        "object/new:dict {}",
        "tuple [1]",
    ):
        with pytest.raises(UserError):
            parse_yaml(f"!!python/{tag}")


def test_a_pipe_or_a_device_is_not_read(tmp_path: Path):
    for path in not_regular(tmp_path, "recipe.yaml"):
        with pytest.raises(UserError, match=r"^--config r: can't be read \(not a regular file"):
            read_yaml(path, "--config r")
        with pytest.raises(ValueError, match="not a regular file"):
            read_json(path, dict)


def test_a_pipe_that_the_user_named_is_read_and_a_device_is_not(tmp_path: Path):
    read, write = os.pipe()
    os.write(write, b"epochs: 3\n")
    os.close(write)
    assert read_yaml(Path(f"/dev/fd/{read}"), "--config r", pipe=True) == {"epochs": 3}
    os.close(read)
    for device in ("/dev/zero", "/dev/null", tmp_path):
        with pytest.raises(UserError, match=r"^--config r: can't be read \(not a regular file"):
            read_yaml(Path(device), "--config r", pipe=True)


def test_of_a_pipe_no_more_is_read_than_a_recipe_has(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ended = []

    def endless() -> None:
        try:
            with pipe.open("w") as file:
                while True:
                    file.write("a: 1 # and so on\n")
        except BrokenPipeError:
            ended.append(True)

    writer = threading.Thread(target=endless, daemon=True)
    writer.start()
    with pytest.raises(UserError, match=r"^--config r: is longer than 262,144 characters"):
        read_yaml(pipe, "--config r", pipe=True)
    writer.join(10)
    assert ended
