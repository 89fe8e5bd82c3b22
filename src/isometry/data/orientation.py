"""EXIF orientation: how an image is turned upright, and where its pixels are then."""

from PIL import ExifTags, Image

from isometry.data.splits import DECODE_ERRORS

Turn = Image.Transpose

Corners = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""

TURNS = {
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation. Pillow's rotations are counterclockwise."""

INVERSE = {Turn.ROTATE_90: Turn.ROTATE_270, Turn.ROTATE_270: Turn.ROTATE_90}
"""Inverses of turns; every other turn is its own."""

MIRRORS_X = {Turn.FLIP_LEFT_RIGHT, Turn.ROTATE_180, Turn.ROTATE_90, Turn.TRANSVERSE}
MIRRORS_Y = {Turn.FLIP_TOP_BOTTOM, Turn.ROTATE_180, Turn.ROTATE_270, Turn.TRANSVERSE}
SWAPS_AXES = {Turn.TRANSPOSE, Turn.TRANSVERSE, Turn.ROTATE_90, Turn.ROTATE_270}
"""A turn mirrors along x, along y, and then swaps the axes, each or not."""


PARSE_ERRORS = (*DECODE_ERRORS, ArithmeticError, AttributeError, LookupError)
"""What Pillow raises for damaged metadata."""


def turn_of(image: Image.Image) -> Turn | None:
    """What turns the image upright; None if it is upright, or does not say so in a readable way."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except PARSE_ERRORS:
        # A viewer shows such an image as it is stored.
        return None


def turned_size(size: tuple[int, int], turn: Turn | None) -> tuple[int, int]:
    """Width and height of an image after a turn."""
    return (size[1], size[0]) if turn in SWAPS_AXES else size


def turned_box(box: Corners, size: tuple[float, float], turn: Turn | None) -> Corners:
    """A box of an image of this size, after a turn of the image."""
    left, top, right, bottom = box
    width, height = size
    if turn in MIRRORS_X:
        left, right = width - right, width - left
    if turn in MIRRORS_Y:
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if turn in SWAPS_AXES else (left, top, right, bottom)
