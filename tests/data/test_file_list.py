"""Lists of images: .csv as spreadsheets and people write it, and .parquet."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from helpers.image_files import RGB16, folder_config, not_regular, write_classes
from isometry.data import Sources, find_sources, make_loaders
from isometry.data.splits import MapPart
from isometry.errors import UserError
from isometry.training.teacher_cache.identity import hash_images


def paths(part: MapPart, root: Path) -> list[str]:
    return [str(Path(part.where(index)).relative_to(root)) for index in range(len(part))]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_classes(tmp_path, {"a": 4, "b": 4})


def listed(photos: Path, text: str, **options: Any) -> Sources:
    path = photos / "list.csv"
    path.write_text(text, encoding="utf-8")
    return find_sources(folder_config(path, **options))


def rows(*cells: str) -> str:
    return "\n".join(cells) + "\n"


ALL = [
    f"{folder}/{number}.png,{name}" for folder, name in (("a", "cat"), ("b", "dog")) for number in range(4)
]


def test_splits_and_labels_are_those_of_the_columns(photos: Path):
    sources = listed(
        photos,
        rows(
            "id,split,label,path",
            "1,train,dog,a/0.png",
            "2,train,cat,b/0.png",
            "3,val,cat,a/1.png",
            "4,test,dog,b/1.png",
            f"5,validation,dog,{photos / 'a' / '2.png'}",
        ),
    )
    assert sources.class_names == ["cat", "dog"]
    assert [paths(part, photos) for part in (sources.train, sources.val, sources.test)] == [
        ["a/0.png", "b/0.png"],
        ["a/1.png", "a/2.png"],
        ["b/1.png"],
    ]
    assert [part.labels() for part in (sources.train, sources.val, sources.test)] == [[1, 0], [0, 1], [1]]
    assert sources.notes == []
    config = folder_config(photos / "list.csv")
    (batch,) = make_loaders(sources, config, RGB16, seed=1).val
    assert batch.targets.tolist() == [0, 1]


NAMED = rows(
    "path,label,split",
    *(f"{row},{split}" for row, split in zip(ALL, ["train", "foo", "val", "dev"] * 2, strict=True)),
)


@pytest.mark.parametrize(
    ("options", "train", "val", "left_out"),
    [
        ({"train_split": "foo", "val_split": "dev"}, 1, 3, 4),
        ({"train_split": "FOO", "val_split": "VALID"}, 1, 2, 2),
    ],
)
def test_splits_that_are_asked_for_are_not_merged_with_others(
    photos: Path, options: dict[str, str], train: int, val: int, left_out: int
):
    text = NAMED if options["val_split"] == "dev" else NAMED.replace(",dev", ",val")
    sources = listed(photos, text, **options)
    assert paths(sources.train, photos) == [f"a/{train}.png", f"b/{train}.png"]
    assert f"a/{val}.png" in paths(sources.val, photos)
    (note,) = sources.notes
    assert note == f"{photos / 'list.csv'}: rows left out (of other splits than those asked for): {left_out}"


@pytest.mark.parametrize("option", ["train_split", "val_split"])
@pytest.mark.parametrize(
    ("text", "there"),
    [
        (rows("path,label,split", "a/0.png,cat,train", "b/0.png,dog,val"), "train, val"),
        (rows("path,label", *ALL), "no column split"),
    ],
)
def test_a_given_split_without_rows_is_refused(photos: Path, option: str, text: str, there: str):
    flag = f"--{option.replace('_', '-')} foo"
    with pytest.raises(UserError, match=f"^{flag}: no row of .*list.csv is of such a split; it has {there}$"):
        listed(photos, text, **{option: "foo"})


@pytest.mark.parametrize("other", ["./a/0.png", "b/../a/0.png", "a//0.png", "{photos}/a/0.png"])
def test_one_image_is_one_however_its_path_is_spelled(photos: Path, other: str):
    other = other.format(photos=photos)
    with pytest.raises(UserError, match=r"line 3: .*a/+0\.png is in line 2 too"):
        listed(photos, rows("path,label,split", "a/0.png,cat,train", f"{other},cat,val"))
    sources = listed(photos, rows("path,label", *ALL, f"{other},cat"))
    assert len(sources.train) + len(sources.val) == 8


def test_without_splits_a_share_of_each_class_is_split_off(photos: Path):
    sources = listed(photos, rows("path,label", *ALL))
    assert sorted(sources.val.labels()) == [0, 1]
    assert sorted(sources.train.labels()) == [0, 0, 0, 1, 1, 1]
    assert set(paths(sources.train, photos)).isdisjoint(paths(sources.val, photos))
    assert "validation split off list.csv" in sources.description


def test_as_a_spreadsheet_writes_it(photos: Path):
    text = '\ufeffFile_Name , Class\r\n"a/0.png",cat\r\n\r\nb/0.png, dog \r\n'
    (photos / "list.csv").write_text(text, encoding="utf-8", newline="")
    sources = find_sources(folder_config(photos / "list.csv"))
    assert sources.class_names == ["cat", "dog"]


def test_numbers_are_classes_in_their_order(photos: Path):
    sources = listed(photos, rows("path,label", "a/0.png,10", "a/1.png,9", "b/0.png,10", "b/1.png,9"))
    assert sources.class_names == ["9", "10"]


def test_without_labels(photos: Path):
    sources = listed(
        photos, rows("path,split", "a/0.png,train", "a/1.png,train", "b/0.png,val", "b/1.png,test")
    )
    assert not sources.labelled
    assert [len(sources.train), len(sources.val)] == [2, 1]


def test_test_images_without_labels_are_left_out_and_said(photos: Path):
    text = rows(
        "path,label,split", "a/0.png,cat,train", "b/0.png,dog,train", "a/1.png,cat,val", "b/1.png,,test"
    )
    sources = listed(photos, text)
    assert sources.test is None
    assert sources.notes == [f"{photos / 'list.csv'}: the test images are left out (not all have labels)"]


def test_a_class_map_sets_the_indices(photos: Path):
    (photos / "classes.txt").write_text("dog\nemu\ncat\n")
    sources = listed(photos, rows("path,label", *ALL[:-1], "b/3.png,lion"), class_map="classes.txt")
    assert sources.class_names == ["dog", "emu", "cat"]
    assert set(sources.train.labels()) == {0, 2}
    assert sources.notes == [f"{photos / 'list.csv'}: rows left out (not in --class-map): 1"]


def test_a_row_that_occurs_twice_counts_once(photos: Path):
    sources = listed(photos, rows("path,label", *ALL, *ALL[:2]))
    assert len(sources.train) + len(sources.val) == 8
    assert sources.notes == [f"{photos / 'list.csv'}: rows left out (of an image that is listed already): 2"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no column of paths"),
        ("path,label\n", "no training images"),
        ("url,label\na/0.png,cat\n", r"no column of paths \(its columns: url, label\); call it path"),
        (
            "path;label\na/0.png;cat\n",
            r"no column of paths \(its columns: path;label\); .* commas, not by ';'$",
        ),
        ("path\tlabel\na/0.png\tcat\n", r"; separate columns by commas, not by '\\t'$"),
        (rows("path,label", *ALL, "a/0.png,dog"), r"line 10: a/0\.png is in line 2 too"),
        (
            rows("path,label,split", "a/0.png,cat,train", "a/0.png,cat,val"),
            r"line 3: a/0\.png is in line 2 too",
        ),
        (
            rows("path,label", *ALL, "a/9.png,cat"),
            r"of 9 images, 1 can't be found, e\.g\. .*a/9\.png \(line 10\)",
        ),
        (rows("path,label", *ALL, "a/4.png"), "line 10: has cells: 1, and the first line has 2"),
        (rows("path,label", "a/0.png,cat", "a/1.png,"), "line 3: has no label"),
        (rows("path,label", "a/0.png,cat", ",dog"), "line 3: names no image"),
        (rows("path,label", "a/0.png,cat", "a/1.png,cat"), r"one class only \('cat'\)"),
        (
            rows("path,label,split", "a/0.png,cat,train", "a/1.png,cat,tset"),
            "line 3: its split is 'tset'; give one",
        ),
        (
            rows("path,label,split", "a/0.png,cat,train", "b/0.png,dog,train", "a/1.png,emu,val"),
            "line 4: the class 'emu' has no training images",
        ),
        (rows("path,label,split", "a/0.png,cat,val"), "no training images"),
        ('path,label\n"a/0.png,cat\n', "can't be read .*comma-separated file in UTF-8"),
    ],
)
def test_what_can_not_be_used_is_named_with_its_line(photos: Path, text: str, why: str):
    with pytest.raises(UserError, match=f"^--data-dir .*list.csv.*{why}") as caught:
        listed(photos, text)
    assert "\n" not in str(caught.value)


def test_other_encodings_and_missing_lists(photos: Path):
    (photos / "list.csv").write_bytes("path,label\nä.png,cat\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        find_sources(folder_config(photos / "list.csv"))
    with pytest.raises(UserError, match=r"gone\.csv: can't be read \(no such file"):
        find_sources(folder_config(photos / "gone.csv"))


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_a_pipe_or_a_device_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    stand_in(monkeypatch, {"path": ["a/0.png"]})
    for path in not_regular(tmp_path, name):
        with pytest.raises(UserError, match=f"^--data-dir {path}: can't be read .*not a regular file"):
            find_sources(folder_config(path))


def test_missing_images_can_be_skipped(photos: Path):
    sources = listed(photos, rows("path,label", *ALL, "a/9.png,cat"), skip_bad_images=True)
    assert len(sources.train) + len(sources.val) == 9


def test_a_folder_may_be_called_as_a_list(tmp_path: Path):
    write_classes(tmp_path / "photos.csv", {"cat": 2, "dog": 2})
    assert find_sources(folder_config(tmp_path / "photos.csv")).class_names == ["cat", "dog"]


def test_a_teacher_cache_is_that_of_the_same_list_elsewhere(tmp_path: Path):
    hashes = set()
    for place in ("here", "there"):
        photos = write_classes(tmp_path / place, {"a": 4, "b": 4})
        hashes.add(hash_images(listed(photos, rows("path,label", *ALL)).train, str(photos / "list.csv")))
    assert len(hashes) == 1


def test_parquet_without_its_library(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("isometry.data.file_list.find_spec", lambda name: None)
    (photos / "list.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"pip install pyarrow$") as caught:
        find_sources(folder_config(photos / "list.parquet"))
    assert "\n" not in str(caught.value)


def stand_in(monkeypatch: pytest.MonkeyPatch, columns: dict[str, list[Any]]) -> None:
    """A pyarrow whose every file has these columns."""

    class ParquetFile:
        schema_arrow = SimpleNamespace(names=list(columns))

        def __init__(self, path: Path) -> None:
            pass

        def read(self, columns: list[str]) -> SimpleNamespace:
            chosen = {name: values for name, values in self.values.items() if name in columns}
            return SimpleNamespace(to_pydict=lambda: chosen)

        values = columns

    module = ModuleType("pyarrow.parquet")
    module.ParquetFile = ParquetFile  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyarrow", ModuleType("pyarrow"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", module)
    monkeypatch.setattr("isometry.data.file_list.find_spec", lambda name: True)


def test_parquet(photos: Path, monkeypatch: pytest.MonkeyPatch):
    columns = {"label": [1, 0, 1], "width": [9, 9, 9], "path": ["a/0.png", "b/0.png", "a/1.png"]}
    stand_in(monkeypatch, columns)
    (photos / "list.parquet").touch()
    sources = find_sources(folder_config(photos / "list.parquet"))
    assert sources.class_names == ["0", "1"]
    assert sorted(sources.train.labels()) == [0, 1]
    assert sources.val.labels() == [1]


def test_parquet_of_pictures_instead_of_paths(photos: Path, monkeypatch: pytest.MonkeyPatch):
    stand_in(monkeypatch, {"image": [{"bytes": b""}], "label": [1]})
    (photos / "list.parquet").touch()
    with pytest.raises(UserError, match="column 'image' must hold text"):
        find_sources(folder_config(photos / "list.parquet"))


def test_a_real_parquet_file(photos: Path):
    table = pytest.importorskip("pyarrow").table({"path": ["a/0.png", "b/0.png"], "label": ["cat", "dog"]})
    pytest.importorskip("pyarrow.parquet").write_table(table, photos / "list.parquet")
    assert find_sources(folder_config(photos / "list.parquet")).class_names == ["cat", "dog"]


def test_the_backslashes_of_windows_are_named(photos: Path):
    with pytest.raises(UserError, match=r"line 2: its path has Windows' backslashes.* \(8 of 8 images\)"):
        listed(photos, rows("path,label", *(row.replace("/", "\\") for row in ALL)))
    with pytest.raises(UserError, match="can't be found"):
        listed(photos, rows("path,label", "a\\gone.png,cat", *ALL))


def test_rows_of_files_that_are_no_images_are_left_out_and_counted(photos: Path):
    before = listed(photos, rows("path,label", *ALL))
    (photos / "a" / "scan.pdf").write_bytes(b"%PDF-1.4")
    (photos / "b" / "noise").write_bytes(b"x")
    sources = listed(photos, rows("path,label", *ALL, "b/noise,dog", "a/scan.pdf,cat"))
    assert sources.notes == [
        f"{photos / 'list.csv'}: rows left out (files that are no images): 1 .pdf, 1 without an ending"
    ]
    parts = sources.train, sources.val
    assert sorted(path for part in parts for path in paths(part, photos)) == sorted(
        path for part in (before.train, before.val) for path in paths(part, photos)
    )
    named = rows("path,label,split", *(f"{row},train" for row in ALL), "a/scan.pdf,cat,test")
    assert listed(photos, named).test is None


def test_a_list_of_nothing_else_is_refused(photos: Path):
    for name in ("a/1.pdf", "b/1.pdf"):
        (photos / name).write_bytes(b"%PDF-1.4")
    with pytest.raises(UserError, match=r"no training images that can be read \(.*: 2 \.pdf\)"):
        listed(photos, rows("path,label", "a/1.pdf,cat", "b/1.pdf,dog"))


def test_images_of_any_name_are_read_from_a_list(photos: Path):
    (photos / "a" / "0.png").rename(photos / "a" / "noise")
    (photos / "a" / "1.png").rename(photos / "a" / "1.blob")
    sources = listed(photos, rows("path,label", "a/noise,cat", "a/1.blob,cat", *ALL[2:]))
    assert sources.notes == []
    assert len(sources.train) + len(sources.val) == 8
