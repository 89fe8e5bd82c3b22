"""What stands for each of the paper's runs: `experiments.yaml` as configs on the digits and commands at full size."""

import json
import shlex
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from isometry.cli.arguments import parse
from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.recipes import find_recipe, load, with_overrides

TEACHER_SEED = 0
"""One teacher of each kind for all seeds of the students, as published weights are."""


@dataclass(frozen=True)
class Experiment:
    """A run on the digits, and the command line of the paper's own.

    Attributes:
        teacher: its key among the teachers; empty for none.
        student: its key among the students.
        digits: options over the student's recipe.
        recipe: of ImageNet, a name of :func:`isometry.recipes.shipped_recipes`.
        full: options over that.
    """

    teacher: str
    student: str
    digits: tuple[str, ...]
    recipe: str
    full: tuple[str, ...]

    def full_command(self, name: str) -> str:
        """The run of the paper on 8 GPUs."""
        verb = "distill" if self.teacher else "train"
        words = ["torchrun", "--nproc_per_node", "8", "-m", "isometry", verb]
        words += ["--config", f"recipes/{self.recipe}", "--data-dir", "IMAGENET", "--out", f"runs/{name}"]
        return shlex.join([*words, *self.full])


@dataclass(frozen=True)
class Experiments:
    """Recipes of the teachers and of the students by key, and the runs by the names that `published.yaml` uses."""

    teachers: dict[str, str]
    students: dict[str, str]
    runs: dict[str, Experiment]

    def teacher_plans(
        self, out: Path, wanted: Collection[str], overrides: dict[str, Any]
    ) -> dict[str, RunConfig]:
        """The teachers that the ``wanted`` runs learn from, by key.

        Raises:
            UserError: an override that no run has.
        """
        needed = {self.runs[name].teacher for name in wanted}
        # A student's terms and blocks are not a teacher's.
        shared = {key: value for key, value in overrides.items() if key not in ("losses", "taps")}
        return {
            key: replace(
                _config(recipe, (), shared), seed=TEACHER_SEED, out=str(teacher_folder(out, key).parent)
            )
            for key, recipe in self.teachers.items()
            if key in needed
        }

    def plan(self, name: str, seed: int, out: Path, overrides: dict[str, Any]) -> RunConfig:
        """A run on the digits with this seed.

        Raises:
            UserError: an override that no run has.
        """
        run = self.runs[name]
        config = _config(self.students[run.student], run.digits, overrides)
        teacher = f"local-dir:{teacher_folder(out, run.teacher)}" if run.teacher else ""
        return replace(config, teacher=teacher, seed=seed, out=str(run_folder(out, name, seed)))


def teacher_folder(out: Path, key: str) -> Path:
    """Where the network of a teacher is saved."""
    return out / "teachers" / key / "student"


def run_folder(out: Path, name: str, seed: int) -> Path:
    """The folder of a student's run."""
    return out / "runs" / name / f"seed-{seed}"


@cache
def experiments() -> Experiments:
    """The file that comes with the package."""
    told = load(files("reproduction").joinpath("experiments.yaml").read_text(encoding="utf-8"))
    runs = {name: _experiment(given) for name, given in told["runs"].items()}
    return Experiments(told["teachers"], told["students"], runs)


def _experiment(given: dict[str, str]) -> Experiment:
    both = given.get("options", "")
    digits, full = (tuple(shlex.split(given.get(side, both))) for side in ("digits", "full"))
    return Experiment(given.get("teacher", ""), given["student"], digits, given["recipe"], full)


def _config(recipe: str, options: tuple[str, ...], overrides: dict[str, Any]) -> RunConfig:
    # Networks as small as these are no faster on a GPU, and what is compared should come from one kind of machine.
    return _parsed(recipe, options, json.dumps({"device": "cpu", **overrides}))


@cache  # a row has many seeds, and parsing takes as long as some steps of training
def _parsed(recipe: str, options: tuple[str, ...], overrides: str) -> RunConfig:
    config = parse(RunConfig, ["--config", find_recipe(recipe), *options])
    config = with_overrides(config, json.loads(overrides), "--overrides")
    if config.workers:
        raise UserError(
            "--overrides workers: every process here is kept busy by a run of its own; leave it at 0"
        )
    return config
