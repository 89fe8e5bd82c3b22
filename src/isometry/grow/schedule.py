"""`--grow.*` options -> the stages of a run that grows."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import gt
from typing import Any

from torch import nn

from isometry.config import GrowConfig
from isometry.errors import UserError, counted
from isometry.grow.architectures import Numbers, Size, find_architecture, format_size
from isometry.grow.operators import find_operators


@dataclass(frozen=True)
class Stage:
    """A span of epochs at one size.

    ``arguments`` build the size when added to those of the full-size model; ``label`` has the part of it that changes,
    as ``depth 6``. ``size`` is None in a run that does not grow.
    """

    number: int
    first_epoch: int
    epochs: int
    size: Size | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True)
class Schedule:
    """The stages of a run in order; the last is the full-size model.

    ``target`` is that model on the meta device; None in a run that does not grow.
    """

    stages: list[Stage]
    target: nn.Module | None = None

    @property
    def grows(self) -> bool:
        """Whether there is more than one size."""
        return len(self.stages) > 1

    @property
    def sizes(self) -> list[Size]:
        """Sizes of the stages; none in a run that does not grow."""
        return [stage.size for stage in self.stages if stage.size is not None]

    def at(self, epoch: int) -> Stage:
        """The stage that the epoch (from 0) belongs to."""
        return next(stage for stage in reversed(self.stages) if stage.first_epoch <= epoch)

    def describe(self, stage: Stage) -> str:
        """``stage 1/2 (depth 6)``; empty in a run that does not grow."""
        return f"stage {stage.number + 1}/{len(self.stages)} ({stage.label})" if self.grows else ""

    def resolved(self, grow: GrowConfig) -> GrowConfig:
        """The options with all sizes and epochs filled in, for the run's ``config.yaml``."""
        if not self.grows:
            return grow
        return replace(
            grow,
            depth=",".join(format_size(size.depth) for size in self.sizes),
            width=",".join(format_size(size.width) for size in self.sizes),
            at=",".join(str(stage.first_epoch) for stage in self.stages),
        )


def one_stage(grow: GrowConfig, epochs: int) -> Schedule:
    """The schedule of a run that does not grow; raises UserError for an unknown operator, or epochs without sizes."""
    find_operators(grow)
    if grow.at is not None:
        raise UserError("--grow.at: names epochs and no sizes; add --grow.depth or --grow.width")
    return Schedule([Stage(0, 0, epochs)])


def make_schedule(grow: GrowConfig, epochs: int, target: nn.Module, name: str) -> Schedule:
    """The stages that the options name, of a run that grows.

    Args:
        grow, epochs: of the run.
        target: the full-size model (torch's meta device will do).
        name: of the model, for error messages.

    Raises:
        UserError: the sizes shrink, don't end at full size, don't fit in the epochs, or are none of the architecture's;
            or an operator is unknown.
    """
    find_operators(grow)
    architecture = find_architecture(target, name)
    full = architecture.size(target)
    depths = _sizes(grow.depth, "--grow.depth", full.depth)
    widths = _sizes(grow.width, "--grow.width", full.width)
    count = max(len(depths), len(widths))
    depths = depths * count if grow.depth is None else depths
    widths = widths * count if grow.width is None else widths
    if len(depths) != len(widths):
        raise UserError(
            f"--grow.depth names {len(depths)} stages and --grow.width {len(widths)}; name the same number"
        )
    sizes = list(map(Size, depths, widths))
    _check_growth(sizes)
    firsts = _first_epochs(grow.at, epochs, count)
    stages = [
        Stage(number, first, end - first, size, architecture.arguments(target, size), _label(size, sizes))
        for number, (first, end, size) in enumerate(zip(firsts, [*firsts[1:], epochs], sizes, strict=True))
    ]
    return Schedule(stages, target)


def _sizes(given: Any, option: str, full: Numbers) -> list[Numbers]:
    """``6,12`` or ``2-2-2-2,2-2-6-2``, or lists of the same -> one tuple per stage; ``full`` alone if not given."""
    if given is None:
        return [full]
    half = tuple(max(1, number // 2) for number in full)
    example = f"e.g. {option} {format_size(half)},{format_size(full)}"
    sizes = [_one_size(entry, option, len(full), example) for entry in _entries(given)]
    if not sizes:
        raise UserError(f"{option}: names no size; name one for each stage, {example}")
    if sizes[-1] != full:
        raise UserError(
            f"{option}: ends at {format_size(sizes[-1])}, and the model has {format_size(full)}; end there"
        )
    return sizes


def _one_size(entry: Any, option: str, count: int, example: str) -> Numbers:
    parts = entry.split("-") if isinstance(entry, str) else entry
    try:
        numbers = tuple(map(_integer, parts if isinstance(parts, list | tuple) else [parts]))
    except ValueError as error:
        raise UserError(f"{option} {entry}: expected sizes separated by commas, {example}") from error
    if len(numbers) != count:
        raise UserError(
            f"{option} {format_size(numbers)}: a size of this model has {count} numbers, {example}"
        )
    if min(numbers) < 1:
        raise UserError(f"{option} {format_size(numbers)}: must be at least 1")
    return numbers


def _entries(given: Any) -> Any:
    return given.replace(" ", "").strip("[]").split(",") if isinstance(given, str) else given


def _integer(number: Any) -> int:
    # int alone accepts 2.5 and True.
    return int(str(number))


def _label(size: Size, sizes: list[Size]) -> str:
    """The part of a size that differs between the first stage and the last."""
    first, last = vars(sizes[0]), vars(sizes[-1])
    return ", ".join(
        f"{name} {format_size(n)}" for name, n in vars(size).items() if first[name] != last[name]
    )


def _check_growth(sizes: list[Size]) -> None:
    if len(sizes) < 2:
        raise UserError("--grow: names one size; name two or more, e.g. --grow.depth 6,12")
    for before, after in pairwise(sizes):
        for name, old in vars(before).items():
            new = vars(after)[name]
            if any(map(gt, old, new)):
                raise UserError(
                    f"--grow.{name}: {format_size(old)} to {format_size(new)} shrinks; sizes must grow"
                )
        if before == after:
            raise UserError(
                f"--grow: two consecutive stages have {before}; each must be larger than the one before"
            )


def _first_epochs(given: Any, epochs: int, count: int) -> list[int]:
    """First epochs of the stages: those of ``--grow.at``, or of equal segments."""
    if given is None:
        if count > epochs:
            raise UserError(f"--grow: {count} stages don't fit in {counted(epochs, 'epoch')}; raise --epochs")
        return [round(number * epochs / count) for number in range(count)]
    try:
        firsts = list(map(_integer, _entries(given)))
    except ValueError as error:
        raise UserError(
            f"--grow.at {given}: expected epochs separated by commas, e.g. --grow.at 0,150"
        ) from error
    if len(firsts) != count:
        raise UserError(f"--grow.at names {len(firsts)} epochs for {count} stages; name the same number")
    if firsts[0] != 0 or sorted(set(firsts)) != firsts:
        raise UserError(f"--grow.at {','.join(map(str, firsts))}: must start with 0 and increase")
    if firsts[-1] >= epochs:
        raise UserError(f"--grow.at: stage {count} would start at epoch {firsts[-1]}, and there are {epochs}")
    return firsts
