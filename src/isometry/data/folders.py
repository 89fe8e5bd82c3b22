"""Image folders: train/ and val/ of class folders, one folder of class folders, or images without labels."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from isometry.config import DataConfig
from isometry.config.paths import expand_path
from isometry.data.class_map import read_class_map
from isometry.data.class_names import folder_notes
from isometry.data.folder_listing import (
    NO_CLASS,
    ending_of,
    endings_texts,
    holds_images,
    image_folders,
    in_order,
    list_images,
    named,
)
from isometry.data.image_files import ImageFiles, natural_order, numbered
from isometry.data.image_formats import read_since
from isometry.data.splits import UNLABELLED, MapPart, Splits, relabelling, split_off
from isometry.errors import MOST_NAMED, NamesAll, UserError, counted, printable, some_of

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "eval", "evaluation")
TEST_NAMES = ("test", "testing")


def open_folder(config: DataConfig, *, reporting: bool = False) -> Splits:
    """Detects the layout of ``config.data_dir`` and opens it; reads file names, no image.

    A folder with train/ and a validation folder (timm's synonyms) keeps its splits, and test/ if it has labels. In any
    other folder, and in a train/ alone, ``val_fraction`` of each class is split off for validation, always the same
    images. Images directly inside the folder, without class folders, have no labels. Images beside class folders are
    refused, or left out and named for a report on the data (``reporting``).

    Raises:
        UserError: no such folder or split, no images, one class, a validation class without training images, splits one
            folder deeper, a bad class map.
    """
    root = existing_folder(config.data_dir)
    notes: list[str] = []
    scanned = partial(scan, class_map=read_class_map(config), notes=notes, reporting=reporting)
    train_dir = find_split(root, config.train_split, TRAIN_NAMES)
    val_dir = find_split(root, config.val_split, VAL_NAMES)
    test_dir = find_split(root, "test", TEST_NAMES)
    found = image_folders(root)
    asked = {"train_split": train_dir, "val_split": val_dir}
    given = {name: folder for name, folder in asked.items() if is_given(config, name)}
    for name, folder in given.items():
        if folder is None:
            there = named([path.name for path in found]) or "no folders with images"
            raise UserError(f"{split_option(config, name)}: no such folder in {root}, which has {there}")
    others = found - {train_dir, val_dir, test_dir}
    if val_dir and not train_dir and (test_dir or given or not others):
        raise UserError(
            f"--data-dir {root} has {val_dir.name}/ but no {config.train_split}/: add the training images"
        )
    if train_dir and (val_dir or test_dir or given or not others):
        splits = _open_splits(train_dir, val_dir, test_dir, scanned, config.val_fraction, notes)
        if others:
            beside = in_order(path.name for path in others)
            splits.notes.append(NamesAll.of(f"{root}: folders left out (beside {train_dir.name}/)", beside))
        return splits
    _check_not_deeper(root, others)
    return _open_splits(root, None, None, scanned, config.val_fraction, notes)


def _check_not_deeper(root: Path, folders: Iterable[Path]) -> None:
    """Splits inside the folders would be taken for classes."""
    inside: dict[Path, list[Path]] = {}
    for folder in sorted(folders):
        inner = [find_split(folder, names[0], names) for names in (TRAIN_NAMES, VAL_NAMES, TEST_NAMES)]
        splits = [path for path in inner if path is not None and holds_images(path)]
        if len(splits) > 1:
            inside[folder] = splits
    if not inside:
        return
    first, splits = next(iter(inside.items()))
    names = named([path.name for path in splits])
    # A data set has class folders in its splits; a class has its images there.
    if len(inside) > 1 and not any(image_folders(path) for path in splits):
        raise UserError(
            f"--data-dir {root}: the splits {names} are inside the class folders "
            f"({named([folder.name for folder in inside])}): turn them round, {splits[0].name}/{first.name} for "
            f"{first.name}/{splits[0].name}, or give a list with --data-dir list.csv (columns path, label, split)"
        )
    raise UserError(f"--data-dir {root}: the splits {names} are one folder deeper; give --data-dir {first}")


def _open_splits(
    train_dir: Path,
    val_dir: Path | None,
    test_dir: Path | None,
    scanned: Callable[[Path], ImageFiles],
    val_fraction: float,
    notes: list[str],
) -> Splits:
    train = scanned(train_dir)
    class_to_idx = train.class_to_idx if _has_labels(train) else None
    if class_to_idx is not None and len(set(train.labels())) < 2:
        raise UserError(
            f"{train_dir} has images of one class only ({next(iter(train.class_to_idx))!r}): add another, "
            "or give the class folder itself to use its images without labels"
        )
    whole = _same_labels(train, class_to_idx, train_dir)
    test = _open_test(test_dir, scanned, class_to_idx)
    if val_dir is not None:
        val = _same_labels(scanned(val_dir), class_to_idx, val_dir)
        return Splits(whole, val, test, class_to_idx, notes=notes)
    since = [read_since(ending_of(path)) for path, _ in train.files]
    kept, split = split_off(train.labels(), val_fraction, since)
    val_part = replace(whole, numbers=split) if split else None
    note = f", validation split off {train_dir.name}/"
    return Splits(replace(whole, numbers=kept), val_part, test, class_to_idx, note, notes)


def _open_test(
    folder: Path | None, scanned: Callable[[Path], ImageFiles], class_to_idx: Mapping[str, int] | None
) -> MapPart | None:
    """The test split; None without a folder or without labels (such as ImageNet's test/)."""
    if folder is None or class_to_idx is None:
        return None
    images = scanned(folder)
    return _same_labels(images, class_to_idx, folder) if _has_labels(images) else None


def _same_labels(images: ImageFiles, class_to_idx: Mapping[str, int] | None, folder: Path) -> MapPart:
    labelled = _has_labels(images)
    if labelled != (class_to_idx is not None):
        fault = "has class folders but the training folder has none" if labelled else "has no class folders"
        raise UserError(f"{folder} {fault}: give both the same layout")
    if class_to_idx is None:
        return MapPart(images, relabel={0: UNLABELLED})
    return MapPart(images, relabel=relabelling(images.class_to_idx, class_to_idx, str(folder)))


def scan(
    folder: Path, class_map: dict[str, int] | None, notes: list[str], *, reporting: bool = False
) -> ImageFiles:
    """The images under ``folder`` in timm's order, labelled by folder name; adds ``notes`` on what is left out.

    Raises:
        UserError: there are none, or some are beside class folders, and no report on them is made.
    """
    listing = list_images(folder)
    if class_map is None and (loose := listing.take_loose()):
        fault = f"{counted(len(loose), 'image is', 'images are')} beside the class folders"
        cure = "; move them into one of these, or elsewhere"
        if not reporting:
            raise UserError(f"{folder}: {fault}: {named(loose)}{cure}")
        notes.append(
            NamesAll.of(f"{folder}: left out here, and refused by a run: {fault}", in_order(loose), cure)
        )
    class_to_idx = numbered(name for _, name in listing.images) if class_map is None else class_map
    used = [(path, name) for path, name in listing.images if name in class_to_idx]
    if not used:
        of_classes = " in folders named in --class-map" if class_map else ""
        others = f" (but {some_of(endings_texts(listing.endings), MOST_NAMED)})" if listing.endings else ""
        raise UserError(
            f"no images in {folder}{of_classes}{others}: give a folder with image files (PNG, JPEG, ...)"
        )
    unknown = Counter(name for _, name in listing.images if name not in class_to_idx)
    notes += folder_notes(folder, used) + listing.notes
    if unknown:
        counts = [f"{name or os.curdir} ({count:,})" for name, count in unknown.items()]
        head = f"{folder}: folders left out (not in --class-map), and their images"
        notes.append(NamesAll.of(head, in_order(counts)))
    files = sorted(
        ((path, class_to_idx[name]) for path, name in used), key=lambda file: natural_order(file[0])
    )
    return ImageFiles(files, class_to_idx)


def _has_labels(images: ImageFiles) -> bool:
    return set(images.class_to_idx) != {NO_CLASS}


def existing_folder(data_dir: str | None) -> Path:
    """``data_dir`` as a path; raises UserError unless it is a folder."""
    if not data_dir:
        raise UserError("no data: give --data-dir FOLDER, or --dataset digits")
    root = Path(expand_path(data_dir))
    if not root.exists():
        raise UserError(f"--data-dir {root} does not exist: check the path")
    if not root.is_dir():
        raise UserError(
            f"--data-dir {root} is not a folder: give the folder that holds the images, or a list (.csv, .parquet)"
        )
    if not os.access(root, os.R_OK | os.X_OK):
        raise UserError(f"--data-dir {root} can't be read (permission denied)")
    return root


def find_split(root: Path, asked: str, synonyms: tuple[str, ...]) -> Path | None:
    """The folder of a split, by the given name or a synonym, in any case; None if there is none."""
    exact = root / asked
    if asked and exact.is_dir():
        return exact
    folders = {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}
    return next((folders[name] for name in split_names(asked, synonyms) if name in folders), None)


def split_names(asked: str, synonyms: tuple[str, ...]) -> tuple[str, ...]:
    """All names of the split that is asked for, in lower case."""
    asked = asked.lower()
    return (asked, *synonyms) if asked in synonyms else (asked,)


def is_given(config: DataConfig, name: str) -> bool:
    """Whether ``train_split`` or ``val_split`` is another than the default."""
    return bool(getattr(config, name) != getattr(DataConfig, name))


def split_option(config: DataConfig, name: str) -> str:
    """``--train-split foo``, for messages."""
    return f"--{name.replace('_', '-')} {printable(getattr(config, name)) or repr('')}"
