"""The parameter-free shortcut of He et al. 2016 (option A), pixel by pixel."""

import torch
from torch import Tensor


def padded_shortcut(image_BCHW: Tensor, stride: int, new_channels: int) -> Tensor:
    """Every ``stride``-th pixel of every ``stride``-th row, and channels of zeros behind the image's own."""
    images, channels, height, width = image_BCHW.shape
    out = torch.zeros(images, channels + new_channels, -(-height // stride), -(-width // stride))
    for image in range(images):
        for channel in range(channels):
            for row in range(0, height, stride):
                for column in range(0, width, stride):
                    place = image, channel, row // stride, column // stride
                    out[place] = image_BCHW[image, channel, row, column]
    return out
