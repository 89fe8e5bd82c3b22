"""The padded crop: every window of the padded image, and nothing else."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers.image_files import folder_config
from isometry.data import ImageSpec
from isometry.data.transforms import train_transform

SPEC = ImageSpec((3, 16, 16), (0.5,) * 3, (0.25,) * 3, crop_pct=1.0)


def windows(pixels: np.ndarray, margin: int) -> set[bytes]:
    """All crops of the image's own size from the image with black borders."""
    height, width, _ = pixels.shape
    padded = np.zeros((height + 2 * margin, width + 2 * margin, 3), dtype=np.uint8)
    padded[margin : margin + height, margin : margin + width] = pixels
    return {
        padded[top : top + height, left : left + width].transpose(2, 0, 1).tobytes()
        for top in range(2 * margin + 1)
        for left in range(2 * margin + 1)
    }


def test_crops_are_the_windows_of_the_padded_image(tmp_path: Path):
    config = folder_config(tmp_path, train_crop_mode="pad", hflip=0.0, color_jitter=0.0)
    transform = train_transform(config, SPEC)
    pixels = np.random.default_rng(0).integers(1, 256, (16, 16, 3), dtype=np.uint8)
    torch.manual_seed(0)
    seen = {transform(Image.fromarray(pixels)).numpy().tobytes() for _ in range(400)}
    assert seen == windows(pixels, 2)


def test_a_smaller_image_is_brought_to_size_first(tmp_path: Path):
    config = folder_config(tmp_path, train_crop_mode="pad")
    assert train_transform(config, SPEC)(Image.new("RGB", (8, 8))).shape == (3, 16, 16)
