"""Pictures and maps as PNG data URIs."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from isometry.report.drawing.colours import COLOUR_MAP
from isometry.report.records.data import Matrix, Picture

LARGEST_MAP = 224
"""Pixels a side that larger maps are averaged down to."""
MAP_COLOURS = 255
"""Colours of a map; one more entry of its palette is for values that are not finite."""
NOT_FINITE = (128, 128, 128)


def picture_png(pixels: Picture) -> str:
    """A picture (H, W, C), C = 1 or 3."""
    return _png(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def map_png(values: Matrix, low: float, high: float) -> str:
    """A map with one pixel an entry (see LARGEST_MAP); entries outside [low, high] take the nearest colour, entries
    that are not finite are grey."""
    image = Image.fromarray(np.asarray(values, dtype=np.float32))
    if max(image.size) > LARGEST_MAP:
        image = image.resize((LARGEST_MAP, LARGEST_MAP), Image.Resampling.BOX)
    pixels = np.asarray(image)
    finite = np.isfinite(pixels)
    scaled = np.clip((np.where(finite, pixels, low) - low) / max(high - low, 1e-12), 0, 1)
    return _palette_png(np.where(finite, np.round(scaled * (MAP_COLOURS - 1)), MAP_COLOURS).astype(np.uint8))


def scale_png() -> str:
    """The colour scale of maps and matrices, from low to high, one pixel high."""
    return _palette_png(np.arange(MAP_COLOURS, dtype=np.uint8)[None])


def colour_range(maps: Sequence[Matrix]) -> tuple[float, float]:
    """Values of the first and the last colour, for relation maps side by side."""
    # A few outliers must not flatten the rest; the diagonal is 1.
    entries = np.concatenate([matrix[np.isfinite(matrix)].ravel() for matrix in maps])
    low = float(np.percentile(entries, 1)) if entries.size else 0.0
    return min(np.floor(low * 10) / 10, 0.9), 1.0


def _palette_png(indices: np.ndarray) -> str:
    colours = COLOUR_MAP(np.linspace(0, 1, MAP_COLOURS), bytes=True)[:, :3]
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes() + bytes(NOT_FINITE))
    return _png(image)


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
