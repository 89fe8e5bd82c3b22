"""Features of several networks for the same images, and the grid that their patches are compared on."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from isometry.models.taps import Grid, last_features, tokens_on_grid

TRAINED, BEFORE, TEACHER = "trained", "before training", "teacher"
"""The network that is evaluated, the same before its first step, and its teacher."""
LEAST_PATCHES = 4
MOST_BYTES = 2**30
"""Of the features that a :class:`CachedFeatureExtractor` keeps."""
Features = tuple[Tensor | None, Tensor]
"""Of :func:`isometry.models.taps.last_features`."""


@dataclass(frozen=True)
class FeatureExtractor:
    """A network in eval mode. ``adapter`` turns images that are normalised for the evaluated network, perhaps larger
    ones, into those that this network takes."""

    network: nn.Module
    adapter: Callable[[Tensor], Tensor] | None = None

    def features(self, images_BCHW: Tensor) -> tuple[Tensor | None, Tensor]:
        """The last block's map (B, C, h, w), if the architecture has one, and one vector per image, (B, D)."""
        if self.adapter is not None:
            images_BCHW = self.adapter(images_BCHW)
        map_BCHW, given_BD = self._last(images_BCHW)
        return map_BCHW, (given_BD if map_BCHW is None else map_BCHW.mean((2, 3))).float()

    def map_on(self, grid: Grid, images_BCHW: Tensor) -> Tensor:
        """The last block's map, pooled to ``grid``: (B, C, rows, columns)."""
        map_BCHW, _ = self.features(images_BCHW)
        assert map_BCHW is not None
        return tokens_on_grid(map_BCHW.float(), grid).mT.unflatten(2, grid)

    def _last(self, images_BCHW: Tensor) -> Features:
        return last_features(self.network, images_BCHW)


@dataclass(frozen=True)
class CachedFeatureExtractor(FeatureExtractor):
    """A network that is compared with several others: its features of a batch, identified by a hash of the pixels, are
    computed once.

    Features beyond :data:`MOST_BYTES` are computed each time. ``cache`` is shared by extractors of the same network.
    """

    cache: dict[bytes, Features] = field(default_factory=dict)

    def _last(self, images_BCHW: Tensor) -> Features:
        pixels = images_BCHW.cpu().contiguous()
        key = hashlib.blake2b(pixels.numpy().tobytes(), key=repr(tuple(pixels.shape)).encode()).digest()
        if key in self.cache:
            return self.cache[key]
        found = super()._last(images_BCHW)
        if sum(map(_size, self.cache.values())) + _size(found) <= MOST_BYTES:
            self.cache[key] = found
        return found


def _size(features: Features) -> int:
    return sum(each.nbytes for each in features if each is not None)


@torch.no_grad()
def common_grid(
    networks: Mapping[str, FeatureExtractor], images_BCHW: Tensor, notes: list[str]
) -> Grid | None:
    """The coarsest grid of the networks' last blocks; None, with a note, if one has no map, or too few patches."""
    maps = {name: network.features(images_BCHW)[0] for name, network in networks.items()}
    lacking = [name for name, found in maps.items() if found is None]
    if lacking:
        notes.append(
            f"timm has no intermediate features of the network ({lacking[0]}): no figures of patches"
        )
        return None
    sides = [found.shape[2:] for found in maps.values() if found is not None]
    grid = min(rows for rows, _ in sides), min(columns for _, columns in sides)
    if grid[0] * grid[1] < LEAST_PATCHES:
        notes.append(
            f"the last block has a grid of {grid[0]}×{grid[1]} patches, too few for figures of patches"
        )
        return None
    return grid
