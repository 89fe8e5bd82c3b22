"""HEIC as telephones write it, and AVIF: orientation, depth, primary image, names, damage, data loading processes."""

import io
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from helpers.image_files import RGB16, folder_config, if_read, truncate, write_classes
from helpers.messages import mentions
from helpers.runs import run
from isometry.cli.main import main
from isometry.data import find_sources, make_loaders
from isometry.data.decoding import DecodeError, Reading, decode_errors, open_image, read_pixels
from isometry.data.image_formats import readable, readable_endings, these_formats_only
from isometry.data.orientation import INVERSE, TURNS
from isometry.data.survey import survey

KINDS = [if_read("AVIF", "AVIF"), if_read("HEIF", "HEIF")]
ENDINGS = {"AVIF": ".avif", "HEIF": ".heic"}
HEIF = pytest.mark.skipif("HEIF" not in readable(), reason="HEIF is not read here")

WIDTH, HEIGHT = 80, 60
GREYS = np.add.outer(np.arange(HEIGHT) * 2, np.arange(WIDTH))
DRAWN = np.stack([GREYS, GREYS[::-1] // 2, np.full_like(GREYS, 30)], -1).astype(np.uint8)
"""A gradient of which no two corners look alike."""


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **{"quality": 95, **options})
    return stream.getvalue()


def read(data: bytes, mode: str = "RGB", **options) -> np.ndarray:
    with decode_errors():
        image = open_image(io.BytesIO(data))
    return np.asarray(read_pixels(image, Reading(mode, **options))).astype(int)


def is_drawn(pixels: np.ndarray) -> bool:
    return pixels.shape == DRAWN.shape and np.abs(pixels - DRAWN).mean() < 3


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags.tobytes()


def turned(kind: str, orientation: int) -> bytes:
    """A photograph that a viewer shows as it was drawn."""
    turn = TURNS.get(orientation)
    pixels = DRAWN if turn is None else np.asarray(Image.fromarray(DRAWN).transpose(INVERSE.get(turn, turn)))
    return encoded(pixels, kind, exif=exif(orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_a_photograph_is_turned_once(kind: str, orientation: int):
    data = turned(kind, orientation)
    if orientation > 1:
        assert b"irot" in data or b"imir" in data
    assert is_drawn(read(data))
    # pillow-heif turns it itself; Pillow tells an AVIF's turn by EXIF.
    assert is_drawn(read(data, upright=False)) == (kind == "HEIF" or orientation == 1)


@HEIF
def test_exif_beside_a_heics_own_orientation_turns_nothing():
    """By ISO/EC 23008-12 the boxes alone say how an image is turned; some programs leave EXIF's tag behind."""
    own = encoded(DRAWN, "HEIF", exif=exif(1))
    both = own.replace(exif(1), exif(6))
    assert both != own
    assert is_drawn(read(both))


@HEIF
@pytest.mark.parametrize("mode", ["RGB;16", "I;16"])
def test_ten_bits(mode: str):
    import pillow_heif

    eight = DRAWN if mode == "RGB;16" else DRAWN[:, :, 0]
    file = pillow_heif.from_bytes(mode, (WIDTH, HEIGHT), (eight.astype(np.uint16) * 257).tobytes())
    stream = io.BytesIO()
    file.save(stream, quality=-1, chroma=444)
    assert Image.open(stream).info["bit_depth"] == 10
    wanted = DRAWN if mode == "RGB;16" else np.stack([eight] * 3, -1)
    assert np.abs(read(stream.getvalue()) - wanted).max() <= 1


@HEIF
def test_of_a_burst_the_primary_image_is_read():
    first, second = Image.fromarray(255 - DRAWN), Image.fromarray(DRAWN)
    stream = io.BytesIO()
    first.save(stream, "HEIF", quality=95, save_all=True, append_images=[second], primary_index=1)
    assert is_drawn(read(stream.getvalue()))


@pytest.mark.parametrize("kind", KINDS)
def test_transparency_is_dropped(kind: str):
    alpha = np.full((HEIGHT, WIDTH, 1), 9, dtype=np.uint8)
    assert is_drawn(read(encoded(np.concatenate([DRAWN, alpha], -1), kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_common_brand_of_both_is_told_apart(kind: str):
    """``mif1`` is any coding in the container; the codings are told after it."""
    data = encoded(DRAWN, kind)
    common = data[:8] + b"mif1" + data[12:]
    with decode_errors():
        assert open_image(io.BytesIO(common)).format == kind
    assert is_drawn(read(common))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_and_never_a_crash(kind: str):
    data, draw = turned(kind, 6), random.Random(1)
    faults = []
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(draw.choice([1, 2, 5])):
            damaged[draw.randrange(len(data) if draw.random() < 0.5 else 500)] = draw.randrange(256)
        try:
            read(bytes(damaged))
        except DecodeError as error:
            faults.append(str(error))
    assert 0 < len(faults) < 300
    assert not any("\n" in fault for fault in faults)
    for length in range(0, len(data), 7):
        with pytest.raises(DecodeError):
            read(data[:length])


def folder(root: Path, kind: str, suffix: str, each: int = 3) -> Path:
    """Turned photographs of two classes, a dark and a light one."""
    for split in ("train", "val"):
        for name, pixels in {"dark": DRAWN // 4, "light": 255 - DRAWN // 4}.items():
            place = root / split / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(each):
                shade = np.uint8(number + each * (split == "val"))
                data = encoded(pixels + shade, kind, exif=exif(6))
                (place / f"{number}{suffix}").write_bytes(data)
    return root


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".heic", ".avif", ".jpg"])
def test_the_content_tells_the_format_whatever_the_name(tmp_path: Path, kind: str, suffix: str):
    if suffix not in readable_endings():
        pytest.skip(f"{suffix} is no image here")
    config = folder_config(folder(tmp_path, kind, suffix), validation_batch_size=9)
    (batch,) = make_loaders(find_sources(config), config, RGB16, seed=1).val
    light = batch.images.float().mean(dim=(1, 2, 3)) > 128
    assert light.tolist() == [False] * 3 + [True] * 3


@HEIF
def test_a_jpeg_that_is_called_heic(tmp_path: Path):
    for split in ("train", "val"):
        write_classes(tmp_path / split, {"cat": 2, "dog": 2}, ".jpg")
        for path in (tmp_path / split).rglob("*.jpg"):
            path.rename(path.with_suffix(".HEIC"))
    config = folder_config(tmp_path)
    (batch,) = make_loaders(find_sources(config), config, RGB16, seed=1).val
    assert batch.targets.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_data_loading_processes_read_what_one_process_reads(tmp_path: Path, kind: str):
    root = folder(tmp_path, kind, ENDINGS[kind], each=8)
    # The look at a sample decodes before processes are forked.
    assert survey(find_sources(folder_config(root)).train).unreadable == 0
    batches = []
    for workers in (0, 2):
        config = folder_config(root, workers=workers, batch_size=2)
        loaders = make_loaders(find_sources(config), config, RGB16, seed=1)
        batches.append([batch.images for batch in (*loaders.train.epoch(0), *loaders.val)])
    assert len(batches[0]) >= 8
    for one, two in zip(*batches, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


@HEIF
def test_a_library_that_opens_pictures_itself_opens_heic_from_the_first_one_on(tmp_path: Path):
    data = encoded(DRAWN, "HEIF")
    Image.ID.remove("HEIF")  # as before anything was read
    readable.cache_clear()
    with these_formats_only():
        assert Image.open(io.BytesIO(data)).format == "HEIF"
    assert Image.open(io.BytesIO(data)).format == "HEIF"


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_on_a_folder(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]):
    suffix = ENDINGS[kind]
    root = folder(tmp_path, kind, suffix)
    truncate(root / "val" / "dark" / f"1{suffix}")
    shutil.copy(root / "train" / "dark" / f"0{suffix}", root / "val" / "dark" / f"copy{suffix}")
    assert main(["check", "--data", "--data-dir", str(root)]) == 0
    text = capsys.readouterr().out
    for words in (
        f"Formats  {kind} 12",
        "Modes  RGB 12",
        # As many as --exif turns: pillow-heif turns a HEIC itself.
        f"Turned  {0 if kind == 'HEIF' else 12} by their EXIF orientation",
        "largest 60×80" if kind == "HEIF" else "largest 80×60",
        f"Unreadable  1: … dark/1{suffix} (",
        "1 in several splits",
    ):
        assert mentions(text, words), words


@pytest.mark.slow
def test_a_run_is_trained_and_evaluated(tmp_path: Path):
    for kind in ENDINGS.keys() & readable().keys():
        root = folder(tmp_path / "photos", kind, ENDINGS[kind], each=4)
    trained = run(
        *("train", "--data-dir", str(root), "--out", str(tmp_path / "out"), "--model", "cifar_resnet20"),
        *("--img-size", "16", "--epochs", "4", "-b", "4", "--device", "cpu", "--workers", "2", "--no-aug"),
        said=tmp_path / "1",
    )
    assert trained.code == 0, trained.err
    evaluated = run("evaluate", str(tmp_path / "out"), said=tmp_path / "2")
    assert evaluated.code == 0, evaluated.err
    assert "100.0" in evaluated.out, evaluated.out
