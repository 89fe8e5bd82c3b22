"""What a network gets from files of every depth and colour space: what was drawn, in 8 bits; and a quiet console."""

import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.image_files import RGB16, folder_config, png_chunk, write_image, write_png, write_white
from helpers.messages import mentions
from helpers.runs import Ended, run
from isometry.data import find_sources, make_loaders
from isometry.data.image_modes import to_mode
from isometry.errors import UserError

SIDE = 16
GREY16 = replace(RGB16, input_size=(1, SIDE, SIDE), mean=(0.5,), std=(0.25,))

DEEP = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
"""All of the range of 16 bits; only one pixel of them lies below 256."""
GREYS = np.rint(DEEP.astype(np.float64) * (255 / 65535)).astype(np.uint8)
"""The same in 8 bits."""
COLOURS = np.stack([GREYS, GREYS.T, 255 - GREYS], axis=-1)


def received(root: Path, spec=RGB16, **options) -> np.ndarray:
    """The pixels (C, H, W) that a network gets of the first validation image; nothing is resized on the way."""
    config = folder_config(root, val_fraction=0.5, **options)
    loaders = make_loaders(find_sources(config), config, spec, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (batch,) = loaders.val
    assert batch.images.dtype == torch.uint8
    return batch.images[0].numpy()


def put(root: Path, draw: Callable[[Path], object], suffix: str = ".png") -> Path:
    """A folder whose validation part is one image of this file; returns the folder."""
    (root / "val" / "a").mkdir(parents=True)
    draw(root / "val" / "a" / f"0{suffix}")
    for name in ("a", "b"):
        write_image(root / "train" / name / "0.png")
    return root


def saved(image: Image.Image, **options) -> Callable[[Path], object]:
    return lambda path: image.save(path, **options)


def big_endian(values: np.ndarray) -> list[bytes]:
    return [row.astype(">u2").tobytes() for row in values]


DEEP_GREYS = {
    "PNG of 16 bits": (saved(Image.fromarray(DEEP)), ".png"),
    "TIFF of 16 bits": (saved(Image.fromarray(DEEP)), ".tif"),
    "TIFF of 16 bits, packed": (saved(Image.fromarray(DEEP), compression="tiff_lzw"), ".tif"),
    "TIFF of 16 bits, big endian": (saved(Image.fromarray(DEEP.astype(">u2"))), ".tif"),
    "TIFF of 32 bits": (saved(Image.fromarray(DEEP.astype(np.int32))), ".tif"),
    "TIFF of floats": (saved(Image.fromarray((DEEP / 65535).astype(np.float32))), ".tif"),
    "PNG of 16 bits with alpha": (
        lambda path: write_png(
            path, SIDE, SIDE, big_endian(np.stack([DEEP, DEEP], -1).reshape(SIDE, -1)), depth=16, colour=4
        ),
        ".png",
    ),
    "PNG of 16 bits with a transparent grey": (
        lambda path: write_png(
            path, SIDE, SIDE, big_endian(DEEP), depth=16, colour=0, more=png_chunk(b"tRNS", b"\xff\xff")
        ),
        ".png",
    ),
}


@pytest.mark.parametrize("kind", DEEP_GREYS)
def test_greys_of_more_than_8_bits_are_scaled_and_not_cut_off(tmp_path: Path, kind: str):
    root = put(tmp_path, *DEEP_GREYS[kind])
    # Pillow itself cuts 16 bits with alpha down to 8 without rounding.
    most = 1 if kind.endswith("alpha") else 0
    grey = received(root, GREY16)[0].astype(int)
    assert np.abs(grey - GREYS).max() <= most
    assert (grey.min(), grey.max()) == (0, 255)
    colour = received(root).astype(int)
    assert np.abs(colour - GREYS).max() <= most


def test_colours_of_16_bits(tmp_path: Path):
    rows = [row.astype(">u2").tobytes() for row in (COLOURS.astype(int) * 257).reshape(SIDE, -1)]
    root = put(tmp_path, lambda path: write_png(path, SIDE, SIDE, rows, depth=16, colour=2))
    np.testing.assert_array_equal(received(root), COLOURS.transpose(2, 0, 1))


def palette(alpha: bool) -> Image.Image:
    """Every grey level an entry of a palette of colours that is far from grey."""
    image = Image.fromarray(GREYS).convert("P")
    image.putdata(GREYS.reshape(-1).tolist())
    image.putpalette([part for level in range(256) for part in (level, 255 - level, level // 2)])
    if alpha:
        image.info["transparency"] = bytes(range(256))
    return image


def of_palette() -> np.ndarray:
    return np.stack([GREYS, 255 - GREYS, GREYS // 2])


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(Image.fromarray(255 - GREYS))
    return image


PLAIN = COLOURS.transpose(2, 0, 1)
ONE_BIT = np.stack([np.where(GREYS > 127, 255, 0)] * 3)
FORMS = {
    "PNG": (saved(Image.fromarray(COLOURS)), ".png", PLAIN),
    "grey PNG": (saved(Image.fromarray(GREYS)), ".png", np.stack([GREYS] * 3)),
    "PNG of 1 bit": (saved(Image.fromarray(GREYS > 127)), ".png", ONE_BIT),
    "TIFF of 1 bit": (saved(Image.fromarray(GREYS > 127), compression="group4"), ".tif", ONE_BIT),
    "palette": (saved(palette(False)), ".png", of_palette()),
    "palette with alpha": (saved(palette(True)), ".png", of_palette()),
    "palette with a transparent colour": (saved(palette(False), transparency=7), ".png", of_palette()),
    "GIF with a transparent colour": (saved(palette(False), transparency=7), ".gif", of_palette()),
    "RGBA": (saved(with_alpha(Image.fromarray(COLOURS))), ".png", PLAIN),
    "RGBA, WebP": (
        saved(with_alpha(Image.fromarray(COLOURS)), lossless=True, exact=True),
        ".webp",
        PLAIN,
    ),
    "LA": (saved(with_alpha(Image.fromarray(GREYS))), ".png", np.stack([GREYS] * 3)),
    "a transparent colour": (saved(Image.fromarray(COLOURS), transparency=(0, 0, 255)), ".png", PLAIN),
    "CMYK TIFF": (saved(Image.fromarray(COLOURS).convert("CMYK")), ".tif", PLAIN),
}
"""How it is saved, the suffix, and what is shown (3, H, W): of what is transparent, the colour that is stored."""


@pytest.mark.parametrize("kind", FORMS)
def test_a_network_gets_what_was_drawn(tmp_path: Path, kind: str):
    save, suffix, drawn = FORMS[kind]
    root = put(tmp_path, save, suffix)
    np.testing.assert_array_equal(received(root), drawn)
    # ITU-R BT.601, as Pillow and timm have it; Pillow computes in integers.
    luma = np.tensordot([0.299, 0.587, 0.114], drawn.astype(np.float64), axes=1)
    np.testing.assert_allclose(received(root, GREY16)[0], luma, atol=1)


def test_cmyk_jpeg(tmp_path: Path):
    image = Image.new("RGB", (SIDE, SIDE), (200, 30, 60)).convert("CMYK")
    got = received(put(tmp_path, saved(image, quality=100), ".jpg"))
    np.testing.assert_allclose(got.mean(axis=(1, 2)), (200, 30, 60), atol=3)


NAN = np.where(np.eye(4, dtype=bool), np.nan, 0.5).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((4, 4), 70_000, dtype=np.int32), "are 70000 to 70000, outside 0 to 65535 … --pixel-range"),
        (np.full((4, 4), -1, dtype=np.int32), "are -1 to -1, outside 0 to 65535 … --pixel-range"),
        (
            np.full((4, 4), 2.0, dtype=np.float32),
            "are 2 to 2, outside 0 to 1, where 1 is white … --pixel-range",
        ),
        (NAN, "4 of its 16 pixels are NaN or infinite"),
        (np.full((4, 4), np.inf, dtype=np.float32), "16 of its 16 pixels are NaN or infinite"),
    ],
)
def test_greys_outside_the_range_are_refused(values: np.ndarray, said: str):
    with pytest.raises(ValueError, match="its") as caught:
        to_mode(Image.fromarray(values), "RGB")
    assert mentions(str(caught.value), said)
    if "NaN" in said:
        with pytest.raises(ValueError, match="NaN or infinite"):
            to_mode(Image.fromarray(values), "RGB", (0, 1))


RANGES = {
    "12 bits in 16": (DEEP // 16, ".png", "0,4095"),
    "hundredths of a kelvin": ((29000 + DEEP // 32).astype(np.uint16), ".tif", "29000,31047"),
    "Hounsfield units": ((DEEP // 16).astype(np.int32) - 1024, ".tif", "-1024,3071"),
    "floats to 255": ((DEEP / 257).astype(np.float32), ".tif", "0,255"),
}
"""Values, how they are saved, and their black and white."""


@pytest.mark.parametrize("kind", RANGES)
def test_the_range_of_pixels_becomes_black_and_white(tmp_path: Path, kind: str):
    values, suffix, given = RANGES[kind]
    root = put(tmp_path, saved(Image.fromarray(values)), suffix)
    grey = received(root, GREY16, pixel_range=given)[0].astype(int)
    assert np.abs(grey - GREYS).max() <= 1
    assert (grey.min(), grey.max()) == (0, 255)


def test_greys_beyond_the_range_are_clipped_and_other_images_are_left_alone(tmp_path: Path):
    root = put(tmp_path / "deep", saved(Image.fromarray(DEEP)))
    grey = received(root, GREY16, pixel_range="10000,20000")[0]
    scaled = (DEEP.astype(float) - 10000) * 255 / 10000
    np.testing.assert_array_equal(grey, np.rint(scaled.clip(0, 255)).astype(np.uint8))
    root = put(tmp_path / "eight", saved(Image.fromarray(GREYS)))
    np.testing.assert_array_equal(received(root, GREY16, pixel_range="10000,20000")[0], GREYS)


@pytest.mark.parametrize("text", ["", "4095", "0,4095,1", "4095,0", "0,0", "0,inf", "nan,1", "0;1", "wide"])
def test_a_range_that_is_none_is_refused(tmp_path: Path, text: str):
    with pytest.raises(UserError, match="--pixel-range"):
        find_sources(folder_config(tmp_path, pixel_range=text))


def train_on(folder: Path, *words: str) -> Ended:
    """A run in its own process, with loading processes."""
    network = ["--model", "vit_tiny_patch16_224", "--model-kwargs", "patch_size=8", "embed_dim=16", "depth=1"]
    size = ["num_heads=1", "--img-size", "16", "--epochs", "1", "--batch-size", "4", "--device", "cpu"]
    data = ["--data-dir", str(folder / "images"), "--workers", "1", "--out", str(folder / "run")]
    return run("train", *network, *size, *data, *words, said=folder / "said")


def two_classes(images: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        for number in range(6):
            write_image(images / name / f"{number}.png", seed=10 * label + number)


def test_a_run_says_nothing_of_transparency_and_metadata(tmp_path: Path):
    images = tmp_path / "images"
    two_classes(images)
    palette(True).save(images / "dog" / "clear.png")
    # An orientation whose value would lie beyond the end of the metadata.
    cut_short = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 274, 3, 9, 99)
    Image.fromarray(COLOURS).save(images / "dog" / "cut.jpg", exif=cut_short)
    check_quiet(tmp_path)


@pytest.mark.slow
def test_a_run_says_nothing_of_an_image_that_is_large_but_below_pillows_limit(tmp_path: Path):
    images = tmp_path / "images"
    two_classes(images)
    large = write_white(images / "cat" / "large.png", 9460, 9460)
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS < 9460**2 < 2 * Image.MAX_IMAGE_PIXELS
    assert large.stat().st_size < 1e5
    check_quiet(tmp_path)


def check_quiet(folder: Path) -> None:
    ended = train_on(folder)
    assert (ended.code, ended.err) == (0, "")
    assert "unreadable" not in ended.out


def test_a_run_stops_at_a_bad_image_in_one_line_and_goes_on_without_it_when_told_to(tmp_path: Path):
    images = tmp_path / "images"
    two_classes(images)
    bad = [images / "dog" / f"{number}.png" for number in (1, 4)]
    bad[0].write_bytes(b"")
    write_white(bad[1], 30_000, 30_000)
    ended = train_on(tmp_path)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith("isometry: cannot read the image ")
    assert any(str(path) in line for path in bad)
    assert line.endswith("--skip-bad-images")
    ended = train_on(tmp_path, "--skip-bad-images")
    assert (ended.code, ended.err) == (0, "")
    assert mentions(ended.out, f"2 unreadable images … {bad[0]}, {bad[1]}")
