"""How the output of a block lies: which tokens are patches, in which order, and on which grid.

Nothing is assumed of the network. A few pixels in one corner of the image are changed, and the token that enters the
first block and changes most is the one of that corner. Three corners tell the tokens before the patches, the width of
the grid and its height. Shape suffixes: B images, N tokens, C channels, H and W the grid.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isometry.errors import UserError
from isometry.models.taps import Grid

CORNER = 1 / 64
"""Side of the changed corner, as a share of the image's: no larger than a patch."""


@dataclass(frozen=True)
class PatchLayout:
    """How features lie: ``axes`` names those of a tensor.

    ``"BNC"``: tokens, of which the patches follow ``first`` others, row by row on ``grid``; ``"BCHW"`` or ``"BHWC"``:
    maps.
    """

    axes: str
    grid: Grid
    first: int = 0

    def as_map(self, features: Tensor) -> Tensor:
        """Features of a block in this layout -> a map (B, C, H, W).

        The grid of later blocks may be coarser, by the same factor in both directions.

        Raises:
            UserError: another number of dimensions or tokens than the layout's.
        """
        if self.axes != "BNC":
            if features.ndim != 4:
                raise UserError(f"a block gives {_shape(features)} where maps were expected")
            return features if self.axes == "BCHW" else features.permute(0, 3, 1, 2)
        grid = self._grid_of(features)
        patches_BNC = features[:, self.first : self.first + grid[0] * grid[1]]
        return patches_BNC.mT.unflatten(2, grid)

    def _grid_of(self, features: Tensor) -> Grid:
        rows, columns = self.grid
        own = features.shape[1] if features.ndim == 3 else 0
        if own >= self.first + rows * columns:
            return self.grid
        factor = 2
        while rows % factor == 0 and columns % factor == 0:
            if own == rows * columns // factor**2:
                return rows // factor, columns // factor
            factor *= 2
        raise UserError(
            f"a block gives {_shape(features)}, and the first one has {rows}×{columns} patches: their grid is not known"
        )


def probe_layout(entering: Callable[[Tensor], Tensor], image_1CHW: Tensor) -> PatchLayout:
    """The layout of what enters a network's first block.

    Args:
        entering: an image (1, C, H, W) -> what enters the first block, of any layout.
        image_1CHW: to begin with.

    Raises:
        UserError: changing a corner does not tell where its patch is.
    """
    before = entering(image_1CHW)
    changes = [
        _change(before, entering(_changed(image_1CHW, *corner))) for corner in ((0, 0), (0, 1), (1, 1))
    ]
    if before.ndim == 4:
        return _layout_of_map(changes, tuple(before.shape))
    if before.ndim == 3:
        return _layout_of_tokens(changes, before.shape[1])
    raise _unknown(f"{_shape(before)} enter the first block")


def _layout_of_map(changes: list[Tensor], shape: tuple[int, ...]) -> PatchLayout:
    """``changes`` are those of each number (d1, d2, d3) of one image."""
    for axes, (row, column) in (("BCHW", (1, 2)), ("BHWC", (0, 1))):
        grid = shape[row + 1], shape[column + 1]
        channels = 3 - row - column
        if [_corner(change.sum(channels)) for change in changes] == [(0, 0), (0, 1), (1, 1)]:
            return PatchLayout(axes, grid)
    raise _unknown(f"a change of a corner shows at no corner of the {shape[1:]} that enter the first block")


def _layout_of_tokens(changes: list[Tensor], tokens: int) -> PatchLayout:
    """``changes`` are those of each number (N, C) of one image."""
    first, end_of_row, last = (int(change.sum(1).argmax()) for change in changes)
    columns, patches = end_of_row - first + 1, last - first + 1
    if columns < 1 or patches < columns or patches % columns or last >= tokens:
        raise _unknown(
            f"changes of three corners show at the tokens {first}, {end_of_row} and {last}, which is no grid in rows"
        )
    return PatchLayout("BNC", (patches // columns, columns), first)


def _change(before: Tensor, after: Tensor) -> Tensor:
    if before.shape != after.shape:
        raise _unknown("the shape of what enters the first block depends on the pixels")
    change = (after.double() - before.double())[0].abs()
    if not change.any():
        raise _unknown("a change of a corner's pixels does not reach the first block")
    return change


def _changed(image_1CHW: Tensor, below: int, right: int) -> Tensor:
    image_1CHW = image_1CHW.clone()
    _, _, height, width = image_1CHW.shape
    high, wide = max(1, int(height * CORNER)), max(1, int(width * CORNER))
    rows = slice(height - high, height) if below else slice(0, high)
    columns = slice(width - wide, width) if right else slice(0, wide)
    image_1CHW[:, :, rows, columns] += 3
    return image_1CHW


def _corner(change: Tensor) -> tuple[int, int]:
    """Whether the largest change of a map is below the middle, and whether it is right of it."""
    # Not exactly at the corner: the kernels of several layers before the first block overlap there.
    rows, columns = change.shape
    row, column = divmod(int(change.argmax()), columns)
    return int(row > rows // 2), int(column > columns // 2)


def _shape(features: Tensor) -> str:
    return "×".join(map(str, features.shape))


def _unknown(why: str) -> UserError:
    return UserError(
        f"its patches can't be found ({why}); give a function that says where they are (python:)"
    )


def noise(size: tuple[int, int, int], like: Tensor) -> Tensor:
    """An image (1, C, H, W) of fixed noise, in the dtype and on the device of a parameter."""
    image = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    return image.to(like)
