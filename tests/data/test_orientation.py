"""EXIF orientation: photographs are seen as a viewer shows them, with the crops of upright files; or as in timm."""

import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from helpers.image_files import RGB16, folder_config, if_read
from isometry.data import find_sources, make_loaders
from isometry.data.decoding import JpegRegion, Reading, open_image, read_pixels
from isometry.data.orientation import INVERSE, TURNS, turn_of, turned_box, turned_size
from isometry.data.transforms import eval_transform, train_transform
from isometry.seeding import seed_cpu_generators

WIDTH, HEIGHT = 800, 600
PIXELS = np.add.outer(np.arange(HEIGHT) * 2, np.arange(WIDTH)) % 251
"""A gradient in which no two neighbouring positions look alike, nor any two corners."""
DRAWN = Image.fromarray(
    np.stack([PIXELS, PIXELS[::-1] // 2, np.full_like(PIXELS, 30)], -1).astype(np.uint8)
).resize((WIDTH, HEIGHT))

CONFIG = folder_config(Path(), color_jitter=0.0)
SPEC = replace(RGB16, input_size=(3, 64, 64))
TRANSFORMS = {
    "random crops": train_transform(CONFIG, SPEC),
    "center": eval_transform(CONFIG, SPEC),
    "center, not square": eval_transform(CONFIG, replace(SPEC, input_size=(3, 48, 64))),
    "squash": eval_transform(CONFIG, replace(SPEC, crop_mode="squash")),
    "border": eval_transform(CONFIG, replace(SPEC, crop_mode="border")),
}


def stored(image: Image.Image, orientation: object, kind: str = "JPEG", **options) -> bytes:
    """A file of pixels that a viewer turns into ``image``."""
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn is not None:
        image = image.transpose(INVERSE.get(turn, turn))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stream = io.BytesIO()
    image.save(stream, kind, exif=exif.tobytes(), **options)
    return stream.getvalue()


def read(data: bytes, **options) -> Image.Image:
    return read_pixels(open_image(io.BytesIO(data)), Reading("RGB", **options))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_is_where_its_pixels_are_after_the_turn(orientation: int):
    turn, numbers = TURNS.get(orientation), np.arange(5 * 7).reshape(5, 7).astype(np.uint8)
    image = Image.fromarray(numbers)
    after = image if turn is None else image.transpose(turn)
    box = (1, 2, 4, 5)
    there = turned_box(box, image.size, turn)
    assert turned_size(image.size, turn) == after.size
    part = image.crop(box) if turn is None else image.crop(box).transpose(turn)
    assert np.array_equal(np.asarray(after.crop(there)), np.asarray(part))
    assert turned_box(there, after.size, turn and INVERSE.get(turn, turn)) == box


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("orientation", range(2, 9))
def test_crops_of_a_turned_photograph_are_those_of_what_a_viewer_shows(orientation: int, name: str):
    data = stored(DRAWN, orientation, quality=95)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    for seed in range(3):
        seen = []
        for image in (read(data), read(data, full=True), shown):
            seed_cpu_generators(seed)
            seen.append(TRANSFORMS[name](image).numpy().astype(int))
        scaled, full, wanted = seen
        assert np.array_equal(full, wanted)
        assert np.abs(scaled - wanted).mean() < 1


def test_a_region_is_decoded_at_a_reduced_scale_and_whole_pixels_are_the_same():
    data = stored(DRAWN, 6)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    region = read(data)
    assert isinstance(region, JpegRegion)
    assert region.size == (WIDTH, HEIGHT)
    part = region.crop((10, 20, 410, 320)).crop((5, 5, 205, 105))
    assert isinstance(part, JpegRegion)
    assert np.array_equal(np.asarray(part), np.asarray(shown)[25:125, 15:215])
    same = region.crop((10, 20, 410, 320)).resize((300, 200), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(same), np.asarray(shown.crop((10, 20, 410, 320)).resize((300, 200))))


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO", if_read("AVIF", "AVIF"), if_read("HEIF", "HEIF")]
)
def test_of_every_format(kind: str):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind not in ("PNG", "TIFF") else {}
    for orientation in range(1, 9):
        data = stored(DRAWN, orientation, kind, **options)
        image = np.asarray(read(data)).astype(int)
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(image - np.asarray(DRAWN)).mean() < 3
        # timm sees what Pillow opens, which turns a TIFF itself, and a HEIC.
        timms = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(np.asarray(read(data, upright=False)), timms)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_metadata_that_mean_nothing_turn_nothing():
    for orientation in (0, 1, 9, 65535):
        assert turn_of(Image.open(io.BytesIO(stored(DRAWN, orientation)))) is None
    for tag in (struct.pack("<HHHII", 1, 274, 3, 9, 99), b"\xff" * 9):
        stream = io.BytesIO()
        DRAWN.save(stream, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + tag)
        assert turn_of(Image.open(stream)) is None
    assert turn_of(DRAWN) is None


def folder(root: Path, orientation: int) -> Path:
    for split in ("train", "val"):
        for name in ("a", "b"):
            path = root / split / name / "0.jpg"
            path.parent.mkdir(parents=True)
            path.write_bytes(stored(DRAWN, orientation, quality=95))
    return root


def test_a_network_gets_photographs_upright_unless_told_not_to(tmp_path: Path):
    root = folder(tmp_path, 6)

    def received(**options) -> np.ndarray:
        config = folder_config(root, **options)
        loaders = make_loaders(find_sources(config), config, replace(RGB16, crop_mode="squash"), seed=1)
        (batch,) = loaders.val
        return batch.images[0].permute(1, 2, 0).numpy().astype(int)

    small = DRAWN.resize((16, 16), Image.Resampling.BICUBIC)
    assert np.abs(received() - np.asarray(small)).mean() < 2
    sideways = small.transpose(Image.Transpose.ROTATE_90)
    assert np.abs(received(exif="ignore") - np.asarray(sideways)).mean() < 2
