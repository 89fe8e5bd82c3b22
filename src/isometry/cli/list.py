"""`isometry list`: the recipes, losses, operators and models that there are, each with a line."""

import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path

import timm
import torch
from timm.models import is_model_pretrained

import isometry.models.cifar_resnet  # noqa: F401 - registers its networks with timm
from isometry.errors import UserError
from isometry.grow.architectures import find_architecture
from isometry.grow.operators import DepthOperator, WidthOperator
from isometry.grow.operators import available as operators
from isometry.losses import Loss, available
from isometry.prune.sites import check_prunable
from isometry.recipes import shipped_recipes
from isometry.report.formats import MISSING, params

WIDTH = 110
"""Characters that a recipe's line may have."""
SIZED = 40
"""Models that are built to be measured, which takes a fifth of a second each; of more, only names are shown."""
GIVEN = ("generator", "student_width", "teacher_width")
"""Arguments of a loss that no option sets."""

Row = tuple[str, ...]


@dataclass
class ListConfig:
    """A pattern is what a shell knows: 'deit*'. Sizes of models are shown where it fits few."""


def listing(named: Sequence[str]) -> Iterator[str]:
    """The lines that ``isometry list KIND [PATTERN]`` prints.

    Args:
        named: one of :data:`KINDS`; and which of its names, as a shell would have it: ``deit*``.

    Raises:
        UserError: no such kind, or no such name.
    """
    if len(named) not in (1, 2):
        raise UserError(
            f"list: takes one of {', '.join(KINDS)}, and a pattern in quotes, e.g. isometry list models 'deit*'"
        )
    kind, pattern = (*named, "*")[:2]
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KINDS)}"
        raise UserError(f"list {kind}: no such list; {hint}")
    names, rows = KINDS[kind]
    chosen = [name for name in names() if fnmatch(name, pattern)]
    if not chosen:
        near = get_close_matches(pattern.strip("*?"), names(), n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"isometry list {kind} shows all"
        raise UserError(f"list {kind} {pattern}: no such name; {hint}")
    yield from rows(chosen)


def first_line(told: str | None) -> str:
    """The first line of a docstring, its names in single quotes of code, without the period."""
    return (told or "").strip().partition("\n")[0].replace("``", "`").rstrip(".")


def loss_options(kind: type[Loss]) -> list[str]:
    """What can be set of a loss beside its weight: ``temperature`` as ``--losses.soft.temperature``."""
    arguments = inspect.signature(kind).parameters.values()
    named = [each.name for each in arguments if each.kind is each.POSITIONAL_OR_KEYWORD]
    return [name for name in named if name not in GIVEN]


def opening(recipe: Path) -> str:
    """The first sentence of a recipe's first comment."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines:
        if not line.strip("# ") or not line.startswith("#"):
            break
        comment.append(line.strip("# "))
    # A period before a small letter or a number belongs to an abbreviation: eq. 9.
    sentence = re.split(r"\.(?= [A-Z]|$)", " ".join(comment))[0]
    return textwrap.shorten(sentence, WIDTH, placeholder=" …")


def _table(rows: list[Row]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _recipes(names: list[str]) -> Iterator[str]:
    recipes = shipped_recipes()
    yield from _table([(name, opening(recipes[name])) for name in names])


def _losses(names: list[str]) -> Iterator[str]:
    yield from _table([("name", "options", "what it compares"), *map(_loss_row, names)])


def _loss_row(name: str) -> Row:
    kind = available()[name]
    return name, " ".join(loss_options(kind)) or MISSING, first_line(sys.modules[kind.__module__].__doc__)


def _operators(names: list[str]) -> Iterator[str]:
    rows = _operator_rows()
    yield from _table([("name", "option", "same answers", "what it does"), *(rows[name] for name in names)])


def _operator_rows() -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for operator in (*operators(DepthOperator).values(), *operators(WidthOperator).values()):
        rows[operator.name] = _operator_row(operator.name, operator.option, operator.preserves, operator)
    for method, module, preserves in (
        ("gates", "isometry.prune.gates", True),
        ("l1", "isometry.prune.l1", False),
    ):
        rows[method] = _operator_row(method, "--prune.method", preserves, importlib.import_module(module))
    return rows


def _operator_row(name: str, option: str, preserves: bool, told: object) -> Row:
    return name, option, "yes" if preserves else "no", first_line(inspect.getdoc(told))


def _models(names: list[str]) -> Iterator[str]:
    weights = {name: "yes" if is_model_pretrained(name) else "no" for name in names}
    if len(names) > SIZED:
        yield from _table([("name", "weights"), *weights.items()])
        yield f"{len(names):,} models; sizes are shown of up to {SIZED}, e.g. isometry list models 'deit*'"
        return
    head = ("name", "parameters", "weights", "grows", "prunes")
    yield from _table([head, *(_model_row(name, weights[name]) for name in names)])


def _model_row(name: str, weights: str) -> Row:
    with torch.device("meta"):
        model = timm.create_model(name)
    count = params(sum(parameter.numel() for parameter in model.parameters()))
    grows = _accepted(lambda: find_architecture(model, name))
    return name, count, weights, grows, _accepted(lambda: check_prunable(model, name, group=1))


def _accepted(check: Callable[[], object]) -> str:
    try:
        check()
    except UserError:
        return "no"
    return "yes"


KINDS: dict[str, tuple[Callable[[], list[str]], Callable[[list[str]], Iterator[str]]]] = {
    "recipes": (lambda: list(shipped_recipes()), _recipes),
    "losses": (lambda: list(available()), _losses),
    "operators": (lambda: list(_operator_rows()), _operators),
    "models": (timm.list_models, _models),
}
"""By name: the names that there are, and the lines of some of them."""
