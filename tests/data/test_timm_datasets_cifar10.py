"""CIFAR-10 through timm and torchvision: its own files in, unchanged pixels out, and one line where it can't be."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.cifar10_files import BATCHES, META, NAMES, Cifar10Files, write_cifar10
from helpers.image_files import folder_config, truncate
from isometry.config import DataConfig
from isometry.data import ImageSpec, Loaders, find_sources, make_loaders
from isometry.data.preprocess import Preprocess
from isometry.errors import UserError
from isometry.models.build import build_model
from isometry.models.spec import ModelSpec, image_spec


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cifar10Files:
    """A CIFAR-10 of 20 images to train and 4 to test."""
    return write_cifar10(tmp_path / "cifar", monkeypatch)


@pytest.fixture(scope="module")
def spec() -> ImageSpec:
    """The images that the CIFAR networks want."""
    return image_spec(build_model(ModelSpec("cifar_resnet20"))[0])


def cifar_config(root: Path, **overrides: Any) -> DataConfig:
    return folder_config(root, dataset="torch/cifar10", **overrides)


def loaders(files: Cifar10Files, spec: ImageSpec, **overrides: Any) -> Loaders:
    config = cifar_config(files.root, **overrides)
    return make_loaders(find_sources(config), config, spec, seed=1)


def pictures(files: Cifar10Files, batches: list[str]) -> list[tuple[torch.Tensor, int]]:
    """What was written, pixel by pixel: uint8 (3,32,32) and its label."""
    found = []
    for name in batches:
        for row, label in zip(files.rows[name], files.labels[name], strict=True):
            image = np.empty((3, 32, 32), dtype=np.uint8)
            for place, value in enumerate(row):
                image[place // 1024, place % 1024 // 32, place % 32] = value
            found.append((torch.from_numpy(image), label))
    return found


def test_the_parts_are_counted_and_the_classes_named(files: Cifar10Files):
    sources = find_sources(cifar_config(files.root))
    assert sources.class_names == NAMES
    assert (len(sources.train), len(sources.val), sources.test, sources.num_classes) == (20, 4, None, 10)
    assert "20 training, 4 validation images, 10 classes" in sources.description


def test_validation_images_and_labels_arrive_unchanged(files: Cifar10Files, spec: ImageSpec):
    (batch,) = loaders(files, spec).val
    expected = pictures(files, BATCHES[-1:])
    assert batch.targets.tolist() == [label for _, label in expected]
    for image, (pixels, _) in zip(batch.images, expected, strict=True):
        assert torch.equal(image, pixels)


def test_training_images_and_labels_arrive_once_each_and_unchanged(files: Cifar10Files, spec: ImageSpec):
    batches = list(loaders(files, spec, no_aug=True).train.epoch(0))
    seen = {
        image.numpy().tobytes(): int(target)
        for batch in batches
        for image, target in zip(batch.images, batch.targets, strict=True)
    }
    expected = {image.numpy().tobytes(): label for image, label in pictures(files, BATCHES[:-1])}
    assert seen == expected
    assert sum(len(batch.targets) for batch in batches) == 20


def test_a_pixel_is_normalised_by_its_channels_mean_and_spread(files: Cifar10Files, spec: ImageSpec):
    (batch,) = loaders(files, spec).val
    images, _ = Preprocess(cifar_config(files.root), spec, 10, "cpu").normalise(batch)
    pixels = batch.images.double().numpy() / 255
    for channel, (mean, std) in enumerate([(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]):
        expected = (pixels[:, channel] - mean) / std
        np.testing.assert_allclose(images[:, channel].numpy(), expected, atol=1e-5)


def test_augmented_images_differ_and_keep_their_size(files: Cifar10Files, spec: ImageSpec):
    batches = list(loaders(files, spec, scale=[0.6, 0.9]).train.epoch(0))
    written = {image.numpy().tobytes() for image, _ in pictures(files, BATCHES[:-1])}
    assert all(batch.images.shape[1:] == (3, 32, 32) for batch in batches)
    assert not written & {image.numpy().tobytes() for batch in batches for image in batch.images}


@pytest.mark.parametrize("split", ["val", "valid", "validation", "eval", "evaluation", "test", "testing"])
def test_every_name_of_the_held_out_part_is_the_test_batch(files: Cifar10Files, spec: ImageSpec, split: str):
    (batch,) = loaders(files, spec, val_split=split).val
    assert batch.targets.tolist() == files.labels["test_batch"]


@pytest.mark.parametrize("split", ["train", "training"])
def test_every_name_of_the_training_part_is_the_training_batches(files: Cifar10Files, split: str):
    assert len(find_sources(cifar_config(files.root, train_split=split)).train) == 20


@pytest.mark.parametrize("option", ["train_split", "val_split"])
@pytest.mark.parametrize("split", ["trian", "Train", "train[:90%]", ""])
@pytest.mark.parametrize("dataset", ["torch/cifar10", "torch/CIFAR10"])
def test_a_part_that_is_not_there_is_not_taken_for_the_test_part(
    files: Cifar10Files, option: str, split: str, dataset: str
):
    with pytest.raises(UserError, match=r"train.* validation") as told:
        find_sources(folder_config(files.root, dataset=dataset, **{option: split}))
    assert str(told.value).startswith(f"--{option.replace('_', '-')} {split}: ")


def refused(root: Path, **overrides: Any) -> str:
    """The one line with which CIFAR-10 in ``root`` is refused; it says where it is."""
    with pytest.raises(UserError) as told:
        find_sources(cifar_config(root, **overrides))
    assert "\n" not in str(told.value)
    assert str(root) in str(told.value)
    return str(told.value)


def test_a_folder_that_is_missing_is_one_line(tmp_path: Path):
    assert "--data-dir" in refused(tmp_path / "nowhere")


def test_a_folder_without_the_files_is_one_line(tmp_path: Path):
    assert "--dataset-download" in refused(tmp_path)


@pytest.mark.parametrize("name", [*BATCHES, META])
def test_a_file_that_is_missing_is_one_line(files: Cifar10Files, name: str):
    files.file(name).unlink()
    assert "--dataset torch/cifar10 with --train-split train cannot be opened" in refused(files.root)


@pytest.mark.parametrize("name", [*BATCHES, META])
def test_a_damaged_file_is_one_line(files: Cifar10Files, name: str):
    """One byte differs: the pickle would still be read, with another pixel in it."""
    content = bytearray(files.file(name).read_bytes())
    content[len(content) // 2] ^= 1
    files.file(name).write_bytes(content)
    assert "corrupted" in refused(files.root)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
def test_a_file_that_holds_no_batch_is_one_line(
    files: Cifar10Files, name: str, monkeypatch: pytest.MonkeyPatch
):
    """Even where its checksum is the expected one."""
    truncate(files.file(name))
    files.know(monkeypatch)
    assert "cannot be opened" in refused(files.root)


def no_network(*_: object, **__: object) -> None:
    raise OSError("no network")


def test_an_archive_that_is_there_is_unpacked_and_nothing_fetched(
    files: Cifar10Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "fresh"
    root.mkdir()
    files.pack(root, monkeypatch)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    assert "--dataset-download" in refused(root)
    sources = find_sources(cifar_config(root, dataset_download=True))
    assert (len(sources.train), len(sources.val)) == (20, 4)
    assert find_sources(cifar_config(root)).description


def test_a_damaged_archive_without_a_network_is_one_line(
    files: Cifar10Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = files.pack(tmp_path, monkeypatch)
    shutil.rmtree(files.root)
    truncate(archive)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    assert "no network" in refused(tmp_path, dataset_download=True)
