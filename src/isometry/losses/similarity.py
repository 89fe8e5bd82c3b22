"""The manifold term of dynamic pruning (Tang et al., CVPR 2021): similar images use similar channels."""

from torch import Tensor

from isometry.functional.gates import similarity_gap
from isometry.losses.base import BatchLoss


class Similarity(BatchLoss):
    """Gap between the images' relations in saliencies and in features.

    ``‖M(π) − M(pooled features)‖²_F / B²``, images as tokens, summed over the gated layers; under torch.distributed
    the images are those of the global batch, unless ``relations="local"``. Gradients reach the saliencies only.

    Shapes: saliencies (B, G), pooled features (B, C) -> scalar, at least 0, or (K, B, ...) of K layers -> (K,).
    """

    inputs = ("saliencies", "pooled_features")
    batched = True

    def forward(self, saliency_BG: Tensor, features_BC: Tensor) -> Tensor:
        return similarity_gap(saliency_BG, features_BC, self.group)
