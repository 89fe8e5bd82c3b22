"""`isometry compare`: variants of one run, each with the same seeds, side by side with intervals."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from isometry.cli.arguments import parse
from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.evaluation.representations import last_block_maps
from isometry.files import disk_errors, write_atomically
from isometry.losses import find_loss
from isometry.recipes import recipe_path, with_overrides
from isometry.report.drawing.gains import comparison_picture
from isometry.report.drawing.maps import maps_picture
from isometry.report.records.intervals import comparison_row, comparison_times
from isometry.report.tables import comparison_grid, comparison_table, markdown_table, models_grid, rich_table
from isometry.training.run import execute

Row = dict[str, Any]

START = "start"
"""The row of the network that every variant starts from, and its folder."""
TAKEN = (
    "teacher",
    "plan.yaml",
    "comparison.csv",
    "comparison.md",
    "comparison.json",
    "comparison.png",
    "geometry.png",
)
"""Names in the folder of a comparison that no variant can have."""
LONGEST_NAME = 200
"""Bytes of a variant's name; file systems take 255."""


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
    start_recipe: str | None = None
    """Recipe of the network that every variant starts from, trained first, once a seed."""
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
        UserError: as :func:`isometry.training.run.execute`, or a comparison without variants.
    """
    _check(config, recipe)
    out = Path(config.out)
    base = _recipe(config.base, recipe, config.overrides)
    plans = {
        name: with_overrides(base, given, f"{recipe}: variants.{name}")
        for name, given in config.variants.items()
    }
    starting = {START: _recipe(config.start_recipe, recipe, config.overrides)} if config.start_recipe else {}
    _claim(out, plans, config)
    teacher = _train_teacher(config, recipe, out, console)
    figures: dict[str, list[Row]] = {name: [] for name in starting | plans}
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    for seed in seeds:
        beside: list[Row] = []
        for name, plan in (starting | plans).items():
            run = replace(plan, seed=seed, out=str(out / name / f"seed-{seed}"))
            if starting and name != START:
                run = replace(run, model=f"local-dir:{out / START / f'seed-{seed}' / 'student'}")
            if teacher and _asks_teacher(plan):
                run = replace(run, teacher=f"local-dir:{out}/teacher/student")
            row = _result(run, console, f"{name} · seed {seed}" if len(seeds) > 1 else name, beside)
            beside.append({**row, "model": name, "role": "companion"})
            figures[name].append(row)
    rows, models = summarise(figures, config.baseline), model_rows(figures, teacher)
    write(out, rows, models, seeds, config.baseline)
    if teacher:
        draw_geometry(out, base, models, config.first_seed)
    console.print(rich_table(models_grid(models)))
    if len(seeds) > 1 or config.baseline:
        console.print(comparison_table(rows))
    _say_where(console, out, list(plans)[-1])
    return rows


def summarise(figures: dict[str, list[Row]], baseline: str) -> list[Row]:
    """A row a variant: mean and 95 % interval of top-1, each seed's gain and speed-up over the baseline."""
    tops = {name: [row["top1"] for row in rows] for name, rows in figures.items()}
    seconds = {name: [row["seconds"] for row in rows] for name, rows in figures.items()}

    def against(values: dict[str, list[float]], name: str) -> list[float] | None:
        return values[baseline] if baseline and name != baseline else None

    return [
        comparison_row(name, tops[name], against(tops, name))
        | comparison_times(seconds[name], against(seconds, name))
        for name in figures
    ]


def model_rows(figures: dict[str, list[Row]], teacher: Row | None) -> list[Row]:
    """Rows of the table of models: the teacher, then each variant's mean over its seeds."""
    rows = [{**teacher, "model": "teacher"}] if teacher else []
    for name, found in figures.items():
        means = {
            key: sum(row[key] for row in found) / len(found)
            for key in ("top1", "macs", "images_per_s", "seconds")
        }
        rows.append({**found[0], **means, "model": name})
    return rows


def write(out: Path, rows: list[Row], models: list[Row], seeds: Sequence[int], baseline: str) -> None:
    """``comparison.csv`` (one line a variant and seed), ``.md``, ``.json`` and ``.png``."""
    with (out / "comparison.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["variant", "seed", "top1", "gain", "seconds", "speed_up"])
        for row in rows:
            none = [""] * len(seeds)
            columns = (row["values"], row["gains"] or none, row["seconds"], row["speed_ups"] or none)
            for seed, *cells in zip(seeds, *columns, strict=True):
                writer.writerow([row["name"], seed, *cells])
    (out / "comparison.md").write_text(markdown_table(comparison_grid(rows)) + "\n", encoding="utf-8")
    (out / "comparison.json").write_text(
        json.dumps({"rows": rows, "models": models}, indent=1), encoding="utf-8"
    )
    comparison_picture(out / "comparison.png", rows, title="Top-1 by variant", baseline=baseline)


def draw_geometry(out: Path, base: RunConfig, models: list[Row], seed: int) -> None:
    """``geometry.png``: the relation maps of every model's last block, on the same validation images.

    The first of ``models`` is the teacher, which the others' maps are measured against.
    """
    runs = {row["model"]: out / row["model"] / f"seed-{seed}" for row in models}
    folders = {name: folder / "student" for name, folder in (runs | {"teacher": out / "teacher"}).items()}
    maps = last_block_maps(folders, base)
    first = next(iter(maps.values()))
    captions = {
        row["model"]: f"{row['top1']:.1f} % · {row['params'] / 1e3:,.0f} k parameters"
        + ("" if maps[row["model"]] is first else f"\ngap {np.mean((maps[row['model']] - first) ** 2):.4f}")
        for row in models
    }
    title = "Relations between the patches of the same images, last block"
    maps_picture(out / "geometry.png", maps, captions, title)


def _check(config: CompareConfig, recipe: str) -> None:
    if not config.variants:
        raise UserError(f"--config {recipe}: names no variants to compare")
    if not config.out:
        raise UserError("--out: no folder given for the comparison, e.g. --out runs/compare")
    if config.seeds < 1:
        raise UserError(f"--seeds {config.seeds}: must be at least 1")
    if config.baseline and config.baseline not in config.variants:
        raise UserError(f"--config {recipe}: baseline {config.baseline} is none of the variants")
    if not config.base:
        raise UserError(f"--config {recipe}: names no base recipe")
    if config.start_recipe and START in config.variants:
        raise UserError(f"--config {recipe}: a variant can't be called {START}; start_recipe is")
    for name in config.variants:
        _check_folder_name(name, recipe)


def _check_folder_name(name: Any, recipe: str) -> None:
    """A variant's runs are in a folder of its name inside ``--out``, and nowhere else."""
    if not isinstance(name, str):
        raise UserError(
            f"--config {recipe}: a variant is called {name!r}, which is no text; put it in quotes"
        )
    if name in TAKEN:
        raise UserError(f"--config {recipe}: a variant can't be called {name}; a comparison has that itself")
    plain = name.isprintable() and not {"/", "\\"} & set(name) and not name.startswith(".")
    if not name.strip() or not plain or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise UserError(
            f"--config {recipe}: a variant can't be called {name[:40]!r}: it names a folder in --out, so it takes "
            f"printable characters without / and \\, no dot in front, {LONGEST_NAME} bytes at most"
        )


def _recipe(name: str, beside: str, overrides: dict[str, Any]) -> RunConfig:
    config = parse(RunConfig, ["--config", str(recipe_path(name, beside))])
    return with_overrides(config, overrides, "--overrides")


def _claim(out: Path, plans: dict[str, RunConfig], config: CompareConfig) -> None:
    """Finished runs are kept, so a folder belongs to one comparison; more seeds may be added to it."""
    recipes = {"teacher_recipe": config.teacher_recipe, "start_recipe": config.start_recipe}
    plan = yaml.safe_dump({**recipes, **{name: asdict(run) for name, run in plans.items()}})
    path = out / "plan.yaml"
    if path.is_file() and path.read_text(encoding="utf-8") != plan:
        raise UserError(f"--out {out}: holds another comparison (see plan.yaml there); choose another folder")
    with disk_errors(out, "choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(path, plan)


def _train_teacher(config: CompareConfig, recipe: str, out: Path, console: Console) -> Row | None:
    if config.teacher_recipe is None:
        return None
    shared = {key: value for key, value in config.overrides.items() if key not in ("losses", "taps")}
    plan = _recipe(config.teacher_recipe, recipe, shared)
    return _result(replace(plan, out=str(out / "teacher")), console, "teacher")


def _asks_teacher(plan: RunConfig) -> bool:
    return not plan.losses or any(
        "teacher" in given for name in plan.losses for given in find_loss(name).inputs
    )


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


def _say_where(console: Console, out: Path, last: str) -> None:
    reports = sorted((out / last).glob("seed-*/report.html"))
    for name, path in (
        ("Folder", out),
        ("Pictures", out / "comparison.png"),
        ("", out / "geometry.png"),
        ("Report", reports[0]),
    ):
        if path.exists():
            console.print(f"{name:<9} {path}", highlight=False, markup=False, soft_wrap=True)
