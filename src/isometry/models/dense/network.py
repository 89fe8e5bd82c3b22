"""What detectors and segmentation networks share: a backbone of timm and a feature pyramid."""

from typing import Self

from torch import Tensor, nn

from isometry.data import ImageSpec
from isometry.data.dense.annotations import Task
from isometry.models.dense.pyramid import build_pyramid
from isometry.models.taps import stage_maps, stage_shapes


class DenseNetwork(nn.Module):
    """A network that answers for every place of an image.

    Args:
        backbone: a timm model without classifier.
        class_names: of the classes, K of them.
        spec: the images that it takes; all have this size.
        channels: of each level of the pyramid, a multiple of 32.

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

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.spec.input_size[1], self.spec.input_size[2]

    def levels(self, images_BCHW: Tensor) -> list[Tensor]:
        """Maps (B, channels, h, w) of the pyramid, from fine to coarse."""
        return self.pyramid(stage_maps(self.backbone, images_BCHW, self.blocks))

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
