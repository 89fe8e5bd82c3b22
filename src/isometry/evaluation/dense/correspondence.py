"""Patches of one view of an image found again in another view, by nearest neighbour of their features."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from isometry.data import ImageSpec
from isometry.models.taps import Grid
from isometry.seeding import derive_seed

Maps = Callable[[Tensor], Tensor]
"""Normalised images (B, C, H, W) -> feature maps (B, D, h, w)."""

AREA = 0.4, 1.0
"""Share of the image's area that a view shows, drawn uniformly."""
RATIO = 3 / 4, 4 / 3
"""Aspect ratio of a view relative to the image's, drawn uniformly in the logarithm."""
JITTER = 0.4
"""Brightness, contrast and, of colour images, saturation are scaled by factors of 0.6 to 1.4."""


@dataclass(frozen=True)
class View:
    """A crop of an image, scaled to the network's size, perhaps mirrored, in other colours.

    ``left``, ``top``, ``width`` and ``height`` are shares of the image's sides; ``brightness``, ``contrast`` and
    ``saturation`` factors of its colours.
    """

    left: float
    top: float
    width: float
    height: float
    mirrored: bool
    brightness: float
    contrast: float
    saturation: float

    def to_image(self, points_N2: np.ndarray) -> np.ndarray:
        """Points (x, y) of the view, as shares of its sides -> points of the image, (N, 2)."""
        across = 1 - points_N2[:, 0] if self.mirrored else points_N2[:, 0]
        return np.stack([self.left + across * self.width, self.top + points_N2[:, 1] * self.height], 1)

    def from_image(self, points_N2: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`to_image`; a point outside [0, 1]² is outside the view."""
        across = (points_N2[:, 0] - self.left) / self.width
        down = (points_N2[:, 1] - self.top) / self.height
        return np.stack([1 - across if self.mirrored else across, down], 1)


def draw_views(index: int) -> tuple[View, View]:
    """The two views of an image, a function of its index alone."""
    random = np.random.default_rng(derive_seed("correspondence", index))
    return _draw(random), _draw(random)


def _draw(random: np.random.Generator) -> View:
    area, ratio = random.uniform(*AREA), np.exp(random.uniform(*np.log(RATIO)))
    width, height = min(1.0, float(np.sqrt(area * ratio))), min(1.0, float(np.sqrt(area / ratio)))
    left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
    mirrored = bool(random.random() < 0.5)
    factors = random.uniform(1 - JITTER, 1 + JITTER, 3)
    return View(left, top, width, height, mirrored, *map(float, factors))


def seen(images_BCHW: Tensor, views: Sequence[View], spec: ImageSpec) -> Tensor:
    """The view of each image, normalised as the images are, (B, C, H, W).

    Pixels are interpolated bilinearly at exact places, without rounding of the crop. Colours, in [0, 1], are
    scaled by the brightness, then moved away from the image's mean by the contrast, then from the mean of each pixel's
    channels by the saturation, and clipped.
    """
    device = images_BCHW.device
    # Of affine_grid, where coordinates run from -1 to 1.
    centre = [(2 * view.left + view.width - 1, 2 * view.top + view.height - 1) for view in views]
    matrices = [
        [[-view.width if view.mirrored else view.width, 0, x], [0, view.height, y]]
        for view, (x, y) in zip(views, centre, strict=True)
    ]
    grid = F.affine_grid(
        torch.tensor(matrices, dtype=torch.float32, device=device),
        list(images_BCHW.shape),
        align_corners=False,
    )
    cropped = F.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)
    mean, std = (torch.tensor(each, device=device).view(1, -1, 1, 1) for each in (spec.mean, spec.std))
    factors_3B = torch.tensor([(view.brightness, view.contrast, view.saturation) for view in views]).T
    brightness, contrast, saturation = factors_3B.to(cropped)[..., None, None, None]
    colours = (cropped * std + mean) * brightness
    middle = colours.mean((1, 2, 3), keepdim=True)
    colours = middle + contrast * (colours - middle)
    grey = colours.mean(1, keepdim=True)
    colours = grey + saturation * (colours - grey)
    return (colours.clamp(0, 1) - mean) / std


def centres(grid: Grid) -> np.ndarray:
    """The centres (x, y) of a grid's patches, row by row, as shares of the view's sides: (N, 2)."""
    rows, columns = grid
    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], 1)


def right_patches(first: View, second: View, grid: Grid) -> np.ndarray:
    """For each patch of the first view, the number of the patch of the second whose centre is nearest to where its
    centre went, int64 (N,); -1 where that is outside the second view.

    The centre nearest to a point inside the view is that of the patch that contains it, so a match is right if the
    point lies in the patch: it is off by half a patch at most.
    """
    rows, columns = grid
    x_N, y_N = second.from_image(first.to_image(centres(grid))).T
    inside_N = (x_N >= 0) & (x_N < 1) & (y_N >= 0) & (y_N < 1)
    return np.where(inside_N, np.floor(y_N * rows) * columns + np.floor(x_N * columns), -1).astype(np.int64)


@torch.no_grad()
def matches(
    networks: Mapping[str, Maps], images: Iterable[tuple[Tensor, list[int]]], spec: ImageSpec, grid: Grid
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """For N images, how many patches each network matches rightly, {name: (N,)}, and how many there are to match, (N,).

    A patch of the first view is matched to the patch of the second with the largest cosine (the first, of equal ones).

    Args:
        networks: from images as ``spec`` describes them to features on ``grid``.
        images: batches of normalised images and their indices, by which the views are drawn.
    """
    right: dict[str, list[int]] = {name: [] for name in networks}
    trials: list[int] = []
    for images_BCHW, indices in images:
        pairs = [draw_views(index) for index in indices]
        views = [seen(images_BCHW, each, spec) for each in zip(*pairs, strict=True)]
        wanted_BN = np.stack([right_patches(first, second, grid) for first, second in pairs])
        trials += np.greater_equal(wanted_BN, 0).sum(1).tolist()
        for name, maps in networks.items():
            first_BNC, second_BNC = (_unit_tokens(maps(view)) for view in views)
            found_BN = (first_BNC @ second_BNC.mT).argmax(2).cpu().numpy()
            right[name] += np.equal(found_BN, wanted_BN).sum(1).tolist()
    return {name: np.array(hits) for name, hits in right.items()}, np.array(trials)


def _unit_tokens(maps_BCHW: Tensor) -> Tensor:
    return F.normalize(maps_BCHW.float().flatten(2).mT, dim=2)
