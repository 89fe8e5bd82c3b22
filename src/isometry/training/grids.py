"""Grids of patches that don't divide each other, and the sizes of images that give grids that do.

Where the finer of two grids has no whole number of patches for each one of the coarser, it is pooled in windows that
overlap: a patch counts in two of them, and the relation map of the pooled tokens is not that of the network.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import nn

from isometry.models.build import build_model
from isometry.models.spec import ModelSpec, image_spec
from isometry.models.taps import BlockPair, BlockShape, Grid, block_shapes
from isometry.training.assemble import Run

MOST_TRIED = 3
"""Sizes that are tried of either network: each is built."""


def grid_advice(run: Run) -> list[str]:
    """A sentence on the first pair of blocks whose grids don't divide, with the sizes of images that mend all pairs,
    where the architectures take them; empty if all grids divide.
    """
    pairs = run.objective.pairs
    found = [pair for pair in pairs if overlaps(pair)]
    if not found or run.teacher is None:
        return []
    first, others = found[0], len(found) - 1
    more = f", and {others} more pair{'s' if others > 1 else ''}," if others else ""
    fault = (
        f"the grids of student block {first.student.block} ({_text(first.student.grid)} patches) and teacher block "
        f"{first.teacher.block} ({_text(first.teacher.grid)}){more} don't divide: {first.alignment} in windows that "
        "overlap, which distorts its relations"
    )
    advice = [*_student_sizes(run, pairs), *_teacher_sizes(run, pairs)]
    return [
        f"{fault}; {' or '.join(advice) or 'no size of images of either network was found that mends it'}"
    ]


def overlaps(pair: BlockPair) -> bool:
    """Whether the finer grid of a pair is pooled in windows that overlap."""
    sides = zip(pair.student.grid, pair.teacher.grid, strict=True)
    return any(max(each) % min(each) for each in sides)


def sizes_that_divide(pairs: Sequence[BlockPair], side: int) -> list[int]:
    """Sides of the student's images for which all grids divide, if they are proportional to the side, now ``side``.

    Those that make the most pairs equal come first, then the nearest.
    """
    scales = {
        side * theirs // ours
        for pair in pairs
        for ours, theirs in zip(pair.student.grid, pair.teacher.grid, strict=True)
        if side * theirs % ours == 0
    }
    scaled = {
        size: [replace(pair, student=_scaled(pair.student, size, side)) for pair in pairs] for size in scales
    }
    fitting = [
        size
        for size, changed in scaled.items()
        if all(0 not in pair.student.grid and not overlaps(pair) for pair in changed)
    ]
    return sorted(
        fitting,
        key=lambda size: (
            -sum(pair.student.grid == pair.teacher.grid for pair in scaled[size]),
            max(size / side, side / size),
        ),
    )


def _scaled(shape: BlockShape, size: int, side: int) -> BlockShape:
    """The shape at another size of images; a grid of 0 where that has no whole number of patches."""
    rows, columns = (each * size // side if each * size % side == 0 else 0 for each in shape.grid)
    return replace(shape, grid=(rows, columns))


def _student_sizes(run: Run, pairs: list[BlockPair]) -> Iterator[str]:
    def build(size: int) -> nn.Module:
        return replace(run.plan, spec=replace(run.plan.spec, img_size=size)).build()[0]

    blocks = [pair.student.block for pair in pairs]
    sizes = sizes_that_divide(pairs, run.spec.input_size[1])
    if found := _first_that_works(sizes, build, blocks, [pair.teacher.grid for pair in pairs]):
        yield f"--img-size {found[0]} gives the student {found[1]}"


def _teacher_sizes(run: Run, pairs: list[BlockPair]) -> Iterator[str]:
    config = run.config

    def build(size: int) -> nn.Module:
        kwargs = config.teacher_kwargs | {"img_size": size}
        return build_model(ModelSpec(config.teacher, kwargs, config.teacher_weights), flag="--teacher")[0]

    assert run.teacher is not None
    turned = [BlockPair(pair.teacher, pair.student) for pair in pairs]
    blocks = [pair.teacher.block for pair in pairs]
    sizes = sizes_that_divide(turned, image_spec(run.teacher).input_size[1])
    if found := _first_that_works(sizes, build, blocks, [pair.student.grid for pair in pairs]):
        yield f"--teacher-kwargs img_size={found[0]} gives the teacher {found[1]}"


def _first_that_works(
    sizes: Sequence[int], build: Callable[[int], nn.Module], blocks: list[int], others: Sequence[Grid]
) -> tuple[int, str] | None:
    """The first size that a network can be built for, with its weights, whose grids divide the others; and the grids as
    text."""
    for size in sizes[:MOST_TRIED]:
        try:
            network = build(size)
            shapes = block_shapes(network, blocks, image_spec(network, size).input_size)
        except Exception:
            # An architecture of one size says so in any way, when it is built, loads its weights, or sees an image.
            continue
        pairs = [
            BlockPair(shape, replace(shape, grid=grid)) for shape, grid in zip(shapes, others, strict=True)
        ]
        if not any(map(overlaps, pairs)):
            equal = all(shape.grid == grid for shape, grid in zip(shapes, others, strict=True))
            grids = " and ".join(dict.fromkeys(_text(shape.grid) for shape in shapes))
            return size, grids if equal else f"{grids}, which divide"
    return None


def _text(grid: Grid) -> str:
    return f"{grid[0]}×{grid[1]}"
