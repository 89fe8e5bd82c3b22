"""Detection: torchvision's FCOS (arXiv:2006.09214) on the pyramid of a backbone.

FCOS predicts for each cell of each level whether a class is there, the distances from the cell's centre to the four
sides of its box, and how central the cell is in it. Its head, losses, box coding and non-maximum suppression (NMS) are
torchvision's; its resizing and normalisation are not used, because images arrive as the network expects them. Shape
suffixes: B images, A cells of all levels, K classes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops import clip_boxes_to_image

from isometry.data import ImageSpec
from isometry.models.dense.network import DenseNetwork

SCORE_THRESHOLD = 0.05
"""Boxes with a lower score are left out; low, because average precision counts every box by its rank."""
NMS_IOU = 0.6
"""Of two boxes of a class that overlap by more, the one with the lower score is left out (torchvision's default)."""
MOST_BOXES = 100
"""Boxes of an image at most, as COCO's evaluation counts."""

FIRST_DISTANCE = 3.0
"""Distance from a cell to a box's sides before training, in strides: in the middle of what the finest level looks for.
From 0, half of the distances would begin behind the head's ReLU, which passes no gradient there."""

Detection = dict[str, Tensor]
"""``boxes`` (M, 4) x1, y1, x2, y2 in pixels of the network's input, ``scores`` (M,), ``labels`` (M,) int64."""


class Detector(DenseNetwork):
    """FCOS on a timm backbone.

    Args:
        backbone, class_names, spec, channels: as in :class:`isometry.models.dense.network.DenseNetwork`.
        convs: convolutions of each of the two towers of the head.
    """

    task = "detect"

    def __init__(
        self, backbone: nn.Module, class_names: list[str], spec: ImageSpec, channels: int, convs: int
    ) -> None:
        super().__init__(backbone, class_names, spec, channels)
        self.convs = convs
        pyramid = nn.Identity()
        pyramid.out_channels = channels  # type: ignore[assignment]  # FCOS asks for it, and is never called itself
        self.fcos: Any = FCOS(
            pyramid,
            len(class_names),
            head=FCOSHead(channels, 1, len(class_names), convs),
            score_thresh=SCORE_THRESHOLD,
            nms_thresh=NMS_IOU,
            detections_per_img=MOST_BOXES,
        )
        nn.init.constant_(self.fcos.head.regression_head.bbox_reg.bias, FIRST_DISTANCE)

    def forward(self, images_BCHW: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Losses in training, boxes otherwise.

        Args:
            images_BCHW: normalised, of the network's size.
            targets: of each image ``boxes`` (M, 4) in pixels of the input and ``labels`` (M,) int64, from 0; boxes
                whose ``crowd`` (M,) is true, if that is there, are no objects to learn.

        Returns:
            In training mode ``{"classification", "bbox_regression", "bbox_ctrness"}``, scalars: focal loss, GIoU loss
            and cross-entropy, each a sum over the batch divided by its number of cells with an object. Otherwise a
            :data:`Detection` for each image, by falling score.

        Raises:
            ValueError: in training mode without targets.
        """
        outputs, cells = self._outputs(images_BCHW)
        counts = [len(level) for level in cells]
        if self.training:
            if targets is None:
                raise ValueError("a detector in training mode needs targets")
            wanted = [_objects(target) for target in targets]
            return self.fcos.compute_loss(wanted, outputs, [torch.cat(cells)] * len(images_BCHW), counts)
        split = {name: list(output.split(counts, 1)) for name, output in outputs.items()}
        count = len(images_BCHW)
        return self.fcos.postprocess_detections(split, [cells] * count, [self.size] * count)

    def raw(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, A, 4) in pixels of the input, and scores (B, A, K) in 0..1, before threshold and NMS.

        A score is ``√(class · centrality)``, both after a sigmoid.
        """
        outputs, cells = self._outputs(images_BCHW)
        boxes_BA4 = self.fcos.box_coder.decode(outputs["bbox_regression"], torch.cat(cells)[None])
        scores_BAK = (outputs["cls_logits"].sigmoid() * outputs["bbox_ctrness"].sigmoid()).sqrt()
        return clip_boxes_to_image(boxes_BA4, self.size), scores_BAK

    def _outputs(self, images_BCHW: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The head's outputs for all cells in float32, and the cells of each level."""
        levels = self.levels(images_BCHW)
        outputs = {name: output.float() for name, output in self.fcos.head(levels).items()}
        return outputs, [cells_of(level, self.size) for level in levels]


def cells_of(level_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (H·W, 4) of a level's cells, row by row, in pixels of images of ``size`` (height, width); float32.

    FCOS's points are their centres, and its unit of length is their width.
    """
    (height, width), device = level_BCHW.shape[2:], level_BCHW.device
    step_y, step_x = size[0] / height, size[1] / width
    top, left = torch.meshgrid(
        torch.arange(height, device=device) * step_y,
        torch.arange(width, device=device) * step_x,
        indexing="ij",
    )
    return torch.stack([left, top, left + step_x, top + step_y], -1).flatten(0, 1)


def _objects(target: dict[str, Tensor]) -> dict[str, Tensor]:
    boxes, labels, crowd = target["boxes"], target["labels"], target.get("crowd")
    if crowd is not None:
        boxes, labels = boxes[~crowd], labels[~crowd]
    return {"boxes": boxes, "labels": labels}
