"""The folder of a comparison: ``plan.yaml`` says which comparison it belongs to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from isometry.cli.compare_plan import TASKS, UNTRAINED, CompareConfig, Plan
from isometry.cli.compare_results import OUTPUTS
from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.files import check_replaceable, disk_errors, write_atomically
from isometry.parsing import read_yaml
from isometry.recipes import changed_options, saved_config, saved_options, with_former_defaults
from isometry.report.terminal import print_notes

RECIPES = ("teacher_recipe", "start_recipe")
"""Keys of ``plan.yaml`` beside the variants and tasks."""
END = "...\n"
"""YAML's mark of a document's end: a ``plan.yaml`` without it is cut off, or of an older version."""
MENDING = (
    "delete it and give the recipe that it was begun with, which keeps finished runs, or give another --out"
)


def claim(out: Path, plan: Plan, config: CompareConfig, console: Console) -> None:
    """Writes ``plan.yaml``; a folder belongs to one comparison, whose seeds and tasks may become more.

    The variants and tasks of ``plan`` get the defaults of the version that began it.

    Raises:
        UserError: it belongs to another comparison, or ``plan.yaml`` is damaged.
    """
    recipes = {name: getattr(config, name) for name in RECIPES}
    path, notes, tasks = out / "plan.yaml", list[str](), dict[str, Any]()
    if path.is_file():
        saved, whole = _read_plan(path)
        tasks = saved.pop(TASKS, {})
        same = {key: saved.pop(key, None) for key in recipes} == recipes
        same = same and saved.keys() == plan.variants.keys()
        same = same and plan.untrained == _take_untrained(saved)
        same = same and _unchanged(saved, plan.variants, str(path), notes)
        same = same and _unchanged(tasks, plan.tasks, str(path), notes)
        if not same:
            if not whole:
                raise UserError(f"{path}: is of other variants or options, or cut off (no end): {MENDING}")
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
        content = {**recipes, **({TASKS: tasks} if tasks else {}), **variants}
        write_atomically(path, yaml.safe_dump(content, explicit_end=True))


def _read_plan(path: Path) -> tuple[dict[str, Any], bool]:
    """The content of ``plan.yaml``, and whether it is known to be there to its end."""
    try:
        saved = read_yaml(path, str(path))
    except UserError as error:
        raise UserError(f"{error}; it is damaged: {MENDING}") from error
    variants = [options for name, options in saved.items() if name not in (*RECIPES, TASKS)]
    # All are written at once, so a version has the same options for each.
    alike = all(isinstance(each, dict) for each in variants) and len({_names(each) for each in variants}) == 1
    if not alike or not isinstance(saved.get(TASKS, {}), dict):
        why = "its variants have not the same options" if variants else "it has no variants"
        raise UserError(f"{path}: is damaged ({why}): {MENDING}")
    return saved, path.read_text(encoding="utf-8").endswith(END)


def _names(options: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(options) - {UNTRAINED}


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
