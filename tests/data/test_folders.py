"""Image folders in the forms that people have, and with the faults that they have."""

import pickle
from pathlib import Path

import pytest

from helpers.image_files import folder_config, write_classes, write_image
from isometry.config import DataConfig
from isometry.data import find_sources
from isometry.data.splits import MapPart
from isometry.errors import UserError


def targets(part: MapPart) -> list[int]:
    return [part.load(index)[1] for index in range(len(part))]


def paths(part: MapPart) -> list[str]:
    return [part.where(index) for index in range(len(part))]


@pytest.mark.parametrize("val_name", ["val", "validation", "valid", "eval"])
def test_train_and_validation_folders(tmp_path: Path, val_name: str):
    write_classes(tmp_path / "train", {"cat": 3, "dog": 2})
    write_classes(tmp_path / val_name, {"cat": 1, "dog": 1})
    sources = find_sources(folder_config(tmp_path))
    assert sources.class_names == ["cat", "dog"]
    assert sources.num_classes == 2
    assert targets(sources.train) == [0, 0, 0, 1, 1]
    assert targets(sources.val) == [0, 1]
    assert sources.test is None
    assert "5 training, 2 validation images, 2 classes" in sources.description


def test_validation_labels_follow_training_where_it_lacks_a_class(tmp_path: Path):
    write_classes(tmp_path / "train", {"ant": 2, "cat": 2, "dog": 2})
    write_classes(tmp_path / "val", {"dog": 2})
    write_classes(tmp_path / "test", {"cat": 1})
    sources = find_sources(folder_config(tmp_path))
    assert targets(sources.val) == [2, 2]
    assert targets(sources.test) == [1]


def test_validation_class_unknown_to_training(tmp_path: Path):
    write_classes(tmp_path / "train", {"cat": 2, "dog": 2})
    write_classes(tmp_path / "val", {"cat": 1, "emu": 1})
    with pytest.raises(UserError, match=r"val has 1 class.*'emu'"):
        find_sources(folder_config(tmp_path))


def test_one_folder_is_split_the_same_way_always(tmp_path: Path):
    write_classes(tmp_path, {"cat": 20, "dog": 10, "emu": 2})
    config = folder_config(tmp_path, val_fraction=0.2)
    sources = find_sources(config)
    assert sorted(targets(sources.val)) == [0] * 4 + [1] * 2 + [2]
    assert sorted(targets(sources.train)) == [0] * 16 + [1] * 8 + [2]
    assert set(paths(sources.train)).isdisjoint(paths(sources.val))
    assert paths(find_sources(config).val) == paths(sources.val)


def test_training_folder_alone_is_split_and_test_kept(tmp_path: Path):
    write_classes(tmp_path / "train", {"cat": 10, "dog": 10})
    write_classes(tmp_path / "test", {"cat": 1, "dog": 1})
    sources = find_sources(folder_config(tmp_path))
    assert [len(part) for part in (sources.train, sources.val, sources.test)] == [18, 2, 2]
    assert "validation split off train/" in sources.description


def test_a_class_named_train_is_a_class(tmp_path: Path):
    write_classes(tmp_path, {"bus": 4, "train": 4})
    assert find_sources(folder_config(tmp_path)).class_names == ["bus", "train"]


def test_every_class_keeps_a_training_image(tmp_path: Path):
    write_classes(tmp_path, {"cat": 1, "dog": 2, "emu": 9})
    sources = find_sources(folder_config(tmp_path, val_fraction=0.95))
    assert set(targets(sources.train)) == {0, 1, 2}
    assert set(targets(sources.val)) == {1, 2}


@pytest.mark.parametrize("folders", [("",), ("train", "val")])
def test_images_without_class_folders_are_unlabelled(tmp_path: Path, folders: tuple[str, ...]):
    for folder in folders:
        for number in range(10):
            write_image(tmp_path / folder / f"{number}.jpg", seed=number)
    sources = find_sources(folder_config(tmp_path))
    assert not sources.labelled
    assert sources.num_classes is None
    assert set(targets(sources.train)) == set(targets(sources.val)) == {-1}
    assert len(sources.val) == (1 if len(folders) == 1 else 10)
    assert "no labels" in sources.description


def test_test_images_without_labels_are_left_out(tmp_path: Path):
    write_classes(tmp_path / "train", {"cat": 2, "dog": 2})
    write_classes(tmp_path / "val", {"cat": 2, "dog": 2})
    write_image(tmp_path / "test" / "1.png")
    assert find_sources(folder_config(tmp_path)).test is None


def three_splits(root: Path, train: str = "train", val: str = "val", test: str = "test") -> Path:
    for name, count in ((train, 6), (val, 2), (test, 3)):
        write_classes(root / name, {"cat": count, "dog": count})
    return root


def sizes(folder: Path, **options: str) -> list[int | None]:
    sources = find_sources(folder_config(folder, **options))
    return [part and len(part) for part in (sources.train, sources.val, sources.test)]


@pytest.mark.parametrize(
    "options",
    [{}, {"train_split": "Train"}, {"train_split": "TRAINING", "val_split": "Valid"}, {"val_split": "VAL"}],
)
@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "Val", "Test")])
def test_splits_are_found_whatever_their_case(
    tmp_path: Path, names: tuple[str, str, str], options: dict[str, str]
):
    assert sizes(three_splits(tmp_path, *names), **options) == [12, 4, 6]


@pytest.mark.parametrize("option", ["train_split", "val_split"])
@pytest.mark.parametrize("name", ["trian", "vall", ""])
def test_a_given_split_without_a_folder_is_refused_with_the_folders_there_are(
    tmp_path: Path, option: str, name: str
):
    three_splits(tmp_path)
    flag = f"--{option.replace('_', '-')} {name or repr('')}"
    with pytest.raises(UserError, match=rf"^{flag}: no such folder in .*, which has test, train, val$"):
        sizes(tmp_path, **{option: name})


def test_a_given_split_is_used_whatever_lies_beside_it(tmp_path: Path):
    three_splits(tmp_path, "mine", "val")
    write_classes(tmp_path / "other", {"cat": 2, "dog": 2})
    assert sizes(tmp_path, train_split="mine") == [12, 4, 6]
    assert sizes(tmp_path, train_split="val", val_split="other") == [4, 4, 6]
    with pytest.raises(UserError, match=r"has val/ but no train/"):
        sizes(tmp_path)


def test_test_and_validation_are_never_merged_into_training(tmp_path: Path):
    write_classes(tmp_path / "train", {"cat": 10, "dog": 10})
    write_classes(tmp_path / "test", {"cat": 1, "dog": 1})
    write_classes(tmp_path / "extra", {"cat": 1, "dog": 1})
    assert sizes(tmp_path) == [18, 2, 2]
    assert "extra" in find_sources(folder_config(tmp_path)).notes[0]


def test_splits_inside_the_class_folders_are_to_be_turned_round(tmp_path: Path):
    for name in ("lo", "hi"):
        write_classes(tmp_path / name, {"train": 4, "test": 2})
    turned = r"inside the class folders \(hi, lo\): turn them round, train/hi for hi/train, or give a list"
    with pytest.raises(UserError, match=turned):
        sizes(tmp_path)


def test_several_data_sets_side_by_side_are_no_classes(tmp_path: Path):
    for name in ("first", "second"):
        for split in ("train", "test"):
            write_classes(tmp_path / name / split, {"cat": 4, "dog": 4})
    with pytest.raises(UserError, match=f"one folder deeper; give --data-dir {tmp_path / 'first'}$"):
        sizes(tmp_path)


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "valid"), ("val", "test")])
def test_splits_one_folder_deeper_are_refused(tmp_path: Path, names: tuple[str, str]):
    for name in names:
        write_classes(tmp_path / "data" / name, {"cat": 4, "dog": 4})
    with pytest.raises(UserError, match=f"one folder deeper; give --data-dir {tmp_path / 'data'}$"):
        sizes(tmp_path)


def test_class_map_sets_the_indices_of_all_parts(tmp_path: Path):
    write_classes(tmp_path / "train", {"cat": 1, "dog": 1})
    write_classes(tmp_path / "val", {"cat": 1, "dog": 1})
    (tmp_path / "classes.txt").write_text("dog\nbird\ncat\n")
    sources = find_sources(folder_config(tmp_path, class_map="classes.txt"))
    assert sources.class_names == ["dog", "bird", "cat"]
    assert targets(sources.train) == targets(sources.val) == [2, 0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.txt", None),
        ("classes.yaml", b"cat: 0"),
        ("empty.txt", b""),
        ("latin.txt", b"caf\xe9\n"),
        ("broken.pkl", b"no pickle"),
        ("list.pkl", pickle.dumps(["cat", "dog"])),
        ("code.pkl", pickle.dumps(Path)),
        ("words.pkl", pickle.dumps({"cat": "zero"})),
    ],
)
def test_unreadable_class_map(tmp_path: Path, name: str, content: bytes | None):
    write_classes(tmp_path, {"cat": 2, "dog": 2})
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"--class-map {name}"):
        find_sources(folder_config(tmp_path, class_map=name))


def test_no_data_at_all():
    with pytest.raises(UserError, match=r"--data-dir .*--dataset digits"):
        find_sources(DataConfig())


def test_missing_folder(tmp_path: Path):
    with pytest.raises(UserError, match=r"--data-dir .*nowhere"):
        find_sources(folder_config(tmp_path / "nowhere"))


def test_file_instead_of_folder(tmp_path: Path):
    with pytest.raises(UserError, match="folder"):
        find_sources(folder_config(write_image(tmp_path / "cat.png")))


@pytest.mark.parametrize("files", [(), ("notes.txt",), ("train/cat/notes.txt", "val/cat/notes.txt")])
def test_folder_without_images(tmp_path: Path, files: tuple[str, ...]):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("no image")
    with pytest.raises(UserError, match="images"):
        find_sources(folder_config(tmp_path))


def test_one_class_only(tmp_path: Path):
    write_classes(tmp_path, {"cat": 4})
    with pytest.raises(UserError, match=r"class.*'cat'"):
        find_sources(folder_config(tmp_path))


def test_validation_without_training(tmp_path: Path):
    write_classes(tmp_path / "val", {"cat": 2, "dog": 2})
    with pytest.raises(UserError, match=r"val/ .*train/"):
        find_sources(folder_config(tmp_path))


def test_an_image_beside_the_class_folders(tmp_path: Path):
    write_classes(tmp_path, {"cat": 2, "dog": 2})
    write_image(tmp_path / "preview.png")
    with pytest.raises(UserError, match=r"1 image is beside the class folders: preview\.png; move"):
        find_sources(folder_config(tmp_path))


def test_labels_in_one_part_only(tmp_path: Path):
    write_classes(tmp_path / "train", {"cat": 2, "dog": 2})
    write_image(tmp_path / "val" / "1.png")
    with pytest.raises(UserError, match=r"val .*class folders"):
        find_sources(folder_config(tmp_path))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0),
        ("validation_batch_size", 0),
        ("workers", -1),
        ("val_fraction", 0.0),
        ("val_fraction", 1.0),
        ("aug_repeats", -1),
        ("train_crop_mode", "middle"),
        ("scale", [0.5]),
        ("ratio", [2.0, 1.0]),
        ("hflip", 1.5),
        ("color_jitter", -0.1),
        ("reprob", float("nan")),
        ("remode", "noise"),
        ("recount", 0),
        ("mixup", -1.0),
        ("cutmix", float("nan")),
        ("mixup_mode", "half"),
        ("smoothing", 1.0),
        ("train_interpolation", "cubic"),
        ("crop_pct", 0.0),
    ],
)
def test_options_that_cannot_work_are_named(tmp_path: Path, option: str, value: object):
    with pytest.raises(UserError, match=f"^--{option.replace('_', '-')} .*: must be ") as caught:
        find_sources(folder_config(tmp_path, **{option: value}))
    assert "\n" not in str(caught.value)
