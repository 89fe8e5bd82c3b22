"""The recipe of a comparison -> the runs of it, without their seeds and folders; and the folder that is its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from isometry.cli.compare_results import OUTPUTS
from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.files import check_replaceable, disk_errors, write_atomically
from isometry.parsing import read_yaml
from isometry.recipes import (
    changed_options,
    find_recipe,
    read_config,
    recipe_path,
    saved_config,
    saved_options,
    with_former_defaults,
    with_overrides,
)
from isometry.report.terminal import print_notes
from isometry.training.transfer.options import DENSE_OPTIONS, transfer_config

START, TEACHER, TASKS = "start", "teacher", "tasks"
"""Folders of the network that every variant starts from (and its row), of the teacher (and its row), of the tasks."""
UNTRAINED = "untrained"
"""The key of a variant whose network stays as it is before its first step."""
TAKEN = (TEACHER, TASKS, "plan.yaml", *OUTPUTS)
"""Names in the folder of a comparison that a variant can't have."""
LONGEST_NAME = 200
"""Most bytes of a variant's name; file systems take 255."""
OF_DISTILLATION = frozenset({"losses", "taps"})
"""Options that `--overrides` changes in variants alone."""


@dataclass
class CompareConfig:
    """Comparison."""

    out: str = ""
    """Output folder of all runs and of the comparison."""
    seeds: int = 5
    """Number of seeds, the same for every variant."""
    first_seed: int = 0
    """First seed; the others are consecutive."""
    base: str = ""
    """Recipe that all variants share, its path relative to this one."""
    teacher_recipe: str | list[Any] | None = None
    """Recipe of the teacher, trained first; variants whose losses need a teacher get it. Or a list of steps, each a
    recipe or options of `isometry transfer`, that go on with the network of the step before."""
    start_recipe: str | None = None
    """Recipe of the network that every variant starts from, trained first for each seed."""
    baseline: str = ""
    """Variant that gains are measured against."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options that each variant changes, by its name; `untrained: true` leaves its network as it begins."""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of `isometry transfer`, by a name: what each variant's network, and the teacher's, is transferred to."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Options of every run, the teacher's too; e.g. `--overrides epochs=2`."""


@dataclass(frozen=True)
class Plan:
    """The runs of a comparison. Seed and folder are each run's own, and so is the network where a run goes on with one.

    Attributes:
        base: what all variants share.
        variants, tasks: by name.
        untrained: names of the variants that are not trained.
        teacher: its steps, in order; none without a teacher.
        start: of the network that every variant starts from.
    """

    base: RunConfig
    variants: dict[str, RunConfig]
    untrained: frozenset[str]
    tasks: dict[str, RunConfig]
    teacher: list[RunConfig]
    start: RunConfig | None


def make_plan(config: CompareConfig, recipe: str) -> Plan:
    """The runs that the recipe asks for; writes nothing.

    Raises:
        UserError: a comparison without variants, names that can't be folders, options that are wrong.
    """
    _check(config, recipe)
    base = _recipe(config.base, recipe, config.overrides)
    given = {name: dict(options) for name, options in config.variants.items()}
    untrained = frozenset(name for name, options in given.items() if options.pop(UNTRAINED, False))
    return Plan(
        base,
        {
            name: with_overrides(base, options, f"{recipe}: variants.{name}")
            for name, options in given.items()
        },
        untrained,
        {
            name: _transfer(options, config.overrides, f"{recipe}: tasks.{name}")
            for name, options in config.tasks.items()
        },
        _teacher(config, recipe),
        _recipe(config.start_recipe, recipe, config.overrides) if config.start_recipe else None,
    )


def claim(out: Path, plan: Plan, config: CompareConfig, console: Console) -> None:
    """Writes ``plan.yaml``; a folder belongs to one comparison, whose seeds and tasks may become more.

    The variants and tasks of ``plan`` get the defaults of the version that began it.
    """
    recipes = {"teacher_recipe": config.teacher_recipe, "start_recipe": config.start_recipe}
    path, notes, tasks = out / "plan.yaml", list[str](), dict[str, Any]()
    if path.is_file():
        saved = read_yaml(path, str(path))
        tasks = saved.pop(TASKS, {})
        same = {key: saved.pop(key, None) for key in recipes} == recipes
        same = same and saved.keys() == plan.variants.keys()
        same = same and isinstance(tasks, dict) and plan.untrained == _take_untrained(saved)
        same = same and _unchanged(saved, plan.variants, str(path), notes)
        same = same and _unchanged(tasks, plan.tasks, str(path), notes)
        if not same:
            raise UserError(
                f"--out {out}: holds a comparison of other variants or options (plan.yaml); give another --out"
            )
    for name in OUTPUTS:
        check_replaceable(out / name)
    print_notes(console, dict.fromkeys(notes))
    tasks |= {name: saved_options(run) for name, run in plan.tasks.items()}
    variants = {
        name: saved_options(run) | ({UNTRAINED: True} if name in plan.untrained else {})
        for name, run in plan.variants.items()
    }
    with disk_errors(out, "choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(path, yaml.safe_dump({**recipes, **({TASKS: tasks} if tasks else {}), **variants}))


def _take_untrained(saved: Mapping[str, Any]) -> set[str]:
    """Takes the key out of the variants in ``plan.yaml``, whose other keys are options of a run."""
    variants = [(name, options) for name, options in saved.items() if isinstance(options, dict)]
    return {name for name, options in variants if options.pop(UNTRAINED, False)}


def _unchanged(saved: Mapping[str, Any], now: dict[str, RunConfig], where: str, notes: list[str]) -> bool:
    """Whether the runs that were saved compute what those of the same names do ``now``, which get former defaults."""
    for name in [name for name in now if name in saved]:
        begun, lacking = saved_config(saved[name], where)
        notes += lacking
        if changed_options(begun, now[name]):
            return False
        now[name] = with_former_defaults(now[name], begun)
    return True


def _check(config: CompareConfig, recipe: str) -> None:
    where = f"--config {recipe}"
    for wrong, message in (
        (
            not recipe,
            "--config: not given; give the recipe of a comparison, e.g. recipes/digits/ablation.yaml",
        ),
        (
            not config.variants,
            f"{where}: has no variants; add the key variants with the options that each changes",
        ),
        (not config.out, "--out: no folder given for the comparison, e.g. --out runs/compare"),
        (
            config.baseline and config.baseline not in config.variants,
            f"{where}: baseline {config.baseline} is none of the variants {', '.join(map(str, config.variants))}",
        ),
        (not config.base, f"{where}: has no base recipe; add the key base with its path"),
        (
            config.start_recipe and START in config.variants,
            f"{where}: a variant can't be called {START}, which is the name of start_recipe's network",
        ),
    ):
        if wrong:
            raise UserError(message)
    for name, options in config.variants.items():
        _check_folder_name(name, "variant", where)
        _check_untrained(name, options.get(UNTRAINED, False), bool(config.tasks), where)
    for name in config.tasks:
        _check_folder_name(name, "task", where)


def _check_folder_name(name: Any, kind: str, where: str) -> None:
    """Runs of a variant or a task are in a folder of its name in ``--out``, and nowhere else."""
    if not isinstance(name, str):
        raise UserError(f"{where}: the name of {kind} {name!r} is not text; put it in quotes")
    if name in TAKEN:
        raise UserError(
            f"{where}: a {kind} can't be called {name}, which is a name in every comparison's folder"
        )
    plain = name.isprintable() and not {"/", "\\"} & set(name) and not name.startswith(".")
    if not name.strip() or not plain or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise UserError(
            f"{where}: a {kind} can't be called {name[:40]!r}: it names a folder in --out, so it takes "
            f"printable characters without / and \\, no dot in front, {LONGEST_NAME} bytes at most"
        )


def _check_untrained(name: str, untrained: Any, measured: bool, where: str) -> None:
    if not isinstance(untrained, bool):
        raise UserError(f"{where}: variants.{name}.{UNTRAINED}: must be true or false, not {untrained!r}")
    if untrained and not measured:
        raise UserError(
            f"{where}: variant {name} is not trained, and only tasks measure such a network; add the key tasks"
        )


def _recipe(name: str, beside: str, overrides: Mapping[str, Any]) -> RunConfig:
    config = read_config(RunConfig, find_recipe(str(recipe_path(name, beside))))
    return with_overrides(config, overrides, "--overrides")


def _teacher(config: CompareConfig, recipe: str) -> list[RunConfig]:
    """The steps that make the teacher: a recipe's name is a training run, options with a task are a transfer."""
    given = config.teacher_recipe
    steps = [] if given is None else given if isinstance(given, list) else [given]
    shared = {key: value for key, value in config.overrides.items() if key not in OF_DISTILLATION}
    found = []
    for number, step in enumerate(steps, start=1):
        where = f"{recipe}: teacher_recipe, step {number}"
        if isinstance(step, str):
            found.append(_recipe(step, recipe, shared))
        elif isinstance(step, dict):
            found.append(_transfer(step, shared, where))
        else:
            raise UserError(f"{where}: {step!r} is neither a recipe nor options of isometry transfer")
        if isinstance(step, dict) and number == 1 and not found[0].model:
            raise UserError(f"{where}: has no model; give a timm name or the folder of a network")
        if isinstance(step, dict) and number > 1 and found[-1].model:
            raise UserError(f"{where}: names a model, and goes on with that of the step before; leave it out")
    return found


def _transfer(options: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> RunConfig:
    """The run that transfers a network, which it does not name yet, with the defaults of its task."""
    if "task" not in options:
        raise UserError(f"{where}: has no task; give classify, detect or segment")
    decides = {key: options[key] for key in ("task", "dataset") if isinstance(options.get(key), str)}
    config = transfer_config({}, decides, options, where)
    kept = {
        key: value
        for key, value in overrides.items()
        if key not in OF_DISTILLATION and (config.task == "classify" or key in DENSE_OPTIONS)
    }
    return with_overrides(config, kept, "--overrides")
