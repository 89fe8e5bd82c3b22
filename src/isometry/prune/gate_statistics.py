"""What an epoch says about gates: mean saliencies and mean cross-entropy over its training images.

Kept outside any forward pass, and added to once an image by the loop. Sums are whole numbers, so that they are the same
whatever the order of the images, their spread over processes, and the moments at which a run was stopped.
"""

import torch
from torch import Tensor

from isometry.distributed import World

SCALE = 2.0**32
"""Steps in a unit: 2³¹ images of a saliency of 1 fit in 64 bits."""

Tensors = dict[str, Tensor]


class GateStatistics:
    """Sums over an epoch's training images: saliencies by layer, cross-entropy, and their number.

    Args:
        layers: gates of each layer, by the layer's name.
        world: the processes that the images are spread over.
    """

    def __init__(self, layers: dict[str, int], world: World) -> None:
        self.world = world
        self.layers = layers
        self._total = self._zeros()
        self._own = self._zeros()

    def _zeros(self) -> Tensor:
        return torch.zeros(sum(self.layers.values()) + 2, dtype=torch.int64, device=self.world.device)

    def add(self, saliencies: list[Tensor], cross_entropy_B: Tensor) -> None:
        """Takes this process's images of a step: saliencies (B, G) a layer, cross-entropy (B,); waits for nothing."""
        images = torch.ones_like(cross_entropy_B, dtype=torch.float64)
        rows_BS = torch.cat([*saliencies, cross_entropy_B[:, None], images[:, None]], dim=1).detach().double()
        # What is not finite stops the run elsewhere, with the image's name.
        self._own += (rows_BS.nan_to_num(0, 0, 0) * SCALE).round().long().sum(0)

    def settle(self) -> None:
        """Adds up what the processes have; all must call."""
        self._total += self.world.total(self._own)
        self._own = self._zeros()

    def means(self) -> tuple[dict[str, Tensor], float]:
        """Mean saliencies (G,) by layer, float64, and mean cross-entropy (nats), of all processes' settled images."""
        *sums, cross_entropy, images = self._total.double().split([*self.layers.values(), 1, 1])
        return (
            {name: saliency / images for name, saliency in zip(self.layers, sums, strict=True)},
            float(cross_entropy / images),
        )

    def clear(self) -> None:
        """Begins another epoch."""
        self._total, self._own = self._zeros(), self._zeros()

    def state_dict(self) -> Tensors:
        """What was settled, for a checkpoint; nothing without layers."""
        return {"sums": self._total} if self.layers else {}

    def load_state_dict(self, state: Tensors) -> None:
        """The reverse of :meth:`state_dict`."""
        if self.layers:
            self._total.copy_(state["sums"])
        self._own = self._zeros()
