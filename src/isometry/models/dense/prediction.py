"""From a picture to the input of a detector or segmentation network, as evaluation makes it."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from isometry.config import DataConfig
from isometry.data import ImageSpec, Preprocess
from isometry.data.batch_reader import Batch
from isometry.data.decoding import DecodeError, Reading, decode_errors, open_image, read_pixels
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.placement import Placement
from isometry.data.dense.transforms import EvalTransform
from isometry.data.image_formats import read_bytes
from isometry.data.splits import UNLABELLED
from isometry.data.transforms import image_mode
from isometry.errors import UserError, printable
from isometry.models.image_reading import Reading as Options


def network_input(
    picture: str | Path | Image.Image, spec: ImageSpec, options: Options
) -> tuple[Tensor, Placement]:
    """A picture as normalised input, float32 (1, C, H, W) on the CPU, and where it lies in it.

    ``options`` are those of the training run. A file is read as evaluation reads it; an image of Pillow is decoded
    whole.

    Raises:
        UserError: the picture can't be read.
    """
    reading = Reading.of(DataConfig(**options), image_mode(spec))
    try:
        with decode_errors():
            opened = _opened(picture)
        example = EvalTransform(spec)(read_pixels(opened, reading), Boxes.of([], []))
    except DecodeError as error:
        name = "the image" if isinstance(picture, Image.Image) else f"the image {printable(str(picture))}"
        raise UserError(f"predict: cannot read {name} ({error}); give another picture") from error
    batch = Batch(example.pixels[None], torch.tensor([UNLABELLED]), torch.tensor([0]), [])
    images_1CHW, _ = Preprocess(DataConfig(), spec, None, "cpu").normalise(batch)
    return images_1CHW, example.placement


def _opened(picture: str | Path | Image.Image) -> Image.Image:
    if not isinstance(picture, Image.Image):
        return open_image(read_bytes(picture))
    # Decoded here, because the caller's image must not be decoded at a reduced scale.
    picture.load()
    return picture
