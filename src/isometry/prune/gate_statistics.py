"""Mean saliencies and mean cross-entropy over an epoch's training images.

The loop adds each image once. Sums are fixed-point integers, so that they depend neither on the order of the images nor
on their distribution over processes or a stop in between.
"""

import torch
from torch import Tensor

from isometry.distributed import World

SCALE = 2.0**32
"""Fixed-point steps per unit: 2³¹ images with a saliency of 1 fit in 64 bits."""

Tensors = dict[str, Tensor]


class GateStatistics:
    """Sums over an epoch's training images: saliencies of each layer, cross-entropy, and the number of images.

    ``layers`` has the number of gates of each layer, by name; the processes of ``world`` share the images.
    """

    def __init__(self, layers: dict[str, int], world: World) -> None:
        self.world, self.layers = world, layers
        self._total, self._own = self._zeros(), self._zeros()

    def _zeros(self) -> Tensor:
        return torch.zeros(sum(self.layers.values()) + 2, dtype=torch.int64, device=self.world.device)

    def add(self, saliencies: list[Tensor], cross_entropy_B: Tensor) -> None:
        """Adds this process's images of a step: saliencies (B, G) of each layer, cross-entropy (B,); no device sync."""
        images = torch.ones_like(cross_entropy_B, dtype=torch.float64)
        rows_BS = torch.cat([*saliencies, cross_entropy_B[:, None], images[:, None]], dim=1).detach().double()
        # Values that are not finite stop the run elsewhere.
        self._own += (rows_BS.nan_to_num(0, 0, 0) * SCALE).round().long().sum(0)

    def settle(self) -> None:
        """Sums over the processes; all of them must call."""
        self._total += self.world.total(self._own)
        self._own = self._zeros()

    def means(self) -> tuple[dict[str, Tensor], float]:
        """Mean saliencies (G,) by layer, float64, and mean cross-entropy (nats), of all settled images."""
        *sums, cross_entropy, images = self._total.double().split([*self.layers.values(), 1, 1])
        saliencies = {name: saliency / images for name, saliency in zip(self.layers, sums, strict=True)}
        return saliencies, float(cross_entropy / images)

    def clear(self) -> None:
        """Starts another epoch."""
        self._total, self._own = self._zeros(), self._zeros()

    def state_dict(self) -> Tensors:
        """The settled sums; empty without layers."""
        return {"sums": self._total} if self.layers else {}

    def load_state_dict(self, state: Tensors) -> None:
        """Restores :meth:`state_dict`."""
        if self.layers:
            self._total.copy_(state["sums"])
        self._own = self._zeros()
