"""timm's transforms: decoded image to uint8 tensor."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, AutoAugment, posterize
from timm.data.transforms import str_to_interp_mode
from torchvision import transforms

from isometry.config import DataConfig
from isometry.data.image_spec import ImageSpec
from isometry.errors import UserError

Transform = Callable[[Image.Image], torch.Tensor]
"""Decoded image of the spec's mode -> uint8 tensor (C, H, W)."""
PAD = "pad"
"""Padded random crop (He et al. 2016, section 4.2), which timm does not have."""


def train_transform(config: DataConfig, spec: ImageSpec) -> Transform:
    """timm's training augmentation; ``Preprocess`` does random erasing, mixup and normalisation.

    Raises:
        UserError: an ``--aa`` policy that timm does not know.
    """
    try:
        transform = create_transform(
            spec.input_size,
            is_training=True,
            no_aug=config.no_aug,
            train_crop_mode=None if config.train_crop_mode == PAD else config.train_crop_mode,
            scale=tuple(config.scale),
            ratio=tuple(config.ratio),
            hflip=config.hflip,
            vflip=config.vflip,
            color_jitter=config.color_jitter or None,
            auto_augment=config.aa,
            interpolation=config.train_interpolation,
            mean=spec.mean,
            std=spec.std,
            use_prefetcher=True,
        )
    except (AssertionError, KeyError, ValueError, IndexError) as error:
        if config.aa is None:
            raise
        raise UserError(f"--aa {config.aa} is not a timm policy: try rand-m9-mstd0.5-inc1") from error
    if config.train_crop_mode == PAD and not config.no_aug:
        transform.transforms[:1] = _padded_crop(spec)
    for op in _augment_ops(transform):
        if op.aug_fn is posterize:
            op.aug_fn = _posterize
    return transform


def eval_transform(config: DataConfig, spec: ImageSpec) -> Transform:
    """timm's evaluation transform: resize and crop."""
    return create_transform(
        spec.input_size,
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        crop_pct=config.crop_pct or spec.crop_pct,
        crop_mode=spec.crop_mode,
        use_prefetcher=True,
    )


def image_mode(spec: ImageSpec) -> str:
    """Pillow's mode for the spec's channels: L for 1, RGB for 3; raises UserError for any other number."""
    channels = spec.input_size[0]
    if channels not in (1, 3):
        raise UserError(
            f"the model takes images of {channels} channels, and image files are read as grey (1) or RGB (3); "
            "give --in-chans 1 or 3, or a model of as many"
        )
    return "L" if channels == 1 else "RGB"


def _padded_crop(spec: ImageSpec) -> list[Any]:
    """Replaces timm's random resized crop: pads by 1/8 of the size, then crops the original size."""
    _, height, width = spec.input_size
    return [
        transforms.Resize((height, width), str_to_interp_mode(spec.interpolation)),
        transforms.RandomCrop((height, width), padding=(width // 8, height // 8)),
    ]


def _augment_ops(transform: Any) -> Iterator[AugmentOp]:
    """The operations of the RandAugment, AugMix or AutoAugment policy inside ``transform``."""
    for step in transform.transforms:
        if isinstance(step, AutoAugment):
            yield from chain.from_iterable(step.policy)
        else:
            yield from getattr(step, "ops", ())


def _posterize(image: Image.Image, bits_to_keep: int, **kwargs: Any) -> Image.Image:
    # at full strength timm keeps 0 bits (black): Pillow 12 does that, Pillow 13 raises
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return posterize(image, bits_to_keep, **kwargs)
