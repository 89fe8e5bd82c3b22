"""The image formats that are read, by their content; every picture is opened here.

Pillow alone would try all that it knows on any file: a PostScript file named x.png starts Ghostscript.
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError, features
from PIL.ImageFile import ImageFile

from isometry.data.splits import DECODE_ERRORS
from isometry.files import check_regular

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
}
"""Pillow's formats, and the endings of their files."""

LATER_ENDINGS = ((*FORMATS["AVIF"], *FORMATS["HEIF"]), (".jfif", ".jpe"))
"""Endings that the first version did not read, in the order in which later ones began to."""


def _heif_is_installed() -> bool:
    try:
        import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


OPTIONAL: dict[str, tuple[Callable[[], bool], str]] = {
    "WEBP": (lambda: bool(features.check("webp")), "a Pillow that reads WebP"),
    "AVIF": (lambda: bool(features.check("avif")), "a Pillow that reads AVIF: pip install -U pillow"),
    "HEIF": (_heif_is_installed, "pip install pillow-heif"),
}
"""Formats that are not read everywhere: whether they are, and what they need."""

BRANDS = {"AVIF": (b"avif", b"avis"), "HEIF": (b"heic", b"heix", b"heim", b"heis", b"mif1")}
"""What files of optional formats say of themselves, four bytes after ``ftyp`` (ISO/IEC 23008-12, AV1 Image File
Format): telephones' HEICs are often called x.jpg."""


@cache
def readable() -> dict[str, tuple[str, ...]]:
    """The formats that are read here, and their endings."""
    return {name: endings for name, endings in FORMATS.items() if name not in OPTIONAL or OPTIONAL[name][0]()}


@cache
def readable_endings() -> frozenset[str]:
    """The endings of the files that are taken for images, in lower case."""
    return frozenset(ending for endings in readable().values() for ending in endings)


def read_since(ending: str) -> int:
    """0 for an ending that every version reads; else the place in :data:`LATER_ENDINGS`, from 1."""
    return next((place for place, endings in enumerate(LATER_ENDINGS, start=1) if ending in endings), 0)


def needed_for(ending: str) -> str:
    """What to install to read files of an ending; empty where nothing helps."""
    return next(
        (
            OPTIONAL[name][1]
            for name, endings in FORMATS.items()
            if ending in endings and name not in readable()
        ),
        "",
    )


def open_picture(stream: IO[bytes]) -> ImageFile:
    """An image of one of the formats that are read, not decoded yet; raises one of ``splits.DECODE_ERRORS``."""
    try:
        return Image.open(stream, formats=tuple(readable()))
    except UnidentifiedImageError:
        stream.seek(0)
        start = stream.read(12)
        for name, brands in BRANDS.items():
            if start[4:8] == b"ftyp" and start[8:] in brands and name not in readable():
                raise ValueError(f"of the format {name}, which needs {OPTIONAL[name][1]}") from None
        raise


def is_picture(path: str | Path) -> bool:
    """Whether a file has the content of an image that is read, whatever its name; decodes nothing."""
    try:
        check_regular(os.stat(path))
        with open(path, "rb") as file:
            open_picture(file)
    except DECODE_ERRORS:
        return False
    return True


def read_bytes(path: str | Path) -> io.BytesIO:
    """The content of an image file.

    Raises:
        OSError: it can't be read.
        ValueError: it is no regular file.
    """
    check_regular(os.stat(path))
    with open(path, "rb") as file:
        return io.BytesIO(file.read())


@contextmanager
def these_formats_only() -> Iterator[None]:
    """For libraries that open pictures themselves: inside the block, Pillow tries no other format."""
    Image.init()
    formats = readable()  # may make a format known to Pillow
    known = Image.ID.copy()
    Image.ID[:] = [name for name in known if name in formats]
    try:
        yield
    finally:
        Image.ID[:] = known
