"""The recipe of a comparison -> the runs of it, without their seeds and folders."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isometry.cli.compare_results import OUTPUTS
from isometry.config import RunConfig, canonical
from isometry.errors import UserError
from isometry.losses import find_loss
from isometry.losses.base import parse_terms
from isometry.recipes import find_recipe, read_config, recipe_path, with_overrides
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
WEIGHTS = "the network of each variant"
OF_ALL_RUNS = {"out": "a folder inside --out", "resume": "a run that was stopped goes on"}
OF_VARIANTS = OF_ALL_RUNS | {"seed": "--first-seed and those after it"}
OF_TASKS = OF_VARIANTS | {"model": WEIGHTS, "pretrained": WEIGHTS, "initial_checkpoint": WEIGHTS}
"""Options that a comparison gives its runs, and what they are there; a recipe can't give others."""


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
    _refuse(OF_ALL_RUNS, config.overrides, "--overrides")
    for name, options in config.variants.items():
        _refuse(OF_VARIANTS, options, f"{recipe}: variants.{name}")
    for name, options in config.tasks.items():
        _refuse(OF_TASKS, options, f"{recipe}: tasks.{name}")
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


def _refuse(own: Mapping[str, str], options: Mapping[str, Any], where: str) -> None:
    """Refuses options that the comparison itself gives, and that would have no effect."""
    for key in options:
        if (name := canonical(str(key))) in own:
            raise UserError(f"{where}: {key}: compare sets it ({own[name]}); leave it out")


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
            _refuse(OF_ALL_RUNS, step, where)
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
    if config.task == "classify":
        _check_terms(config, where)
    kept = {
        key: value
        for key, value in overrides.items()
        if key not in OF_DISTILLATION and (config.task == "classify" or key in DENSE_OPTIONS)
    }
    return with_overrides(config, kept, "--overrides")


def _check_terms(config: RunConfig, where: str) -> None:
    """Refuses terms that would end the run, which begins after hours."""
    try:
        terms = [term.name for term in parse_terms(config.losses)]
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    needing = [name for name in terms if takes_teacher(name)]
    if needing and not config.teacher:
        raise UserError(f"{where}: losses.{needing[0]} needs a teacher; leave it out, or add the key teacher")


def takes_teacher(loss: str) -> bool:
    """Whether a loss, by its name, compares with a teacher."""
    return any("teacher" in name for name in find_loss(loss).inputs)
