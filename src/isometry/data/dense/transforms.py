"""From an image and its annotation to a network's input: fitted for evaluation, augmented for training.

The image, its boxes and its mask go through the same :class:`Placement`; colours alone are changed beside it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import str_to_pil_interp
from torchvision.transforms import v2

from isometry.config import DataConfig
from isometry.data.dense.annotations import IGNORED, Annotation, Boxes
from isometry.data.dense.placement import Placement
from isometry.data.image_spec import ImageSpec

AREAS = (0.25, 1.0)
"""Range of a training crop's area for boxes and masks; the default of ``--scale``, for images of one object, means it
too, as in saved runs of older versions."""
LEAST_LEFT = 0.1
"""Share of a box's area that a crop must leave; what remains of a smaller one can hardly be told."""
LEAST_SIDE = 1
"""Pixels of the input along each side of a box."""


@dataclass(frozen=True)
class DenseExample:
    """One image of a batch: ``pixels`` uint8 (C,H,W); ``annotation`` is in pixels of the input; ``truth`` is in those
    of the image, None in training."""

    pixels: torch.Tensor
    annotation: Annotation
    placement: Placement
    truth: Annotation | None


class EvalTransform:
    """The whole image, as large as fits the input, in the middle of padding of the mean colour.

    No shape is distorted, and :class:`Placement` takes predictions back. The padding of masks is IGNORED.
    """

    def __init__(self, spec: ImageSpec) -> None:
        _, height, width = spec.input_size
        self.input_size = (width, height)
        self._fill = tuple(round(255 * value) for value in spec.mean)
        self._resample = str_to_pil_interp(spec.interpolation)

    def __call__(self, image: Image.Image, annotation: Annotation) -> DenseExample:
        """An image of the spec's mode and its annotation -> the network's input."""
        placement = Placement.fitted(image.size, self.input_size)
        pixels = self._placed(image, placement)
        return DenseExample(pixels, placed(annotation, placement), placement, annotation)

    def _placed(self, image: Image.Image, placement: Placement) -> torch.Tensor:
        fill = self._fill if image.mode == "RGB" else self._fill[0]
        array = np.array(_pasted(image, placement, self._resample, fill))
        return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


class TrainTransform(EvalTransform):
    """A random window of the image, flips, and changes of colour: draws from the global generators.

    The window's area is a share of the square (of the input's shape) that just holds the image, drawn evenly from
    ``--scale`` (:data:`AREAS` for its default; above 1 it zooms out), and its aspect ratio, to the input's, from
    ``--ratio``, evenly in the logarithm. Along each axis it lies inside the image, or holds all of it. Boxes of which
    less than :data:`LEAST_LEFT` is in the window are dropped, and so are crowds. With ``--no-aug`` images are fitted as
    for evaluation.
    """

    def __init__(self, config: DataConfig, spec: ImageSpec) -> None:
        super().__init__(spec)
        self.augments = not config.no_aug
        self.areas = AREAS if config.scale == DataConfig().scale else tuple(config.scale)
        self.ratios = tuple(config.ratio)
        self.flips = (config.hflip, config.vflip)
        strength = config.color_jitter
        self._colours = v2.ColorJitter(strength, strength, strength) if strength else None

    def __call__(self, image: Image.Image, annotation: Annotation) -> DenseExample:
        """An image of the spec's mode and its annotation -> the network's input, augmented."""
        placement = (
            self._drawn(image.size) if self.augments else Placement.fitted(image.size, self.input_size)
        )
        pixels = self._placed(image, placement)
        if self.augments and self._colours is not None:
            pixels = self._colours(pixels)
        moved = placed(annotation, placement)
        if isinstance(moved, Boxes):
            moved = moved.chosen(~moved.crowd)
        return DenseExample(pixels, moved, placement, None)

    def _drawn(self, size: tuple[int, int]) -> Placement:
        area, ratio, left, top, *flips = torch.rand(6).tolist()
        area = self.areas[0] + area * (self.areas[1] - self.areas[0])
        low, high = map(math.log, self.ratios)
        ratio = math.exp(low + ratio * (high - low))
        holding = max(size[axis] / self.input_size[axis] for axis in range(2))
        sides = [
            self.input_size[0] * holding * math.sqrt(area * ratio),
            self.input_size[1] * holding * math.sqrt(area / ratio),
        ]
        window = [0.0] * 4
        for axis, share in enumerate((left, top)):
            # Negative where the window is the larger of the two.
            window[axis] = share * (size[axis] - sides[axis])
            window[2 + axis] = window[axis] + sides[axis]
        placement = Placement.of_window(size, (window[0], window[1], window[2], window[3]), self.input_size)
        return replace(placement, hflip=flips[0] < self.flips[0], vflip=flips[1] < self.flips[1])


def placed(annotation: Annotation, placement: Placement) -> Annotation:
    """An annotation of an image in pixels of the input; boxes of which too little is left are dropped."""
    if isinstance(annotation, Boxes):
        return _placed_boxes(annotation, placement)
    mask = Image.fromarray(annotation)
    return np.array(_pasted(mask, placement, Image.Resampling.NEAREST, IGNORED))


def _placed_boxes(boxes: Boxes, placement: Placement) -> Boxes:
    moved = placement.to_input(boxes.xyxy)
    source, target = (np.array(each, dtype=np.float64) for each in (placement.source, placement.target))
    growth = ((target[2:] - target[:2]) / (source[2:] - source[:2])).prod()
    sides = moved[:, 2:] - moved[:, :2]
    whole = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]).astype(np.float64).prod(1) * growth
    left = sides.prod(1) / np.maximum(whole, 1e-9)
    areas = (boxes.areas * growth * left).astype(np.float32)
    kept = (sides >= LEAST_SIDE).all(1) & (left >= LEAST_LEFT)
    return replace(boxes, xyxy=moved, areas=areas).chosen(kept)


def _pasted(
    image: Image.Image, placement: Placement, resample: Image.Resampling, fill: int | tuple[int, ...]
) -> Image.Image:
    left, top, right, bottom = placement.target
    # Cropped even where the crop is the whole: a JPEG is decoded at the scale that the result needs.
    part = image.crop(placement.source).resize((right - left, bottom - top), resample)
    canvas = Image.new(image.mode, placement.input_size, fill)
    canvas.paste(part, (left, top))
    for flips, turn in (
        (placement.hflip, Image.Transpose.FLIP_LEFT_RIGHT),
        (placement.vflip, Image.Transpose.FLIP_TOP_BOTTOM),
    ):
        canvas = canvas.transpose(turn) if flips else canvas
    return canvas
