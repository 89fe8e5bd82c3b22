"""`isometry list`: recipes, losses, operators and models, one on a line."""

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import takewhile
from pathlib import Path

import timm
import torch
from timm.models import is_model_pretrained

import isometry.models.cifar_resnet  # noqa: F401 - registers its networks with timm
from isometry.errors import UserError, did_you_mean
from isometry.grow.architectures import available as architectures
from isometry.grow.architectures import find_architecture
from isometry.grow.operators import Operator
from isometry.grow.operators import available as operators
from isometry.losses import Loss, available
from isometry.prune import gates, l1
from isometry.prune.sites import check_prunable
from isometry.recipes import shipped_recipes
from isometry.report.formats import MISSING, params

WIDTH = 110
"""Most characters of a recipe's summary."""
SIZED = 40
"""Most models whose sizes are shown; each is built to count them, which takes a fifth of a second."""
GIVEN = ("generator", "student_width", "teacher_width")
"""Arguments of a loss that are not options."""

Row = tuple[str, ...]


@dataclass
class ListConfig:
    """PATTERN is a shell pattern: 'deit*'. Sizes of models are shown if it matches few."""


def listing(named: Sequence[str]) -> Iterator[str]:
    """The lines that ``isometry list KIND [PATTERN]`` prints; ``named`` has one of :data:`KINDS`, and perhaps a shell
    pattern for its names: ``deit*``.

    Raises:
        UserError: no such kind, or no such name.
    """
    kind, pattern = (*named, "*")[:2]
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS, f"there are {', '.join(KINDS)}")
        raise UserError(f"list {kind}: no such list; {hint}")
    names, rows = KINDS[kind]
    chosen = [name for name in names() if fnmatch(name, pattern)]
    if not chosen:
        hint = did_you_mean(pattern.strip("*?"), names(), f"isometry list {kind} shows all")
        raise UserError(f"list {kind} {pattern}: no such name; {hint}")
    yield from rows(chosen)


def first_line(docstring: str | None) -> str:
    """The first line of a docstring in Markdown, without the period."""
    return (docstring or "").strip().partition("\n")[0].replace("``", "`").rstrip(".")


def loss_options(kind: type[Loss]) -> list[str]:
    """The options of a loss beside its weight: ``temperature`` for ``--losses.soft.temperature``."""
    arguments = inspect.signature(kind).parameters.values()
    named = [each.name for each in arguments if each.kind is each.POSITIONAL_OR_KEYWORD]
    return [name for name in named if name not in GIVEN]


def opening(recipe: Path) -> str:
    """The first sentence of the comment at a recipe's beginning."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#") and line.strip("# "), lines)
    text = " ".join(line.strip("# ") for line in comment)
    # A period before a small letter or a number belongs to an abbreviation: eq. 9.
    return textwrap.shorten(re.split(r"\.(?= [A-Z]|$)", text)[0], WIDTH, placeholder=" …")


def _table(rows: list[Row]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _recipes(names: list[str]) -> Iterator[str]:
    recipes = shipped_recipes()
    yield from _table([(name, opening(recipes[name])) for name in names])


def _losses(names: list[str]) -> Iterator[str]:
    losses = available()
    rows: list[Row] = [("name", "options", "what it compares")]
    for name in names:
        described = first_line(sys.modules[losses[name].__module__].__doc__)
        rows.append((name, " ".join(loss_options(losses[name])) or MISSING, described))
    yield from _table(rows)


def _operators(names: list[str]) -> Iterator[str]:
    rows, head = _operator_rows(), ("name", "option", "function-preserving", "what it does")
    yield from _table([head, *(rows[name] for name in names)])


def _operator_rows() -> dict[str, Row]:
    """Growth operators and pruning methods; "exact" ones preserve the network's function."""
    growth = sorted(operators(Operator).values(), key=lambda operator: operator.option)
    known: list[tuple[str, str, bool, object]] = [
        (each.name, each.option, each.preserves, each) for each in growth
    ]
    known += [("gates", "--prune.method", True, gates), ("l1", "--prune.method", False, l1)]
    return {
        name: (name, option, "yes" if exact else "no", first_line(inspect.getdoc(described)))
        for name, option, exact, described in known
    }


def _models(names: list[str]) -> Iterator[str]:
    weights = {name: "yes" if is_model_pretrained(name) else "no" for name in names}
    if len(names) > SIZED:
        yield from _table([("name", "weights"), *weights.items()])
        yield f"{len(names):,} models; sizes are shown for up to {SIZED}, e.g. isometry list models 'deit*'"
        return
    architectures()  # A file of them that cannot be imported is an error, not a "no".
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
"""By name: all names, and the lines of some of them."""
