"""Complexity-aware sparsity of gates (Tang et al., CVPR 2021)."""

import torch
from torch import Tensor

from isometry.functional.gates import adaptive_sparsity, adaptive_weight
from isometry.losses.base import Loss


class Sparsity(Loss):
    """L1 penalty on the saliencies of easy images: ``mean_i(w_i · mean_c π_ic)``, summed over the gated layers.

    w_i = ((T − CE_i) / T)^γ where CE_i < T, else 0. T, the buffer ``limit``, is half of the mean cross-entropy of the
    previous epoch. It starts at 0: no penalty in the first epoch.

    Shapes: saliencies (B, G), cross-entropy (B,), nats -> scalar, at least 0.
    """

    inputs = ("saliencies", "cross_entropy")
    limit: Tensor

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        if not 0 < gamma <= 100:
            raise ValueError(f"gamma must be above 0 and at most 100, not {gamma}")
        self.gamma = gamma
        self.register_buffer("limit", torch.zeros(()))

    def forward(self, saliency_BG: Tensor, cross_entropy_B: Tensor) -> Tensor:
        return adaptive_sparsity(saliency_BG, adaptive_weight(cross_entropy_B, self.limit, self.gamma))
