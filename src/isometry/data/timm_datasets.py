"""Data sets of timm's ``create_dataset``: torch/ and hfds/ (map-style), hfids/, tfds/ and wds/ (streams)."""

import os
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

from PIL import Image
from timm.data import create_dataset

from isometry.config import DataConfig
from isometry.data.addresses import check_name, check_shards, root_of
from isometry.data.class_map import read_class_map
from isometry.data.decoding import open_image
from isometry.data.folders import (
    TEST_NAMES,
    TRAIN_NAMES,
    VAL_NAMES,
    existing_folder,
    find_split,
)
from isometry.data.image_files import ImageFiles
from isometry.data.image_formats import these_formats_only
from isometry.data.splits import UNLABELLED, MapPart, Splits, StreamPart, relabelling
from isometry.errors import UserError, first_line, printable
from isometry.files import check_regular

STREAMS = ("hfids", "tfds", "wds")
LIBRARIES = {
    "torch": "torchvision",
    "hfds": "datasets",
    "hfids": "datasets",
    "tfds": "tensorflow_datasets",
    "wds": "webdataset",
}
UNCONVERTED = ("wds/", "hfids/")
"""Streams whose images can come as they were decoded."""
TORCH_FOLDERS = ("image_folder", "folder")
TRAIN_AND_TEST = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist")
"""torchvision data sets of two splits: timm uses the test split for any name other than the training split's."""


class HuggingFaceImages:
    """Images of timm's reader, without the silent retries of its ``ImageDataset``."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader
        self.class_to_idx: Mapping[str, int] = getattr(reader, "class_to_idx", None) or {}

    def __len__(self) -> int:
        return len(self.reader)

    def load(self, number: int) -> tuple[Image.Image, int]:
        """Image and the reader's label (-1 if it has none); raises one of ``splits.DECODE_ERRORS``."""
        path = self.reader.filename(number, absolute=True)
        if path and os.path.exists(path):
            check_regular(os.stat(path))  # before timm opens it
        file, label = self.reader[number]
        with file:
            image = open_image(file)
        return image, UNLABELLED if label is None else int(label)

    def where(self, number: int) -> str:
        """The image's path, printable."""
        return printable(str(self.reader.filename(number, absolute=True) or f"image {number}"))

    def labels(self) -> None:
        """Not known without reading."""


class TorchvisionImages:
    """Images of a torchvision data set that opens them itself when it is indexed."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.class_to_idx: Mapping[str, int] = getattr(dataset, "class_to_idx", None) or {}

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, number: int) -> tuple[Image.Image, int]:
        """Image and torchvision's label; raises one of ``splits.DECODE_ERRORS``."""
        with these_formats_only():
            image, label = self.dataset[number]
        return image, int(label)

    def where(self, number: int) -> str:
        """Describes where the image is."""
        return f"image {number} of {type(self.dataset).__name__}"

    def labels(self) -> list[int] | None:
        """The labels that the data set holds."""
        targets = getattr(self.dataset, "targets", None)
        return None if targets is None else [int(target) for target in targets]


def open_scheme(config: DataConfig) -> Splits:
    """Opens ``config.dataset`` through timm; reads no image (the scheme may download or index).

    Raises:
        UserError: an unknown scheme, a library that is not installed, a name or place that would run a program, a data
            set or split that cannot be opened, a validation class without training images.
    """
    scheme, _, name = config.dataset.partition("/")
    scheme = scheme.lower()
    if scheme not in LIBRARIES or not name:
        known = ", ".join(f"{known}/..." for known in LIBRARIES)
        raise UserError(
            f"--dataset {config.dataset} is unknown: give digits, digit-scenes, or one of {known}"
        )
    if find_spec(LIBRARIES[scheme]) is None:
        library = LIBRARIES[scheme].replace("_", "-")
        raise UserError(
            f"--dataset {config.dataset} needs a library that is not installed: pip install {library}"
        )
    check_name(scheme, name, config.dataset)
    if scheme in ("torch", "wds") and not (
        root_of(config) and (config.dataset_download or config.allow_commands)
    ):
        existing_folder(config.data_dir)
    if scheme in STREAMS:
        return _open_streams(config)
    train = _open_images(config, scheme, name, config.train_split, TRAIN_NAMES, "--train-split")
    val = _open_images(config, scheme, name, config.val_split, VAL_NAMES, "--val-split")
    relabel = None
    if train.class_to_idx and val.class_to_idx:
        relabel = relabelling(val.class_to_idx, train.class_to_idx, f"--val-split {config.val_split}")
    return Splits(MapPart(train), MapPart(val, relabel=relabel), None, train.class_to_idx)


def _open_images(
    config: DataConfig, scheme: str, name: str, split: str, synonyms: tuple[str, ...], option: str
) -> HuggingFaceImages | ImageFiles | TorchvisionImages:
    if scheme == "hfds":
        dataset = _create(config, option, split, class_map=read_class_map(config))
        return HuggingFaceImages(dataset.reader)
    if name.lower() in TRAIN_AND_TEST and split not in (*TRAIN_NAMES, *VAL_NAMES, *TEST_NAMES):
        raise UserError(
            f"{option} {split}: {config.dataset} has no such split; give train, or validation for its test split"
        )
    if name not in TORCH_FOLDERS:
        return _torchvision_images(_create(config, option, split))
    # timm would silently use the whole root if the split has no folder
    root = existing_folder(config.data_dir)
    folder = find_split(root, split, synonyms)
    if folder is None:
        raise UserError(f"{option} {split}: --data-dir {root} has no such folder")
    return _torchvision_images(
        _create(config, option, split, root=str(folder), search_split=False, download=None)
    )


def _torchvision_images(dataset: Any) -> ImageFiles | TorchvisionImages:
    """Data sets that list their files (ImageFolder, ImageNet: ``samples``; Places365: ``imgs``) are read by us."""
    files = getattr(dataset, "samples", None) or getattr(dataset, "imgs", None)
    if files is None:
        return TorchvisionImages(dataset)
    return ImageFiles(files, getattr(dataset, "class_to_idx", None) or {})


def _open_streams(config: DataConfig) -> Splits:
    class_map = read_class_map(config)

    def part(split: str, option: str, is_training: bool) -> tuple[StreamPart, Mapping[str, int]]:
        open_for = partial(_create, config, option, split, class_map=class_map, is_training=is_training)
        dataset = open_for(batch_size=1, seed=0)
        check_shards(config, dataset.reader)
        return StreamPart(open_for, len(dataset)), getattr(dataset.reader, "class_to_idx", None) or {}

    train, class_to_idx = part(config.train_split, "--train-split", is_training=True)
    val, val_class_to_idx = part(config.val_split, "--val-split", is_training=False)
    if class_to_idx and val_class_to_idx and class_to_idx != val_class_to_idx:
        raise UserError(
            f"--dataset {config.dataset}: train and validation have different classes: give --class-map"
        )
    return Splits(train, val, None, class_to_idx)


def _create(config: DataConfig, option: str, split: str, **kwargs: Any) -> Any:
    kwargs = {"root": root_of(config), "download": config.dataset_download, **kwargs}
    if config.dataset.lower().startswith(UNCONVERTED):
        # timm would convert to RGB, and cut greys of more than 8 bits off at 255.
        kwargs["input_img_mode"] = ""
    where = f" in {config.data_dir}" if config.data_dir else ""
    try:
        return create_dataset(config.dataset, split=split, **kwargs)
    except Exception as error:  # each scheme's library raises its own errors, with no common base class
        raise UserError(
            f"--dataset {config.dataset} with {option} {split} cannot be opened{where} ({first_line(error)}): "
            "check the name, the split and --data-dir, or allow a download with --dataset-download"
        ) from error
