"""Counterparts of the paper's runs, from `experiments.yaml`: configs on the digits, commands at full size."""

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
from isometry.parsing import parse_yaml
from isometry.recipes import find_recipe, with_overrides

TEACHER_SEED = 0
"""All seeds of the students share one teacher of each kind, as with published weights."""


@dataclass(frozen=True)
class Experiment:
    """A run on the digits, and the paper's run as a command line.

    Attributes:
        teacher: key of the teacher; empty for none.
        student: key of the student.
        digits: options that override the student's recipe on the digits.
        recipe: the ImageNet recipe, a name of :func:`isometry.recipes.shipped_recipes`.
        full: options that override the ImageNet recipe.
    """

    teacher: str
    student: str
    digits: tuple[str, ...]
    recipe: str
    full: tuple[str, ...]

    def full_command(self, name: str) -> str:
        """Command of the paper's run, on 8 GPUs."""
        verb = "distill" if self.teacher else "train"
        words = ["torchrun", "--nproc_per_node", "8", "-m", "isometry", verb]
        words += ["--config", f"recipes/{self.recipe}", "--data-dir", "IMAGENET", "--out", f"runs/{name}"]
        return shlex.join([*words, *self.full])


@dataclass(frozen=True)
class Experiments:
    """``experiments.yaml``: recipes of teachers and students by key, runs by their names in `published.yaml`."""

    teachers: dict[str, str]
    students: dict[str, str]
    runs: dict[str, Experiment]

    def teacher_plans(
        self, out: Path, wanted: Collection[str], overrides: dict[str, Any]
    ) -> dict[str, RunConfig]:
        """Configs of the teachers of the ``wanted`` runs, by key.

        Raises:
            UserError: an invalid override.
        """
        needed = {self.runs[name].teacher for name in wanted}
        # Terms and blocks apply to students only.
        shared = {key: value for key, value in overrides.items() if key not in ("losses", "taps")}
        return {
            key: replace(
                _config(recipe, (), shared), seed=TEACHER_SEED, out=str(teacher_folder(out, key).parent)
            )
            for key, recipe in self.teachers.items()
            if key in needed
        }

    def plan(self, name: str, seed: int, out: Path, overrides: dict[str, Any]) -> RunConfig:
        """Config of a run on the digits.

        Raises:
            UserError: an invalid override.
        """
        run = self.runs[name]
        config = _config(self.students[run.student], run.digits, overrides)
        teacher = f"local-dir:{teacher_folder(out, run.teacher)}" if run.teacher else ""
        return replace(config, teacher=teacher, seed=seed, out=str(run_folder(out, name, seed)))


def teacher_folder(out: Path, key: str) -> Path:
    """Where the network of a teacher is saved."""
    return out / "teachers" / key / "student"


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Folder of a student's run."""
    return out / "runs" / name / f"seed-{seed}"


@cache
def experiments() -> Experiments:
    """``experiments.yaml``, parsed."""
    content = parse_yaml(files("reproduction").joinpath("experiments.yaml").read_text(encoding="utf-8"))
    runs = {name: _experiment(given) for name, given in content["runs"].items()}
    return Experiments(content["teachers"], content["students"], runs)


def _experiment(given: dict[str, str]) -> Experiment:
    both = given.get("options", "")
    digits, full = (tuple(shlex.split(given.get(side, both))) for side in ("digits", "full"))
    return Experiment(given.get("teacher", ""), given["student"], digits, given["recipe"], full)


def _config(recipe: str, options: tuple[str, ...], overrides: dict[str, Any]) -> RunConfig:
    # A GPU does not speed up networks this small, and compared runs should use one kind of device.
    return _parsed(recipe, options, json.dumps({"device": "cpu", **overrides}))


# Parsing takes as long as several training steps, and all seeds of a row share the result.
@cache
def _parsed(recipe: str, options: tuple[str, ...], overrides: str) -> RunConfig:
    config = parse(RunConfig, ["--config", find_recipe(recipe), *options])
    config = with_overrides(config, json.loads(overrides), "--overrides")
    if config.workers:
        raise UserError("--overrides workers: must be 0, as parallel runs already use all cores")
    return config
