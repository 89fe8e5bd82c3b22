"""The maths of manifold-regularised dynamic pruning (Tang et al., CVPR 2021).

Shape suffixes: B images, G gates of a layer (one a channel, or one a group of channels), C channels.
"""

import math

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from isometry.functional.relations import gram_gap


def kept_gates(saliency_BG: Tensor, threshold: Tensor | float) -> Tensor:
    """The open gates of each image: those with a saliency of at least the layer's threshold, a scalar.

    A saliency of 0 is closed, because it would multiply a channel by 0. An image's largest saliency is always
    open, so that every layer keeps a channel: saliencies (B, G), at least 0 -> bool (B, G).
    """
    kept_BG = (saliency_BG >= threshold) & (saliency_BG > 0)
    # By index: of equal saliencies only the first is opened.
    return kept_BG.scatter(1, saliency_BG.argmax(1, keepdim=True), True)


def number_kept(channels: int, keep_rate: float) -> int:
    """⌈r·C⌉, at least 1.

    Raises:
        ValueError: the keep rate r is not in (0, 1].
    """
    if not 0 < keep_rate <= 1:
        raise ValueError(f"the keep rate must be above 0 and at most 1, not {keep_rate}")
    # The tolerance is for rates such as 0.6, whose product with an integer can be just above an integer.
    return max(1, math.ceil(keep_rate * channels - 1e-9))


def layer_threshold(mean_saliency_G: Tensor, keep_rate: float) -> Tensor:
    """The ⌈r·G⌉-th largest of a layer's mean saliencies over the training images: a scalar of their dtype.

    Raises:
        ValueError: the keep rate is not in (0, 1].
    """
    return mean_saliency_G.topk(number_kept(len(mean_saliency_G), keep_rate)).values[-1]


def keep_rate_at(epoch: int, epochs: int, last: float) -> float:
    """Keep rate at the end of an epoch: r(e) = (1 − r_T)/2 · cos(π(e + 1)/E) + (1 + r_T)/2, from 1 down to r_T.

    It is r_T exactly at the end of the last epoch, and at r_T = 1 it is 1 throughout.

    Args:
        epoch: e, from 0 to E − 1.
        epochs: E.
        last: r_T, in (0, 1].
    """
    # In this form the last epoch gives r_T exactly, without rounding.
    return last + (1 - last) * (1 + math.cos(math.pi * (epoch + 1) / epochs)) / 2


def adaptive_weight(cross_entropy_B: Tensor, limit: Tensor | float, gamma: float = 1.0) -> Tensor:
    """Sparsity weight of each image: w = ((T − CE) / T)^γ where CE < T, else 0, so hard images have none.

    Args:
        cross_entropy_B: (B,), nats; no gradient goes through it.
        limit: T ≥ 0; at 0 all weights are 0.
        gamma: γ > 0.

    Returns:
        (B,), float32, from 0 to 1.
    """
    limit = torch.as_tensor(limit, dtype=torch.float32, device=cross_entropy_B.device)
    room_B = (limit - cross_entropy_B.detach().float()).clamp(min=0)
    return (room_B / limit.clamp(min=torch.finfo(torch.float32).tiny)).pow(gamma)


def adaptive_sparsity(saliency_BG: Tensor, weight_B: Tensor) -> Tensor:
    """Complexity-aware sparsity of one layer: mean_i(w_i · mean_c π_ic), a float32 scalar.

    π (B, G) is at least 0; w (B,) is of :func:`adaptive_weight`.
    """
    return (weight_B * saliency_BG.float().mean(1)).mean()


def similarity_gap(saliency_BG: Tensor, features_BC: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Gap between the images' relations by saliencies and by features: ‖M(π) − M(features)‖²_F / B².

    M is the cosine relation map over the images of the batch, as in :func:`isometry.functional.gram_gap`, which
    computes the gap. No gradient goes through the features.

    Args:
        saliency_BG: π (B, G).
        features_BC: (B, C), the pooled input of the same layer.
        group: process group that holds the batch; B is then the images of all its processes.

    Returns:
        A scalar, at least 0, or (...) for sides (..., B, C); 0 where the maps are equal, whatever the scale of either
        side.
    """
    images = saliency_BG.shape[-2] * (1 if group is None else group.size())
    return gram_gap(saliency_BG, features_BC.detach(), group=group) / images**2
