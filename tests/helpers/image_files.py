"""Real image files, made on the spot."""

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from PIL import Image

from isometry.config import DataConfig
from isometry.data import ImageSpec
from isometry.data.image_formats import readable

RGB16 = ImageSpec((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), crop_pct=1.0)
GREY8 = ImageSpec((1, 8, 8), (0.5,), (0.25,), crop_pct=1.0)

DIGITS = DataConfig(dataset="digits", workers=0, batch_size=100, aa="rand-m9-mstd0.5-inc1")
"""All three global generators are drawn from: Python's, NumPy's, and torch's (the flip)."""


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\nshowpage\n%%EOF\n"
"""PostScript, which Pillow would give to Ghostscript."""


def write_image(path: Path, seed: int = 0) -> Path:
    """20×24 random pixels in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_classes(folder: Path, classes: dict[str, int], suffix: str = ".png") -> Path:
    """One folder per class with so many images."""
    for label, (name, count) in enumerate(classes.items()):
        for number in range(count):
            write_image(folder / name / f"{number}{suffix}", seed=100 * label + number)
    return folder


def if_read(name: str, value: str) -> ParameterSet:
    """A parameter of tests that need a format which is not read everywhere."""
    return pytest.param(
        value, marks=pytest.mark.skipif(name not in readable(), reason=f"{name} is not read here")
    )


def truncate(path: Path) -> Path:
    """Cuts a file in half, as a broken download does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def folder_config(data_dir: Path, **overrides: Any) -> DataConfig:
    """The configuration of a small image folder."""
    return DataConfig(**{"data_dir": str(data_dir), "workers": 0, "batch_size": 4, **overrides})


def write_png(
    path: Path, width: int, height: int, rows: Iterable[bytes], *, depth: int, colour: int, more: bytes = b""
) -> Path:
    """A PNG by its specification (W3C 2003), for what Pillow reads and can't write, and what would not fit in memory.

    ``depth`` bits a channel; ``colour`` 0 (grey), 2 (RGB), 4 (grey, alpha); ``more`` whole chunks before the pixels.
    """
    pack = zlib.compressobj(1)
    pixels = b"".join([*(pack.compress(b"\0" + row) for row in rows), pack.flush()])
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + more + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_white(path: Path, width: int, height: int) -> Path:
    """A white PNG of one bit a pixel: however large, a file of some kilobytes."""
    row = b"\xff" * -(-width // 8)
    return write_png(path, width, height, (row for _ in range(height)), depth=1, colour=0)


def not_regular(folder: Path, name: str) -> tuple[Path, Path]:
    """A pipe that nobody writes to, and a link to a device that never ends, in folders of their own."""
    pipe, device = folder / "pipe" / name, folder / "device" / name
    for path in (pipe, device):
        path.parent.mkdir()
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    return pipe, device


def make_unreadable(path: Path) -> Path:
    """Takes the right to read a file away; from root, who reads everything, the file itself, behind a link."""
    if os.geteuid():
        path.chmod(0)
    else:
        path.unlink()
        path.symlink_to(path.with_name("gone"))
    return path


def broken_tiff() -> bytes:
    """A TIFF of 2×2 grey pixels that says where they are with a float."""
    tags = [
        (256, 3, 2),
        (257, 3, 2),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 11, 8),
        (277, 3, 1),
        (279, 4, 4),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return struct.pack("<2sHIIH", b"II", 42, 12, 0, len(tags)) + entries + struct.pack("<I", 0)


def broken_dds() -> bytes:
    """A DDS texture of no pixel format."""
    return b"DDS " + struct.pack("<IIIIIII", 124, 0x1007, 4, 4, 0, 0, 0) + bytes(96)
