"""Tokens of chosen blocks of any timm model, without prefix tokens, on a known grid.

Only this file knows about blocks, prefix tokens and grids. Features come from timm's ``forward_intermediates``, which
returns block outputs without prefix tokens, before the final norm: of any architecture as feature maps, and of those
that compute on tokens also as these tokens. Shape suffixes: B images, C channels, H and W the grid, N = H·W tokens.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.errors import UserError
from isometry.models.heads import Logits, as_logits

Grid = tuple[int, int]
Layout = Literal["NCHW", "NLC"]

ENTRANCES = ("forward_intermediates", "forward_head")
"""Methods of a timm model, besides forward, that :class:`TappedModel` calls."""


class TappedModel(nn.Module):
    """A timm classifier that returns its logits and the features of some blocks in one forward pass.

    Args:
        model: a timm model.
        blocks: block numbers from 0, ascending (stages, for hierarchical models).
        layout: of the features: ``"NCHW"`` maps, or ``"NLC"`` tokens, if the architecture computes on tokens.
    """

    def __init__(self, model: nn.Module, blocks: list[int], layout: Layout = "NCHW") -> None:
        super().__init__()
        self.model: Any = model
        self.blocks, self.layout = blocks, layout

    def forward(self, input_BCHW: Tensor) -> tuple[Logits, list[Tensor]]:
        """Logits (a pair in a training DeiT with a distillation head), and the features of each tapped block."""
        if not self.blocks:
            return as_logits(self.model, self.model(input_BCHW)), []
        last, features = self.model.forward_intermediates(
            input_BCHW, indices=self.blocks, norm=False, output_fmt=self.layout
        )
        return as_logits(self.model, self.model.forward_head(last)), features


def last_features(model: Any, input_BCHW: Tensor) -> tuple[Tensor | None, Tensor]:
    """The last block's feature map, (B, C, H, W), after the final norm where timm applies it, and the classifier's
    input, (B, D); no map of an architecture without intermediate features.
    """
    if not hasattr(model, "forward_intermediates"):
        last = model.forward_features(input_BCHW)
        return None, model.forward_head(last, pre_logits=True).flatten(1)
    last, features = model.forward_intermediates(input_BCHW, indices=1, norm=True, output_fmt="NCHW")
    return features[0], model.forward_head(last, pre_logits=True).flatten(1)


def pooled_features(model: Any, input_BCHW: Tensor) -> tuple[Tensor | None, Tensor]:
    """Two vectors per image: the mean of the patches of :func:`last_features`, (B, C), and the classifier's input,
    (B, D).
    """
    map_BCHW, given_BD = last_features(model, input_BCHW)
    return None if map_BCHW is None else map_BCHW.mean((2, 3)), given_BD


@dataclass(frozen=True)
class BlockShape:
    """A tapped block's output: its number, channels, token grid (rows, columns), and the layout that timm gives it."""

    block: int
    width: int
    grid: Grid
    layout: Layout = "NCHW"


@dataclass(frozen=True)
class BlockPair:
    """A student block and the teacher block that it learns from."""

    student: BlockShape
    teacher: BlockShape

    @property
    def grid(self) -> Grid:
        """The common grid: the coarser of the two in each direction."""
        (student_h, student_w), (teacher_h, teacher_w) = self.student.grid, self.teacher.grid
        return min(student_h, teacher_h), min(student_w, teacher_w)

    @property
    def alignment(self) -> str:
        """How the grids are aligned, as text."""
        grids = {"student": self.student.grid, "teacher": self.teacher.grid}
        pooled = " and ".join(name for name, grid in grids.items() if grid != self.grid)
        return f"{pooled} pooled to {self.grid[0]}×{self.grid[1]}" if pooled else "same grid"


def tokens_on_grid(features_BCHW: Tensor, grid: Grid) -> Tensor:
    """Tokens (B, N, C) of a feature map, average-pooled to ``grid`` if that is coarser than the map."""
    if tuple(features_BCHW.shape[-2:]) != grid:
        features_BCHW = F.adaptive_avg_pool2d(features_BCHW, grid)
    return features_BCHW.flatten(2).transpose(1, 2)


def block_tokens(features: Tensor, shape: BlockShape, grid: Grid) -> Tensor:
    """Tokens (B, N, C) of a block on ``grid``, from its features in either layout."""
    if features.ndim == 3 and shape.grid == grid:
        return features
    features_BCHW = features if features.ndim == 4 else features.mT.unflatten(2, shape.grid)
    return tokens_on_grid(features_BCHW, grid)


def layout_of(shapes: list[BlockShape]) -> Layout:
    """The layout of a model's features, the same for all its blocks."""
    return shapes[0].layout if shapes else "NCHW"


def block_count(model: Any, name: str) -> int:
    """Blocks (stages, for hierarchical models) that can be tapped; raises UserError if there are none."""
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
        raise UserError(
            f"{name}: timm has no intermediate features for this architecture; use terms without tokens"
        )
    return len(model.feature_info)


def first_and_last(*blocks: int) -> tuple[list[int], ...]:
    """The first and last four of each number of blocks (Table 5 of arXiv:2107.01378v1), fewer where one has fewer."""
    count = min(8, *blocks)
    return tuple([*range(math.ceil(count / 2)), *range(own - count // 2, own)] for own in blocks)


def in_smaller(blocks: list[int], count: int, smaller: int) -> list[int | None]:
    """The positions of tapped blocks in a network of fewer blocks: at the same distance from the nearer end.

    The first four and last four stay the first four and last four. None for a block that its half lacks. ``blocks`` are
    numbers in the full-size network, which has ``count`` blocks.
    """
    if count == smaller:
        return list(blocks)
    half, own_half = math.ceil(count / 2), math.ceil(smaller / 2)
    places = [block if block < half else smaller - (count - block) for block in blocks]
    return [
        place if (place < own_half) == (block < half) else None
        for block, place in zip(blocks, places, strict=True)
    ]


def parse_blocks(chosen: str | list[int] | None, option: str) -> list[int] | None:
    """Block numbers from ``0,1,10,11`` or a list; raises UserError for anything else."""
    if chosen is None or isinstance(chosen, list):
        return chosen
    try:
        return [int(number) for number in chosen.replace(" ", "").strip("[]").split(",")]
    except ValueError as error:
        raise UserError(
            f"{option} {chosen}: give block numbers from 0 with commas, e.g. 0,1,10,11"
        ) from error


def choose_blocks(
    student: nn.Module,
    teacher: nn.Module,
    student_taps: str | list[int] | None = None,
    teacher_taps: str | list[int] | None = None,
) -> tuple[list[int], list[int]]:
    """The blocks to tap in both models: the given ones, else the first four and the last four of each.

    Raises:
        UserError: a block that a model lacks, numbers that do not ascend, or lists of different length.
    """
    counts = block_count(student, "the student"), block_count(teacher, "the teacher")
    chosen = []
    for taps, count, default, option in zip(
        (student_taps, teacher_taps),
        counts,
        first_and_last(*counts),
        ("--taps.student", "--taps.teacher"),
        strict=True,
    ):
        blocks = parse_blocks(taps, option)
        blocks = default if blocks is None else blocks
        lacking = [block for block in blocks if not 0 <= block < count]
        if lacking:
            raise UserError(f"{option}: the model has no block {lacking[0]}; its blocks are 0 to {count - 1}")
        if sorted(set(blocks)) != blocks:
            raise UserError(f"{option}: block numbers must ascend, without repeats; these are {blocks}")
        chosen.append(blocks)
    if len(chosen[0]) != len(chosen[1]):
        raise UserError(
            f"--taps.student names {len(chosen[0])} blocks and --taps.teacher {len(chosen[1])}; give equally many"
        )
    return chosen[0], chosen[1]


@torch.no_grad()
def block_shapes(model: nn.Module, blocks: list[int], input_size: tuple[int, int, int]) -> list[BlockShape]:
    """Widths and grids of the blocks, from one image of zeros."""
    was_training = model.training
    model.eval()
    parameter = next(model.parameters())
    image = torch.zeros(1, *input_size, device=parameter.device, dtype=parameter.dtype)
    _, features = TappedModel(model, blocks)(image)
    layout = _layout(model, blocks, image)
    model.train(was_training)
    return [
        BlockShape(block, feature.shape[1], (feature.shape[2], feature.shape[3]), layout)
        for block, feature in zip(blocks, features, strict=True)
    ]


def _layout(model: nn.Module, blocks: list[int], image: Tensor) -> Layout:
    try:
        _, features = TappedModel(model, blocks, "NLC")(image)
    except AssertionError:
        # How timm refuses a layout that an architecture does not have.
        return "NCHW"
    return "NLC" if all(feature.ndim == 3 for feature in features) else "NCHW"


def stage_shapes(model: nn.Module, name: str, input_size: tuple[int, int, int]) -> list[BlockShape]:
    """The last block of each grid, from fine to coarse: the stages of a hierarchical network, or the one last block of
    a plain one.

    Raises:
        UserError: timm gives no features of the architecture, or the network has no blocks.
    """
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
        raise UserError(
            f"{name}: timm gives no feature maps of this architecture; choose another, e.g. a ViT or a ResNet"
        )
    if not len(model.feature_info):  # type: ignore[arg-type]
        raise UserError(f"{name}: has no blocks (a depth of 0), so no feature maps; give one with blocks")
    shapes = block_shapes(model, list(range(len(model.feature_info))), input_size)  # type: ignore[arg-type]
    last = {shape.grid: shape for shape in shapes}
    return sorted(last.values(), key=lambda shape: shape.block)


def stage_maps(model: Any, input_BCHW: Tensor, blocks: list[int]) -> list[Tensor]:
    """Feature maps (B, C, H, W) of some blocks, after the final norm where timm applies it, as for the classifier."""
    return model.forward_intermediates(
        input_BCHW, indices=blocks, norm=True, output_fmt="NCHW", intermediates_only=True
    )


def pair_blocks(
    student: nn.Module,
    teacher: nn.Module,
    student_input: tuple[int, int, int],
    teacher_input: tuple[int, int, int],
    student_taps: str | list[int] | None = None,
    teacher_taps: str | list[int] | None = None,
) -> list[BlockPair]:
    """The pairs of blocks whose tokens are compared, in order; errors as in :func:`choose_blocks`."""
    student_blocks, teacher_blocks = choose_blocks(student, teacher, student_taps, teacher_taps)
    student_shapes = block_shapes(student, student_blocks, student_input)
    return list(map(BlockPair, student_shapes, block_shapes(teacher, teacher_blocks, teacher_input)))


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a network: two or more children of a parent whose children are all of one class.

    Only modules with children count, and of nested ones only the innermost: ``blocks.*`` of a ViT,
    ``stages.*.blocks.*`` of a ConvNeXt, ``layer1.*`` of a ResNet. Empty for a network without repeated blocks. The
    blocks don't overlap and are in the order of ``modules()``.
    """
    repeated: list[nn.Module] = []
    for parent in network.modules():
        children = list(parent.children())
        if len(children) > 1 and len(set(map(type, children))) == 1 and any(children[0].children()):
            repeated += children
    known = {id(block) for block in repeated}
    return [
        block
        for block in repeated
        if not any(id(part) in known for part in block.modules() if part is not block)
    ]
