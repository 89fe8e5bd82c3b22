"""What detectors and segmentation networks share: a backbone of timm and a feature pyramid."""

from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from isometry.data import ImageSpec
from isometry.data.dense.annotations import Task
from isometry.models.dense.pyramid import build_pyramid
from isometry.models.image_reading import Reading
from isometry.models.taps import stage_maps, stage_shapes


class DenseNetwork(nn.Module):
    """A network that answers for every place of an image.

    Args:
        backbone: a timm model without classifier.
        class_names: of the classes, K of them.
        spec: the images that it takes; all have this size.
        channels: of each level of the pyramid, a multiple of 32.

    Attributes:
        reading: how :meth:`predict` reads pictures: ``exif`` and ``pixel_range`` of the run.

    Raises:
        UserError: timm gives no feature maps of the backbone's architecture.
    """

    task: Task

    def __init__(self, backbone: nn.Module, class_names: list[str], spec: ImageSpec, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_names = list(class_names)
        self.spec = spec
        self.channels = channels
        stages = stage_shapes(backbone, type(backbone).__name__, spec.input_size)
        self.pyramid, self.blocks = build_pyramid(stages, self.size, channels)
        self.frozen = False
        self.reading: Reading = {"exif": "upright", "pixel_range": None}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.spec.input_size[1], self.spec.input_size[2]

    def levels(self, images_BCHW: Tensor) -> list[Tensor]:
        """Maps (B, channels, h, w) of the pyramid, from fine to coarse."""
        return self.pyramid(stage_maps(self.backbone, images_BCHW, self.blocks))

    @torch.no_grad()
    def predict(self, picture: str | Path | Image.Image) -> Any:
        """The answer to a picture, in its own pixels, as evaluation has it.

        The picture is turned by its EXIF orientation, scaled to fit the network's size with its shape kept, padded with
        the mean colour and normalised; the network answers in eval mode, and is in its mode again afterwards.

        Args:
            picture: of any size; a file is read as evaluation reads it, an image of Pillow is decoded whole.

        Returns:
            On the CPU, of a detector a dict, by falling score: ``boxes`` float32 (M, 4), x1, y1, x2, y2 in pixels of
            the upright picture; ``scores`` float32 (M,) in 0..1; ``labels`` int64 (M,), places in ``class_names``. Of
            a segmentation network the class of each pixel, int64 (height, width).

        Raises:
            UserError: the picture can't be read.
        """
        # Imported here: networks are built in processes that read no pictures.
        from isometry.models.dense.prediction import network_input

        images_1CHW, placement = network_input(picture, self.spec, self.reading)
        mode = self.training
        self.eval()
        try:
            (answer,) = self(images_1CHW.to(next(self.parameters()).device))
        finally:
            self.train(mode)
        if self.task == "segment":
            return placement.answer_to_image(answer).cpu()
        return placement.answer_to_image({name: value.cpu() for name, value in answer.items()})

    def freeze_backbone(self) -> Self:
        """Trains the pyramid and the heads alone.

        The backbone gets no gradient, and its norms and dropout stay in eval mode in :meth:`train`, so that no weight
        and no running mean of it changes.
        """
        self.frozen = True
        self.backbone.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As of any module, except for a frozen backbone."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self
