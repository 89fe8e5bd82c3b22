"""Dynamic pruning as its equations say, one image and one channel at a time, in float64 (Tang et al., CVPR 2021)."""

import math
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional as F

from oracles.relations import explicit_gap


def saliency(
    image_CHW: Tensor, squeeze: tuple[Tensor, Tensor], excite: tuple[Tensor, Tensor]
) -> tuple[list[float], list[float]]:
    """Pooled input and saliencies of one image: pool → linear → ReLU → linear → ReLU; each linear as (W, b)."""
    pooled = [sum(float(x) for x in plane.flatten()) / plane.numel() for plane in image_CHW]
    hidden = _rectified(_linear(pooled, *squeeze))
    return pooled, _rectified(_linear(hidden, *excite))


def kept(saliencies: list[float], threshold: float) -> list[bool]:
    """Those of at least the threshold that are not 0, and the first of the largest."""
    largest = max(range(len(saliencies)), key=lambda at: saliencies[at])
    return [at == largest or (value > 0 and value >= threshold) for at, value in enumerate(saliencies)]


def masked_conv(
    image_CHW: Tensor, conv: torch.nn.Conv2d, norm: torch.nn.BatchNorm2d, scales: list[float]
) -> Tensor:
    """One image through convolution and norm (in eval mode), channel by channel; a scale of 0 skips a channel."""
    padding, stride = int(conv.padding[0]), conv.stride[0]
    padded_CHW = F.pad(image_CHW.double(), (padding,) * 4)
    planes = []
    for channel, scale in enumerate(scales):
        kernel_CHW = conv.weight[channel].double()
        rows = (padded_CHW.shape[1] - kernel_CHW.shape[1]) // stride + 1
        columns = (padded_CHW.shape[2] - kernel_CHW.shape[2]) // stride + 1
        plane = torch.zeros(rows, columns, dtype=torch.float64)
        for i in range(rows if scale else 0):
            for j in range(columns):
                top, left = i * stride, j * stride
                window_CHW = padded_CHW[:, top : top + kernel_CHW.shape[1], left : left + kernel_CHW.shape[2]]
                value = float((window_CHW * kernel_CHW).sum())
                spread = math.sqrt(float(norm.running_var[channel]) + norm.eps)
                value = (value - float(norm.running_mean[channel])) / spread
                plane[i, j] = scale * (value * float(norm.weight[channel]) + float(norm.bias[channel]))
        planes.append(plane)
    return torch.stack(planes)


def threshold(means: list[float], keep_rate: str) -> float:
    """The ⌈r·G⌉-th largest; r as a decimal in words, so that no rounding is in r·G."""
    return sorted(means, reverse=True)[math.ceil(Fraction(keep_rate) * len(means)) - 1]


def keep_rate(epoch: int, epochs: int, last: float) -> float:
    """(1 − r_T)/2 · cos(π(e + 1)/E) + (1 + r_T)/2."""
    return (1 - last) / 2 * math.cos(math.pi * (epoch + 1) / epochs) + (1 + last) / 2


def adaptive_weight(cross_entropy: float, limit: float, gamma: float) -> float:
    """1[CE < T] · ((T − CE) / T)^γ."""
    return ((limit - cross_entropy) / limit) ** gamma if cross_entropy < limit else 0.0


def sparsity(layers: list[Tensor], cross_entropies: list[float], limit: float, gamma: float) -> float:
    """Σ_layers mean_i(w_i · mean_c π_ic)."""
    total = 0.0
    for saliency_BG in layers:
        images, gates = saliency_BG.shape
        for i in range(images):
            weight = adaptive_weight(cross_entropies[i], limit, gamma)
            total += weight * sum(float(saliency_BG[i, c]) for c in range(gates)) / gates / images
    return total


def similarity(layers: list[tuple[Tensor, Tensor]]) -> float:
    """Σ_layers ‖M(π) − M(pooled features)‖²_F / B², of layers (π, features)."""
    return sum(float(explicit_gap(pi, features).value) / len(pi) ** 2 for pi, features in layers)


def _linear(inputs: list[float], weight: Tensor, bias: Tensor) -> list[float]:
    return [
        float(bias[row]) + sum(float(weight[row, at]) * value for at, value in enumerate(inputs))
        for row in range(len(bias))
    ]


def _rectified(values: list[float]) -> list[float]:
    return [max(0.0, value) for value in values]
