"""Normalises, erases and mixes batches on the device.

Shapes: B images, C channels, H×W pixels, K classes.
"""

import torch
from timm.data.mixup import Mixup, mixup_target
from timm.data.random_erasing import RandomErasing

from isometry.config import DataConfig
from isometry.data.batch_reader import Batch
from isometry.data.image_spec import ImageSpec
from isometry.errors import UserError


class Preprocess:
    """Batches on the host -> (input float32 (B,C,H,W), target) on ``device``.

    input = (image/255 − mean) / std; for training then random erasing (Zhong et al. 2020) and mixup or CutMix
    (Zhang et al. 2018; Yun et al. 2019), all through timm. Random draws come from the global generators: seed them at
    each step to make the result a function of the step.

    Targets are class indices int64 (B,), or with mixing, labels smoothed by ``config.smoothing`` and mixed:
    float32 (B,K). The last image of an odd batch stays unmixed. With ``num_classes=None`` there are no
    labels: images are still mixed, and the targets stay -1.
    """

    def __init__(
        self, config: DataConfig, spec: ImageSpec, num_classes: int | None, device: torch.device | str
    ) -> None:
        self.device = torch.device(device)
        self.num_classes = num_classes
        self._mean_1C11 = 255 * torch.tensor(spec.mean, device=device).view(1, -1, 1, 1)
        self._std_1C11 = 255 * torch.tensor(spec.std, device=device).view(1, -1, 1, 1)
        erasing = {"mode": config.remode, "max_count": config.recount, "device": str(device)}
        self._erase = RandomErasing(config.reprob, **erasing) if config.reprob > 0 else None
        self._smoothing = config.smoothing
        self._mix = None
        if config.mixup > 0 or config.cutmix > 0:
            self._mix = Mixup(
                mixup_alpha=config.mixup,
                cutmix_alpha=config.cutmix,
                prob=config.mixup_prob,
                switch_prob=config.mixup_switch_prob,
                mode=config.mixup_mode,
                label_smoothing=config.smoothing,
                num_classes=num_classes or 1,
            )

    def normalise(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """For evaluation: normalised images and class indices; raises UserError for a label outside the classes."""
        self._check_labels(batch)
        images_BCHW = batch.images.to(self.device, non_blocking=True).float()
        images_BCHW = images_BCHW.sub_(self._mean_1C11).div_(self._std_1C11)
        return images_BCHW, batch.targets.to(self.device, non_blocking=True)

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """For training: normalised, erased and mixed images, and targets; raises like ``normalise``."""
        images_BCHW, targets_B = self.normalise(batch)
        if self._erase is not None:
            images_BCHW = self._erase(images_BCHW)
        if self._mix is None:
            if self._smoothing > 0 and self.num_classes is not None:
                return images_BCHW, mixup_target(targets_B, self.num_classes, smoothing=self._smoothing)
            return images_BCHW, targets_B
        return self._mixed(self._mix, images_BCHW, targets_B)

    def _mixed(
        self, mix: Mixup, images_BCHW: torch.Tensor, targets_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        even = len(images_BCHW) // 2 * 2
        labels_B = torch.zeros_like(targets_B) if self.num_classes is None else targets_B
        mixed_BK = mixup_target(labels_B[even:], mix.num_classes, smoothing=mix.label_smoothing)
        if even:
            # timm mixes in place and takes even batches only
            _, pairs_BK = mix(images_BCHW[:even], labels_B[:even])
            mixed_BK = torch.cat([pairs_BK, mixed_BK])
        return images_BCHW, targets_B if self.num_classes is None else mixed_BK

    def _check_labels(self, batch: Batch) -> None:
        if self.num_classes is None or len(batch) == 0:
            return
        # on the host, to avoid a device synchronisation
        wrong_B = (batch.targets < 0) | (batch.targets >= self.num_classes)
        if wrong_B.any():
            label = int(batch.targets[wrong_B][0])
            raise UserError(
                f"image {int(batch.indices[wrong_B][0])} has label {label}, outside the "
                f"{self.num_classes} classes: check the labels, --class-map, or the model's number of classes"
            )
