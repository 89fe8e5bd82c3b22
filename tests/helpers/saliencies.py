"""An epoch's saliencies, made up."""

import torch
from torch import Tensor

IMAGES = 60
LAYERS = {"0": 5, "1": 16, "2": 3}
"""Gates of each layer."""


def epoch() -> tuple[list[Tensor], Tensor]:
    """Saliencies of each layer, of very different sizes, and cross-entropies of all images."""
    generator = torch.Generator().manual_seed(0)
    sizes = 10.0 ** torch.randint(-4, 4, (IMAGES, 1), generator=generator)
    saliencies = [(torch.randn(IMAGES, g, generator=generator) * sizes).relu() for g in LAYERS.values()]
    return saliencies, torch.rand(IMAGES, generator=generator) * 3
