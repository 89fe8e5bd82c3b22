"""JPEGs decoded at a reduced scale: the same crops as of full decoding, and nearly the same pixels."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from helpers.image_files import folder_config, truncate
from isometry.data import ImageSpec, decoding, find_sources, make_loaders
from isometry.data.decoding import MARGIN, JpegRegion, Reading, open_image, read_pixels
from isometry.data.transforms import Transform, eval_transform, train_transform
from isometry.errors import UserError
from isometry.seeding import seed_cpu_generators

SIDE = 64
RGB = ImageSpec((3, SIDE, SIDE), (0.5,) * 3, (0.25,) * 3)
FARTHEST = 1.0
"""Mean difference of a pixel, of 255. A box rounded to whole pixels of the reduced image is several times farther."""


def photograph(name: str = "china.jpg", factor: int = 2) -> Image.Image:
    """A photograph of scikit-learn's, enlarged, with a sensor's noise: 1280×854 pixels."""
    image = Image.fromarray(load_sample_image(name))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, 4, (image.height, image.width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **{"format": "JPEG", "quality": 90, **options})
    return stream.getvalue()


PHOTOGRAPH = photograph()
KINDS = {
    "colour": jpeg(PHOTOGRAPH),
    "4:4:4": jpeg(PHOTOGRAPH, subsampling=0),
    "progressive": jpeg(PHOTOGRAPH, progressive=True),
    "grey": jpeg(PHOTOGRAPH.convert("L")),
    "CMYK": jpeg(PHOTOGRAPH.convert("CMYK")),
    "portrait": jpeg(PHOTOGRAPH.transpose(Image.Transpose.ROTATE_90)),
    "of several pictures": jpeg(PHOTOGRAPH, format="MPO", save_all=True, append_images=[PHOTOGRAPH]),
    "of odd sizes": jpeg(PHOTOGRAPH.crop((0, 0, 1013, 761))),
}
"""Kinds of JPEG files."""


def training(**options) -> Transform:
    return train_transform(folder_config(Path(), color_jitter=0.0, **options), RGB)


def evaluation(crop_mode: str, size: tuple[int, int] = (SIDE, SIDE)) -> Transform:
    return eval_transform(folder_config(Path()), replace(RGB, input_size=(3, *size), crop_mode=crop_mode))


TRANSFORMS = {
    "random resized crop": training(),
    "lanczos": training(train_interpolation="lanczos"),
    "nearest": training(train_interpolation="nearest"),
    "box": training(train_interpolation="box"),
    "rkrc": training(train_crop_mode="rkrc"),
    "rkrr": training(train_crop_mode="rkrr"),
    "pad": training(train_crop_mode="pad"),
    "no augmentation": training(no_aug=True),
    "center": evaluation("center"),
    "center, not square": evaluation("center", (SIDE, 80)),
    "squash": evaluation("squash"),
    "border": evaluation("border"),
}


def pixels(transform: Transform, data: bytes, *, full: bool, seed: int = 0, mode: str = "RGB") -> np.ndarray:
    image = read_pixels(open_image(io.BytesIO(data)), Reading(mode, full=full))
    seed_cpu_generators(seed)
    return transform(image).numpy().astype(float)


def mean_distance(transform: Transform, data: bytes, **options) -> float:
    """The mean difference of a pixel between the two ways of decoding, the largest of three crops."""
    return max(
        np.abs(
            pixels(transform, data, full=False, seed=seed, **options)
            - pixels(transform, data, full=True, seed=seed, **options)
        ).mean()
        for seed in range(3)
    )


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The scales at which files are decoded from now on."""
    seen: list[int] = []
    decode = decoding._JpegFile.decode
    monkeypatch.setattr(
        decoding._JpegFile, "decode", lambda file, scale: (seen.append(scale), decode(file, scale))[1]
    )
    return seen


@pytest.mark.parametrize("name", TRANSFORMS)
def test_crops_are_the_same_and_pixels_nearly(name: str, scales: list[int]):
    transform, data = TRANSFORMS[name], KINDS["colour"]
    assert mean_distance(transform, data) < FARTHEST
    assert len(scales) == 3
    assert (max(scales) > 1) == (name not in ("nearest", "box"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
def test_of_every_kind_of_jpeg(kind: str, mode: str, scales: list[int]):
    assert mean_distance(TRANSFORMS["random resized crop"], KINDS[kind], mode=mode) < FARTHEST
    assert max(scales) > 1


def test_a_box_that_is_off_by_less_than_a_reduced_pixel_would_be_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "MARGIN", 1)
    transform = TRANSFORMS["random resized crop"]
    resize = Image.Image.resize

    def rounded(image, size, resample=None, box=None, gap=None):
        return resize(image, size, resample, box and tuple(map(round, box)), gap)

    monkeypatch.setattr(Image.Image, "resize", rounded)
    assert mean_distance(transform, KINDS["colour"]) > 2 * FARTHEST


def test_noise_differs_by_less_than_four_levels():
    noise = np.random.default_rng(0).integers(0, 256, (960, 1280, 3), dtype=np.uint8)
    assert mean_distance(TRANSFORMS["random resized crop"], jpeg(Image.fromarray(noise))) < 4


def test_full_decoding_is_timms(tmp_path: Path):
    path = tmp_path / "photograph.jpg"
    path.write_bytes(KINDS["colour"])
    for transform in TRANSFORMS.values():
        seed_cpu_generators(1)
        timms = transform(Image.open(path).convert("RGB")).numpy()
        assert np.array_equal(pixels(transform, KINDS["colour"], full=True, seed=1), timms)


def test_a_photograph_of_less_than_twice_the_size_is_decoded_in_full():
    data = jpeg(PHOTOGRAPH.resize((4 * SIDE - 1, 4 * SIDE - 1)))
    for transform in TRANSFORMS.values():
        for seed in range(3):
            same = (pixels(transform, data, full=full, seed=seed) for full in (False, True))
            assert np.array_equal(*same)


@pytest.mark.parametrize("side", [1, 2, 7, 16, 31, 32, 33, 100, 320, 426, 427, 512])
def test_the_scale_is_the_smallest_that_leaves_the_margin(side: int, scales: list[int]):
    region = read_pixels(open_image(io.BytesIO(KINDS["colour"])), Reading("RGB"))
    assert region.resize((side, side // 2 + 1)).size == (side, side // 2 + 1)
    (scale,) = scales
    fits = [
        one for one in (1, 2, 4, 8) if 854 / one >= MARGIN * (side // 2 + 1) and 1280 / one >= MARGIN * side
    ]
    assert scale == max(fits, default=1)


def test_anything_else_sees_the_image_in_full():
    whole = np.asarray(Image.open(io.BytesIO(KINDS["colour"])))
    region = read_pixels(open_image(io.BytesIO(KINDS["colour"])), Reading("RGB"))
    assert isinstance(region, JpegRegion)
    part = region.crop((100, 50, 300, 250))
    assert isinstance(part, JpegRegion)
    assert np.array_equal(np.asarray(part.crop((10, 20, 30, 40))), whole[70:90, 110:130])
    assert np.array_equal(np.asarray(part), whole[50:250, 100:300])
    assert np.array_equal(np.asarray(region.convert("L")), np.asarray(Image.fromarray(whole).convert("L")))
    outside = Image.fromarray(whole).crop((-5, -5, 2000, 20))
    assert np.array_equal(np.asarray(region.crop((-5, -5, 2000, 20))), np.asarray(outside))
    # Once it is decoded, it is an ordinary image.
    assert np.array_equal(
        np.asarray(region.crop((1, 1, 9, 9)).resize((4, 4))),
        np.asarray(Image.fromarray(whole).crop((1, 1, 9, 9)).resize((4, 4))),
    )
    assert np.array_equal(
        np.asarray(part.resize((5, 5), box=(0, 0, 10, 10))),
        np.asarray(Image.fromarray(whole[50:250, 100:300]).resize((5, 5), box=(0, 0, 10, 10))),
    )


def photographs(root: Path) -> Path:
    for number, kind in enumerate(("colour", "progressive", "grey", "portrait")):
        for name in ("a", "b"):
            folder = root / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(KINDS[kind])
    return root


def batches(root: Path, **options) -> list[torch.Tensor]:
    config = folder_config(root, val_fraction=0.25, aa="rand-m9-mstd0.5-inc1", batch_size=3, **options)
    loaders = make_loaders(find_sources(config), config, RGB, seed=1)
    read = [batch.images for batch in (*loaders.train.epoch(0), *loaders.val)]
    loaders.close()
    return read


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def test_batches_are_the_same_for_any_number_of_workers(tmp_path: Path):
    root = photographs(tmp_path)
    alone = batches(root)
    assert equal(alone, batches(root, workers=2))
    full = batches(root, decode="full")
    assert not equal(alone, full)
    assert all(one.shape == other.shape for one, other in zip(alone, full, strict=True))


def test_a_truncated_photograph_is_named_or_replaced(tmp_path: Path):
    root = photographs(tmp_path)
    broken = truncate(root / "a" / "0.jpg")
    config = folder_config(root, val_fraction=0.25, batch_size=6)
    loaders = make_loaders(find_sources(config), config, RGB, seed=1)
    with pytest.raises(UserError) as caught:
        list((*loaders.train.epoch(0), *loaders.val))
    assert str(broken) in str(caught.value)
    assert "--skip-bad-images" in str(caught.value)
    skipping = replace(config, skip_bad_images=True)
    loaders = make_loaders(find_sources(skipping), skipping, RGB, seed=1)
    read = list((*loaders.train.epoch(0), *loaders.val))
    assert [name for batch in read for name in batch.unreadable] == [str(broken)]
    assert sum(map(len, read)) == 8


def test_image_folders_of_torchvision_are_decoded_alike(tmp_path: Path, scales: list[int]):
    for part in ("train", "val"):
        photographs(tmp_path / part)
    assert equal(batches(tmp_path), batches(tmp_path, dataset="torch/image_folder"))
    assert scales.count(1) < len(scales) / 2
