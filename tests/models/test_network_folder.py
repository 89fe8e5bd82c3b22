"""A saved network's folder: written again, killed at any moment, beside what is the user's."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from isometry.errors import UserError
from isometry.models import network_folder
from isometry.models.network_folder import MANIFEST, check_unchanged, is_written, replace_folder


def write(folder: Path, **files: str) -> None:
    with replace_folder(folder) as new:
        assert [path.name for path in new.iterdir()] == [MANIFEST]
        for name, content in files.items():
            (new / name).write_text(content)


def seen(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def test_files_that_were_written_are_replaced_and_others_stay(tmp_path: Path):
    folder = tmp_path / "folder"
    write(folder, a="old", b="old")
    (folder / "mine").write_text("mine")
    (folder / "my folder").mkdir()
    (folder / "my folder" / "a").write_text("mine too")
    write(folder, a="new", c="new")
    assert seen(folder) == {"a": "new", "c": "new", "mine": "mine", "my folder/a": "mine too"}
    assert list(tmp_path.iterdir()) == [folder]
    assert is_written(folder)


def test_a_block_that_fails_changes_nothing(tmp_path: Path):
    folder = tmp_path / "folder"
    write(folder, a="old")
    (folder / "mine").write_text("mine")
    with pytest.raises(FileNotFoundError):
        write(folder, **{"a": "half", "no/b": "half"})
    assert seen(tmp_path) == {"folder/a": "old", "folder/mine": "mine"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "a").write_text("by hand"), "folder/a: was changed since"),
        (lambda folder: (folder / "c").write_text("mine"), "folder/c: isometry did not write this file"),
        (lambda folder: (folder / "c").mkdir(), "folder/c: isometry did not write this file"),
        (lambda folder: (folder / "c").symlink_to(folder / "a"), "folder/c: is a link"),
    ],
    ids=["changed", "of the same name", "a folder", "a link"],
)
def test_what_is_not_ours_any_more_is_refused_by_name(
    tmp_path: Path, change: Callable[[Path], object], said: str
):
    folder = tmp_path / "folder"
    write(folder, a="old", b="old")
    change(folder)
    before = seen(tmp_path)
    with pytest.raises(UserError, match=said):
        write(folder, a="new", c="new")
    assert seen(tmp_path) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_the_same_content_is_no_conflict(tmp_path: Path):
    """Such as the files of a version that kept no list."""
    folder = tmp_path / "folder"
    write(folder, a="same")
    (folder / MANIFEST).unlink()
    assert not is_written(folder)
    check_unchanged(folder)
    write(folder, a="same")
    assert seen(folder) == {"a": "same"}
    assert is_written(folder)


def test_a_folder_of_the_new_ones_name_and_a_link_stay(tmp_path: Path):
    (tmp_path / "folder.new").mkdir()
    (tmp_path / "folder.new" / "mine").write_text("mine")
    (tmp_path / "other.new").symlink_to(tmp_path / "folder.new")
    write(tmp_path / "folder", a="new")
    write(tmp_path / "other", a="new")
    assert seen(tmp_path) == {"folder.new/mine": "mine", "folder/a": "new", "other/a": "new"}
    (tmp_path / "linked").symlink_to(tmp_path / "folder")
    with pytest.raises(UserError, match="linked: is a link"):
        write(tmp_path / "linked", a="other")
    assert (tmp_path / "folder" / "a").read_text() == "new"


class Killed(BaseException):
    """No ``except`` sees it."""


def test_a_kill_at_any_moment_loses_nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    left, mine = [0], {"folder/mine": "mine", "folder/my folder/deep": "mine"}
    clear = network_folder._clear

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] <= 0:
                raise Killed
            return original(*args, **kwargs)

        return call

    for moment in count(1):
        ground = tmp_path / str(moment)
        write(ground / "folder", a="old", b="old")
        (ground / "folder" / "my folder").mkdir()
        for name, content in mine.items():
            (ground / name).write_text(content)
        with monkeypatch.context() as patch:
            left[0] = moment
            for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
                patch.setattr(Path, name, counted(getattr(Path, name)))
            # A killed process clears nothing on its way out.
            patch.setattr(network_folder, "_clear", lambda *paths: left[0] > 0 and clear(*paths))
            ended = True
            try:
                write(ground / "folder", a="new", c="new")
            except Killed:
                ended = False
        found = seen(ground)
        assert sorted(text for text in found.values() if text == "mine") == ["mine", "mine"]
        write(ground / "folder", a="newer", c="newer")
        assert seen(ground) == {"folder/a": "newer", "folder/c": "newer", **mine}
        assert [path.name for path in ground.iterdir()] == ["folder"]
        if ended:
            break
    assert moment > 8
