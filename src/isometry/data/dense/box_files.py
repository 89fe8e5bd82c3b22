"""Picture files with boxes, checked and brought into the pixels of each picture as it is read."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from isometry.data.decoding import open_image
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.findings import Findings, shown
from isometry.data.dense.pictures import TAKEN_AS_UPRIGHT, Picture, Size, look
from isometry.data.image_formats import read_bytes
from isometry.data.orientation import Turn, turned_box
from isometry.errors import printable

ROUNDING = 0.5
"""Pixels by which a box may reach out of its picture without a word."""


@dataclass(frozen=True)
class Annotated:
    """A picture's path, its boxes, and the size (width, height) of the picture that they are of.

    ``size`` is None where it isn't given, and boxes with ``shares`` are in shares of the upright picture's sides;
    ``names`` say where each box stands in the file ``place``, for messages; in that of the picture where there is none.
    """

    path: str
    boxes: Boxes
    names: Sequence[str]
    place: str = ""
    size: Size | None = None
    shares: bool = False


class BoxFiles:
    """Picture files by number, with boxes in pixels of the picture as it is read."""

    def __init__(self, files: Sequence[tuple[str, Boxes]]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def load(self, number: int) -> tuple[Image.Image, Boxes]:
        """A picture, perhaps not decoded yet, and its boxes; raises one of ``splits.DECODE_ERRORS``."""
        path, boxes = self.files[number]
        return open_image(read_bytes(path)), boxes

    def where(self, number: int) -> str:
        """The picture's path, printable."""
        return printable(self.files[number][0])

    def boxes(self, number: int) -> Boxes:
        """The boxes of a picture."""
        return self.files[number][1]

    def annotation_id(self, number: int) -> str:
        """A fingerprint of the boxes."""
        boxes = self.files[number][1]
        values = b"".join(each.tobytes() for each in (boxes.xyxy, boxes.labels, boxes.crowd, boxes.areas))
        return hashlib.blake2b(values, digest_size=8).hexdigest()


def checked_boxes(annotated: Iterable[Annotated], upright: bool, findings: Findings) -> BoxFiles:
    """The pictures with their boxes; looks at the header of each.

    Boxes are turned along with pictures whose EXIF orientation turns them (see :meth:`Picture.turn_for`), and clipped
    to them. Boxes of no area or outside the picture are left out, and pictures of another size than the annotations
    say. A picture whose header can't be read stays, and is an error when it is read, as in classification.
    """
    listed = list(annotated)
    files = []
    for each, picture in zip(listed, look([each.path for each in listed]), strict=True):
        if picture.fault:
            findings.add("pictures that can't be read", f"{each.path} ({picture.fault})")
            files.append((each.path, each.boxes.chosen(np.zeros(len(each.boxes), bool))))
            continue
        known = each.size in (None, picture.size, picture.read_size(upright=True))
        if not known and each.size is not None:
            said, found = (f"{shown(width)}×{shown(height)}" for width, height in (each.size, picture.size))
            findings.add(
                "pictures left out (of another size than their annotations say)",
                f"{each.path} ({found}, not {said})",
            )
            continue
        files.append((each.path, _checked(each, picture, upright, findings)))
    return BoxFiles(files)


@np.errstate(over="ignore", invalid="ignore")  # numbers beyond float32 are infinite, and of no area
def _checked(each: Annotated, picture: Picture, upright: bool, findings: Findings) -> Boxes:
    boxes, size = each.boxes, picture.read_size(upright)
    turn = picture.turn_for(each.size, upright)
    annotated_size = picture.read_size(upright if turn is None else not upright)
    corners = boxes.xyxy.astype(np.float64)
    areas = boxes.areas
    if each.shares:
        corners = corners * (annotated_size * 2)
        areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    if len(boxes) and picture.hides_turn(each.size):
        findings.add(TAKEN_AS_UPRIGHT.format("boxes"), each.path)
    if turn is not None and len(boxes):
        findings.add("pictures whose boxes were turned along with them (EXIF)", each.path)
        corners = turned_corners(corners, annotated_size, turn)
    clipped = corners.clip(0, size * 2)
    beyond = (np.abs(clipped - corners) > ROUNDING).any(1)
    empty = ~(corners[:, 2:] > corners[:, :2]).all(1) | ~np.isfinite(corners).all(1)
    outside = ~empty & ~(clipped[:, 2:] > clipped[:, :2]).all(1)
    for which, reason in (
        (empty, "boxes left out (of no area)"),
        (outside, "boxes left out (outside their picture)"),
        (beyond & ~empty & ~outside, "boxes clipped (they reach out of their picture)"),
    ):
        if which.any():
            findings.add(
                reason, f"{each.names[int(which.argmax())]} of {each.place or each.path}", int(which.sum())
            )
    kept = ~(empty | outside)
    inside = (clipped[:, 2:] - clipped[:, :2]).prod(1)
    impossible = ~empty & ~outside & ~np.isfinite(areas)
    if impossible.any():
        where = f"{each.names[int(impossible.argmax())]} of {each.place or each.path}"
        findings.add("areas that are not finite (taken from the boxes)", where, int(impossible.sum()))
    areas = np.where(beyond | impossible | ~(areas > 0), inside, areas)
    return Boxes.of(clipped[kept], boxes.labels[kept], boxes.crowd[kept], areas[kept])


def turned_corners(corners_M4: np.ndarray, size: Size, turn: Turn) -> np.ndarray:
    """Boxes (M,4) of a picture of this size, after a turn of the picture."""
    left, top, right, bottom = corners_M4.T
    return np.stack(turned_box((left, top, right, bottom), size, turn), axis=1)
