"""`isometry compare`: variants of one run, each with the same seeds, side by side with intervals."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from isometry.config import RunConfig
from isometry.engine import execute
from isometry.errors import UserError
from isometry.geometry import last_block_maps
from isometry.parsing import parse, recipe_path, with_overrides
from isometry.report import (
    comparison_markdown,
    comparison_picture,
    comparison_row,
    comparison_table,
    maps_picture,
    models_table,
)

Row = dict[str, Any]


@dataclass
class CompareConfig:
    """What `isometry compare` takes, on the command line and in its recipe."""

    out: str = ""
    """Folder of all runs and of the comparison."""
    seeds: int = 5
    """Seeds, the same for every variant."""
    first_seed: int = 0
    """The first of them; the others follow."""
    base: str = ""
    """Recipe that all variants share, relative to this one."""
    teacher_recipe: str | None = None
    """Recipe of the teacher, trained first unless its folder is there; variants with terms on it get it."""
    baseline: str = ""
    """Variant that the others' gains are measured against."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options that each variant changes, by the variant's name."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Options changed in every run, the teacher's too; e.g. `--overrides epochs=2`."""


def compare(config: CompareConfig, recipe: str, console: Console) -> list[Row]:
    """Runs what is not there yet, prints and writes the table, the CSV and the picture; returns the rows.

    A run that is finished is not run again, and one that was stopped goes on: the same command resumes a comparison.

    Raises:
        UserError: as :func:`isometry.engine.execute`, or a comparison without variants.
    """
    if not config.variants:
        raise UserError(f"--config {recipe}: names no variants to compare")
    if not config.out:
        raise UserError("--out: no folder given for the comparison, e.g. --out runs/compare")
    if config.seeds < 1:
        raise UserError(f"--seeds {config.seeds}: must be at least 1")
    if config.baseline and config.baseline not in config.variants:
        raise UserError(f"--config {recipe}: baseline {config.baseline} is none of the variants")
    base = _base(config, recipe)
    plans = {
        name: with_overrides(base, given, f"{recipe}: variants.{name}")
        for name, given in config.variants.items()
    }
    out = Path(config.out)
    teacher = _teacher(config, recipe, out, console)
    figures: dict[str, list[Row]] = {}
    for seed in range(config.first_seed, config.first_seed + config.seeds):
        for name, plan in plans.items():
            given = (
                replace(plan, teacher=f"local-dir:{out}/teacher/student")
                if teacher and _has_teacher(plan)
                else plan
            )
            run = replace(given, seed=seed, out=str(out / name / f"seed-{seed}"))
            label = f"{name} · seed {seed}" if config.seeds > 1 else name
            others = [
                {**rows[-1], "model": other, "role": "companion"}
                for other, rows in figures.items()
                if other != name
            ]
            figures.setdefault(name, []).append(_result(run, console, label, others))
    rows = summarise(figures, config.baseline)
    models = model_rows(figures, teacher)
    write(out, rows, models, config.baseline)
    draw_geometry(out, base, models, config.first_seed)
    console.print(models_table(models))
    if config.seeds > 1:
        console.print(comparison_table(rows))
    _say_where(console, out, figures)
    return rows


def summarise(figures: dict[str, list[Row]], baseline: str) -> list[Row]:
    """A row a variant: mean and 95 % interval of top-1, and each seed's gain over the baseline."""
    values = {name: [row["top1"] for row in rows] for name, rows in figures.items()}
    return [
        comparison_row(name, tops, values[baseline] if baseline and name != baseline else None)
        for name, tops in values.items()
    ]


def model_rows(figures: dict[str, list[Row]], teacher: Row | None) -> list[Row]:
    """Rows of the table of models: the teacher, then each variant's mean over its seeds."""
    rows = [{**teacher, "model": "teacher"}] if teacher else []
    for name, found in figures.items():
        means = {
            key: sum(row[key] for row in found) / len(found) for key in ("top1", "images_per_s", "seconds")
        }
        rows.append({**found[0], **means, "model": name})
    return rows


def write(out: Path, rows: list[Row], models: list[Row], baseline: str) -> None:
    """``comparison.csv`` (one line a variant and seed), ``.md``, ``.json`` and ``.png``."""
    with (out / "comparison.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["variant", "number", "top1", "gain"])
        for row in rows:
            gains = row["gains"] or [""] * len(row["values"])
            for number, (value, gain) in enumerate(zip(row["values"], gains, strict=True)):
                writer.writerow([row["name"], number, value, gain])
    (out / "comparison.md").write_text(comparison_markdown(rows) + "\n", encoding="utf-8")
    (out / "comparison.json").write_text(
        json.dumps({"rows": rows, "models": models}, indent=1), encoding="utf-8"
    )
    comparison_picture(out / "comparison.png", rows, title="Top-1 by variant", baseline=baseline)


def draw_geometry(out: Path, base: RunConfig, models: list[Row], seed: int) -> None:
    """``geometry.png``: the relation maps of every model's last block, on the same validation images."""
    folders = {
        row[
            "model"
        ]: f"local-dir:{out / 'teacher' if row['model'] == 'teacher' else out / row['model'] / f'seed-{seed}'}/student"
        for row in models
    }
    maps = last_block_maps(folders, base)
    first = next(iter(maps.values()))
    captions = {
        row["model"]: f"{row['top1']:.1f} % · {row['params'] / 1e3:,.0f} k parameters"
        + ("" if maps[row["model"]] is first else f"\ngap {np.mean((maps[row['model']] - first) ** 2):.4f}")
        for row in models
    }
    title = "Relations between the patches of the same images, last block"
    maps_picture(out / "geometry.png", maps, captions, title)


def _base(config: CompareConfig, recipe: str) -> RunConfig:
    if not config.base:
        raise UserError(f"--config {recipe}: names no base recipe")
    base = parse(RunConfig, ["--config", str(recipe_path(config.base, recipe))])
    return with_overrides(base, config.overrides, "--overrides")


def _teacher(config: CompareConfig, recipe: str, out: Path, console: Console) -> Row | None:
    if config.teacher_recipe is None:
        return None
    plan = parse(RunConfig, ["--config", str(recipe_path(config.teacher_recipe, recipe))])
    known = {key: value for key, value in config.overrides.items() if key not in ("losses", "taps")}
    plan = with_overrides(plan, known, "--overrides")
    return _result(replace(plan, out=str(out / "teacher")), console, "teacher")


def _has_teacher(plan: RunConfig) -> bool:
    return any(name != "ce" for name in plan.losses)


def _result(run: RunConfig, console: Console, label: str, companions: Sequence[Row] = ()) -> Row:
    folder = Path(run.out)
    summary = folder / "summary.json"
    if not summary.is_file():
        outcome = execute(replace(run, resume=(folder / "config.yaml").is_file()), console, label, companions)
        if outcome is None:
            raise UserError("isometry compare runs in one process; use torchrun with distill")
    row = next(row for row in json.loads(summary.read_text(encoding="utf-8")) if row["role"] == "student")
    if "top1" not in row:
        raise UserError(f"{folder}: has no accuracy to compare; the data needs labels and a validation part")
    return row


def _say_where(console: Console, out: Path, figures: dict[str, list[Row]]) -> None:
    console.print(f"Folder   {out}", highlight=False, soft_wrap=True)
    console.print(f"Picture  {out / 'comparison.png'}", highlight=False, soft_wrap=True)
    last = list(figures)[-1]
    reports = sorted((out / last).glob("seed-*/report.html"))
    if reports:
        console.print(f"Report   {reports[0]}", highlight=False, soft_wrap=True)
