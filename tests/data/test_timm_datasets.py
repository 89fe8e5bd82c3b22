"""timm's data sets by scheme: torchvision's folders and files, and WebDataset's streams."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, ExifTags, Image

from helpers.image_files import EPS, RGB16, folder_config, truncate, write_classes
from isometry.cli.main import main
from isometry.config import DataConfig
from isometry.data import Batch, find_sources, make_loaders
from isometry.errors import UserError


def test_torch_image_folder(tmp_path: Path):
    write_classes(tmp_path / "train", {"ant": 2, "cat": 2, "dog": 2})
    write_classes(tmp_path / "val", {"cat": 1, "dog": 1})
    config = folder_config(tmp_path, dataset="torch/image_folder")
    sources = find_sources(config)
    assert sources.class_names == ["ant", "cat", "dog"]
    (batch,) = make_loaders(sources, config, RGB16, seed=1).val
    assert batch.targets.tolist() == [1, 2]
    truncate(tmp_path / "val" / "cat" / "0.png")
    with pytest.raises(UserError, match=r"cat/0\.png"):
        list(make_loaders(sources, config, RGB16, seed=1).val)


def test_torch_image_folder_without_a_validation_folder(tmp_path: Path):
    write_classes(tmp_path / "train", {"cat": 2, "dog": 2})
    with pytest.raises(UserError, match=r"--val-split validation: .*--data-dir "):
        find_sources(folder_config(tmp_path, dataset="torch/image_folder"))


def test_torch_dataset_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match=r"torch/cifar10.*--dataset-download") as caught:
        find_sources(folder_config(tmp_path, dataset="torch/cifar10"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dataset", ["torch/nothing", "nowhere/x", "digit", "wds"])
def test_unknown_data_sets(tmp_path: Path, dataset: str):
    with pytest.raises(UserError, match=f"--dataset {dataset}"):
        find_sources(folder_config(tmp_path, dataset=dataset))


def test_a_library_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("isometry.data.timm_datasets.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install datasets"):
        find_sources(folder_config(tmp_path, dataset="hfds/mnist"))


def test_torch_without_a_folder():
    with pytest.raises(UserError, match="--data-dir"):
        find_sources(DataConfig(dataset="torch/cifar10"))


def test_class_map_is_refused_where_it_would_be_ignored(tmp_path: Path):
    with pytest.raises(UserError, match=r"--class-map c\.txt: must be left out"):
        find_sources(folder_config(tmp_path, dataset="torch/cifar10", class_map="c.txt"))


def write_shards(root: Path, shards: int = 4, per_shard: int = 8) -> None:
    """WebDataset shards of JPEGs with class files, and the index that timm reads."""
    splits = {}
    for split in ("train", "validation"):
        names = [f"{split}-{shard}.tar" for shard in range(shards)]
        for shard, name in enumerate(names):
            with tarfile.open(root / name, "w") as tar:
                for number in range(per_shard):
                    seed = shard * per_shard + number
                    _add(tar, f"{seed:04d}.jpg", _jpeg(seed))
                    _add(tar, f"{seed:04d}.cls", str(seed % 3).encode())
        splits[split] = {
            "name": split,
            "filenames": names,
            "shard_lengths": [per_shard] * shards,
            "num_samples": shards * per_shard,
        }
    (root / "_info.json").write_text(json.dumps({"splits": splits}))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.RandomState(seed).randint(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def stream_epoch(config: DataConfig, epoch: int = 0, start: int = 0, seed: int = 1) -> list[Batch]:
    return list(make_loaders(find_sources(config), config, RGB16, seed=seed).train.epoch(epoch, start))


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=0)
        torch.testing.assert_close(one.targets, other.targets, rtol=0, atol=0)


def test_streams_are_a_function_of_seed_and_epoch(tmp_path: Path):
    write_shards(tmp_path)
    config = folder_config(tmp_path, dataset="wds/shards", workers=2, batch_size=4)
    sources = find_sources(config)
    assert "32 training, 32 validation images, classes not named" in sources.description
    assert sources.labelled
    loader = make_loaders(sources, config, RGB16, seed=1).train
    first, second = list(loader.epoch(0)), list(loader.epoch(1))
    assert len(loader) == len(first) == 8
    assert not torch.equal(first[0].images, second[0].images)
    # as a resumed run sees it: epoch 1 without epoch 0 before it, from its middle
    assert_same(second[5:], stream_epoch(config, epoch=1, start=20))
    assert not torch.equal(first[0].images, stream_epoch(config, seed=2)[0].images)


def test_stream_shards_are_dealt_anew_each_epoch(tmp_path: Path):
    write_shards(tmp_path)
    config = folder_config(tmp_path, dataset="wds/shards", workers=2, batch_size=16, no_aug=True)
    loader = make_loaders(find_sources(config), config, RGB16, seed=1).train
    first_workers = [next(loader.epoch(epoch)).images for epoch in range(5)]
    contents = {frozenset(image.numpy().tobytes() for image in images) for images in first_workers}
    assert len(contents) > 1


def test_stream_evaluation_sees_every_image_once(tmp_path: Path):
    write_shards(tmp_path)
    config = folder_config(tmp_path, dataset="wds/shards", workers=2, validation_batch_size=5)
    val = make_loaders(find_sources(config), config, RGB16, seed=1).val
    batches = list(val)
    images = torch.cat([batch.images for batch in batches])
    assert len(images.flatten(1).unique(dim=0)) == len(images) == 32
    assert_same(batches, list(val))


def test_training_images_of_a_stream_may_have_another_size(tmp_path: Path):
    write_shards(tmp_path)
    config = folder_config(tmp_path, dataset="wds/shards", workers=1)
    larger = replace(RGB16, input_size=(3, 24, 24))
    loaders = make_loaders(find_sources(config), config, RGB16, larger, seed=1)
    assert {batch.images.shape[-2:] for batch in loaders.train.epoch(0)} == {(24, 24)}
    assert {batch.images.shape[-2:] for batch in loaders.val} == {(16, 16)}


def test_streams_without_workers_read_in_one(tmp_path: Path):
    write_shards(tmp_path)
    config = folder_config(tmp_path, dataset="wds/shards", workers=1)
    assert_same(stream_epoch(config), stream_epoch(replace(config, workers=0)))


def test_more_workers_than_shards(tmp_path: Path):
    write_shards(tmp_path, shards=1)
    config = folder_config(tmp_path, dataset="wds/shards", workers=2)
    with pytest.raises(UserError, match="--workers 2"):
        stream_epoch(config)


def test_a_stream_split_that_is_not_there(tmp_path: Path):
    write_shards(tmp_path)
    with pytest.raises(UserError, match="--val-split dev"):
        find_sources(folder_config(tmp_path, dataset="wds/shards", val_split="dev"))


def test_a_stream_opens_no_other_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """PostScript among its images: timm's reader leaves it out, and Ghostscript is not started."""
    asked: list[str] = []
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", lambda self: asked.append("opened"))
    write_shards(tmp_path, shards=1)
    with tarfile.open(tmp_path / "validation-0.tar", "a") as tar:
        _add(tar, "9999.jpg", EPS)
        _add(tar, "9999.cls", b"0")
    config = folder_config(tmp_path, dataset="wds/shards", workers=0, validation_batch_size=5)
    val = make_loaders(find_sources(config), config, RGB16, seed=1).val
    # Its reader itself, in this process.
    batches = [batch for batch in val._reader if isinstance(batch, Batch)]
    assert sum(map(len, batches)) == 8
    assert asked == []


def test_images_of_a_stream_are_turned_and_scaled_as_files_are(tmp_path: Path):
    drawn = np.linspace(0, 255, 256).astype(np.uint8).reshape(16, 16)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned, deep = io.BytesIO(), io.BytesIO()
    Image.fromarray(drawn).transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    Image.fromarray(drawn.astype(np.uint16) * 16).save(deep, "PNG")
    write_shards(tmp_path, shards=1)
    with tarfile.open(tmp_path / "validation-0.tar", "w") as tar:
        for number, file in enumerate((turned, deep)):
            _add(tar, f"{number}.png", file.getvalue())
            _add(tar, f"{number}.cls", b"0")
    seen = {}
    for options in ({}, {"exif": "ignore"}, {"pixel_range": "0,4080"}):
        config = folder_config(tmp_path, dataset="wds/shards", workers=1, **options)
        (batch,) = make_loaders(find_sources(config), config, RGB16, seed=1).val
        seen[next(iter(options), "")] = batch.images[:, 0].numpy()
    assert np.array_equal(seen[""][0], drawn)
    assert np.array_equal(seen["exif"][0], np.rot90(drawn))
    assert np.abs(seen[""][1].astype(float) - drawn * (16 * 255 / 65535)).max() <= 0.5
    assert np.array_equal(seen["pixel_range"][1], drawn)
    with pytest.raises(UserError, match="--pixel-range"):
        find_sources(folder_config(tmp_path, dataset="tfds/mnist", pixel_range="0,1"))


@pytest.mark.parametrize(
    "command",
    [["evaluate"], ["bench", "--runtimes", "eager"], ["export", "--to", "onnx"]],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("missing", [True, False])
def test_a_stream_without_images_is_said(
    tmp_path: Path, tiny_teacher: Path, capsys: pytest.CaptureFixture[str], command: list[str], missing: bool
):
    """The readers would go on without a word where a shard is missing."""
    write_shards(tmp_path)
    for shard in tmp_path.glob("validation-*.tar"):
        shard.unlink()
        if not missing:
            tarfile.open(shard, "w").close()
    words = ["--dataset", "wds/x", "--data-dir", str(tmp_path), "--device", "cpu"]
    code, err = main([command[0], str(tiny_teacher), *command[1:], *words]), capsys.readouterr().err
    assert code == 2, err
    (line,) = err.splitlines()
    assert "no images" in line
