"""A look at every image file of a data set, by its header: sizes, modes, formats, turns, and exact duplicates.

Pixels are decoded in a sample alone, since decoding takes a hundred times as long.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isometry.data.decoding import DecodeError, decode_errors, open_image
from isometry.data.image_files import ImageFiles
from isometry.data.image_formats import open_picture, read_bytes
from isometry.data.image_modes import check_size
from isometry.data.orientation import turn_of
from isometry.data.sources import Sources
from isometry.data.splits import UNLABELLED, MapPart
from isometry.errors import UserError
from isometry.files import check_regular, sha256_of

DECODED = 500
"""Most images whose pixels are decoded, at equal distances."""

ENDS = 4096
"""Bytes at both ends of a file by which duplicates are told apart before they are read in full."""


@dataclass(frozen=True)
class FileFacts:
    """What is known of an image file; ``fault`` says why it can't be read, if it can't, and the rest is empty then.

    ``label`` is UNLABELLED without labels; ``bytes`` is the file's size; ``turned``: by its EXIF orientation.
    """

    path: str
    split: str
    label: int
    bytes: int = 0
    format: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    turned: bool = False
    fault: str = ""


@dataclass(frozen=True)
class FileSurvey:
    """What a look at all files found.

    ``files`` are in the order of the splits; ``decoded`` of them were decoded in full; ``duplicates`` are files of
    equal content, at least two each.
    """

    files: Sequence[FileFacts]
    decoded: int
    duplicates: Sequence[Sequence[FileFacts]]

    @property
    def readable(self) -> list[FileFacts]:
        """The files without a fault."""
        return [file for file in self.files if not file.fault]

    def duplicates_across(self, name: str) -> list[Sequence[FileFacts]]:
        """The duplicates that differ in ``split``, or in ``label``."""
        return [group for group in self.duplicates if len({getattr(file, name) for file in group}) > 1]


def survey_files(sources: Sources) -> FileSurvey:
    """Looks at all files of all splits.

    Raises:
        UserError: the data are no image files.
    """
    parts = {"train": sources.train, "val": sources.val, "test": sources.test}
    listed: list[FileFacts] = []
    for split, part in parts.items():
        if part is not None:
            if not isinstance(part, MapPart) or not isinstance(part.images, ImageFiles):
                raise UserError("--data: looks at image files; name their folder or list with --data-dir")
            listed += _listed(split, part, part.images)
    step = max(1, -(-len(listed) // DECODED))
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        files = list(pool.map(_look, listed, (number % step == 0 for number in range(len(listed)))))
    return FileSurvey(files, len(range(0, len(listed), step)), list(duplicates(files)))


def _listed(split: str, part: MapPart, images: ImageFiles) -> Iterator[FileFacts]:
    numbers = range(len(images)) if part.numbers is None else part.numbers
    for number in numbers:
        path, label = images.files[int(number)]
        yield FileFacts(path, split, label if part.relabel is None else part.relabel.get(label, UNLABELLED))


def _look(file: FileFacts, decodes: bool) -> FileFacts:
    place = (file.path, file.split, file.label)
    try:
        with decode_errors():
            if decodes:
                open_image(read_bytes(file.path)).load()
            with open(file.path, "rb", opener=_without_waiting) as stream:
                status = os.fstat(stream.fileno())
                check_regular(status)
                image = open_picture(stream)
                check_size(image)
                # For the EXIF after a PNG's pixels, Pillow would decode them.
                turned = (image.format != "PNG" or "exif" in image.info) and turn_of(image) is not None
                return FileFacts(*place, status.st_size, image.format or "", image.mode, image.size, turned)
    except DecodeError as error:
        return FileFacts(*place, fault=str(error))


def _without_waiting(path: str, flags: int) -> int:
    """Opens a pipe too at once, which is refused then."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def duplicates(files: Iterable[FileFacts]) -> Iterator[list[FileFacts]]:
    """The groups of files without a fault that have equal content: equal size, then equal ends, then equal SHA-256."""
    readable = [file for file in files if not file.fault]
    for same_size in _alike(readable, lambda file: file.bytes):
        for same_ends in _alike(same_size, _ends):
            yield from _alike(same_ends, lambda file: sha256_of(Path(file.path)))


def _alike(files: Iterable[FileFacts], key: Callable[[FileFacts], Any]) -> Iterator[list[FileFacts]]:
    """The groups of two files and more with equal keys."""
    groups: dict[Any, list[FileFacts]] = defaultdict(list)
    for file in files:
        groups[key(file)].append(file)
    yield from (group for group in groups.values() if len(group) > 1)


def _ends(file: FileFacts) -> bytes:
    with open(file.path, "rb") as stream:
        start = stream.read(ENDS)
        stream.seek(max(0, file.bytes - ENDS))
        return start + stream.read(ENDS)
