"""`isometry compare`: variants of a run trained with the same seeds, compared with confidence intervals."""

import csv
import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from isometry.config import RunConfig
from isometry.errors import UserError, csv_cell
from isometry.evaluation.representations import last_block_maps
from isometry.files import check_replaceable, disk_errors, inside, write_atomically, write_output
from isometry.losses import find_loss
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
from isometry.report import formats
from isometry.report.drawing.gains import comparison_picture
from isometry.report.drawing.matrices import maps_picture
from isometry.report.records.intervals import comparison_classes, comparison_row, comparison_times, mean_row
from isometry.report.records.run_folders import read_summary
from isometry.report.tables import (
    comparison_grid,
    comparison_table,
    markdown_table,
    model_columns,
    models_grid,
    rich_table,
)
from isometry.report.terminal import print_notes, say
from isometry.training.run import execute

Row = dict[str, Any]

START = "start"
"""Row and folder of the network that every variant starts from."""
TABLES = ("comparison.csv", "comparison.md", "comparison.json")
OUTPUTS = (*TABLES, "comparison.png", "geometry.png")
"""Files that are written, beside ``plan.yaml``."""
TAKEN = ("teacher", "plan.yaml", *OUTPUTS)
"""Names in the folder of a comparison that a variant can't have."""
LONGEST_NAME = 200
"""Most bytes of a variant's name; file systems take 255."""


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
    teacher_recipe: str | None = None
    """Recipe of the teacher, trained first; variants whose losses need a teacher get it."""
    start_recipe: str | None = None
    """Recipe of the network that every variant starts from, trained first for each seed."""
    baseline: str = ""
    """Variant that gains are measured against."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options that each variant changes, by its name."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Options of every run, the teacher's too; e.g. `--overrides epochs=2`."""


def compare(config: CompareConfig, recipe: str, console: Console) -> list[Row]:
    """Trains all variants, prints the tables, writes them with CSV and figures, and returns the rows.

    Finished runs are kept and stopped ones resumed, so the same command continues a comparison.

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
    _claim(out, plans, config, console)
    teacher = _train_teacher(config, recipe, out, console)
    figures: dict[str, list[Row]] = {name: [] for name in starting | plans}
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    for seed in seeds:
        beside: list[Row] = []
        for name, plan in (starting | plans).items():
            run = replace(plan, seed=seed, out=str(inside(out, name, f"seed-{seed}")))
            if starting and name != START:
                run = replace(run, model=f"local-dir:{out / START / f'seed-{seed}' / 'student'}")
            if teacher and _need_teacher(plan.losses):
                run = replace(run, teacher=f"local-dir:{out}/teacher/student")
            row = _result(run, console, f"{name} · seed {seed}" if len(seeds) > 1 else name, beside)
            beside.append({**row, "model": name, "role": "companion"})
            figures[name].append(row)
    rows = summarise(figures, config.baseline)
    models = [{**teacher, "model": "teacher"}] if teacher else []
    models += [mean_row(name, found) for name, found in figures.items()]
    write(out, rows, models, figures, seeds, config.baseline)
    if teacher:
        draw_geometry(out, base, models, config.first_seed)
    console.print(rich_table(models_grid(models)))
    if len(seeds) > 1 or config.baseline:
        console.print(comparison_table(rows))
    _print_paths(console, out, list(plans)[-1])
    return rows


def summarise(figures: dict[str, list[Row]], baseline: str) -> list[Row]:
    """A row per variant: mean and 95 % interval of top-1, gain and speed-up over the baseline for each seed."""
    tops = {name: [row["top1"] for row in rows] for name, rows in figures.items()}
    seconds = {name: [row["seconds"] for row in rows] for name, rows in figures.items()}

    def against(values: dict[str, list[float]], name: str) -> list[float] | None:
        return values[baseline] if baseline and name != baseline else None

    return [
        comparison_row(name, tops[name], against(tops, name))
        | comparison_classes(rows)
        | comparison_times(seconds[name], against(seconds, name))
        for name, rows in figures.items()
    ]


def write(
    out: Path,
    rows: list[Row],
    models: list[Row],
    figures: dict[str, list[Row]],
    seeds: Sequence[int],
    baseline: str,
) -> None:
    """Writes ``comparison.csv`` (one line per variant and seed), ``.md``, ``.json`` and ``.png``."""
    others = [column.key for column in model_columns() if column.key not in ("model", "top1", "seconds")]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["variant", "seed", "top1", "gain", "seconds", "speed_up", *others])
    for row in rows:
        none = [""] * len(seeds)
        columns = (row["values"], row["gains"] or none, row["seconds"], row["speed_ups"] or none)
        for seed, run, *cells in zip(seeds, figures[row["name"]], *columns, strict=True):
            writer.writerow([csv_cell(row["name"]), seed, *cells, *(run.get(key, "") for key in others)])
    tables = [markdown_table(comparison_grid(rows)), markdown_table(models_grid(models))]
    found = json.dumps({"rows": rows, "models": models}, indent=1)
    for name, text in zip(TABLES, (lines.getvalue(), "\n".join(tables), found), strict=True):
        write_output(out / name, text)
    comparison_picture(out / "comparison.png", rows, title="Top-1 by variant", baseline=baseline)


def draw_geometry(out: Path, base: RunConfig, models: list[Row], seed: int) -> None:
    """Writes ``geometry.png``: the relation map of each model's last block, on the same validation images.

    The first of ``models`` is the teacher; the gap of the others is to its map.
    """
    runs = {row["model"]: out / row["model"] / f"seed-{seed}" for row in models}
    folders = {name: folder / "student" for name, folder in (runs | {"teacher": out / "teacher"}).items()}
    maps = last_block_maps(folders, base)
    first = next(iter(maps.values()))
    captions = {
        row["model"]: f"{formats.top1(row)} · {row['params'] / 1e3:,.0f} k parameters"
        + ("" if maps[row["model"]] is first else f"\ngap {np.mean((maps[row['model']] - first) ** 2):.4f}")
        for row in models
    }
    title = "Relations between patches of the same images, last block"
    maps_picture(out / "geometry.png", maps, captions, title)


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
    for name in config.variants:
        _check_folder_name(name, where)


def _check_folder_name(name: Any, where: str) -> None:
    """A variant's runs are in a folder of its name in ``--out``, and nowhere else."""
    if not isinstance(name, str):
        raise UserError(f"{where}: the name of variant {name!r} is not text; put it in quotes")
    if name in TAKEN:
        raise UserError(
            f"{where}: a variant can't be called {name}, which is a name in every comparison's folder"
        )
    plain = name.isprintable() and not {"/", "\\"} & set(name) and not name.startswith(".")
    if not name.strip() or not plain or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise UserError(
            f"{where}: a variant can't be called {name[:40]!r}: it names a folder in --out, so it takes "
            f"printable characters without / and \\, no dot in front, {LONGEST_NAME} bytes at most"
        )


def _recipe(name: str, beside: str, overrides: dict[str, Any]) -> RunConfig:
    config = read_config(RunConfig, find_recipe(str(recipe_path(name, beside))))
    return with_overrides(config, overrides, "--overrides")


def _claim(out: Path, plans: dict[str, RunConfig], config: CompareConfig, console: Console) -> None:
    """Writes ``plan.yaml``; a folder belongs to one comparison, whose number of seeds may grow.

    ``plans`` get the defaults of the version that began it.
    """
    recipes = {"teacher_recipe": config.teacher_recipe, "start_recipe": config.start_recipe}
    path, notes = out / "plan.yaml", list[str]()
    if path.is_file():
        saved = read_yaml(path, str(path))
        same = {key: saved.pop(key, None) for key in recipes} == recipes and saved.keys() == plans.keys()
        for name in plans if same else ():
            begun, lacking = saved_config(saved[name], str(path))
            same, notes = same and not changed_options(begun, plans[name]), notes + lacking
            plans[name] = with_former_defaults(plans[name], begun)
        if not same:
            raise UserError(
                f"--out {out}: holds a comparison of other variants or options (plan.yaml); give another --out"
            )
    for name in OUTPUTS:
        check_replaceable(out / name)
    print_notes(console, dict.fromkeys(notes))
    with disk_errors(out, "choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        plan = {**recipes, **{name: saved_options(run) for name, run in plans.items()}}
        write_atomically(path, yaml.safe_dump(plan))


def _train_teacher(config: CompareConfig, recipe: str, out: Path, console: Console) -> Row | None:
    if config.teacher_recipe is None:
        return None
    shared = {key: value for key, value in config.overrides.items() if key not in ("losses", "taps")}
    plan = _recipe(config.teacher_recipe, recipe, shared)
    return _result(replace(plan, out=str(inside(out, "teacher"))), console, "teacher")


def _need_teacher(losses: Collection[str]) -> bool:
    # The default losses do.
    return not losses or any("teacher" in name for loss in losses for name in find_loss(loss).inputs)


def _result(run: RunConfig, console: Console, label: str, companions: Sequence[Row] = ()) -> Row:
    folder = Path(run.out)
    if not (folder / "summary.json").is_file():
        outcome = execute(replace(run, resume=(folder / "config.yaml").is_file()), console, label, companions)
        if outcome is None:
            raise UserError("isometry compare runs in one process; use torchrun with distill")
    row = read_summary(folder).get("student", {})
    if "top1" not in row:
        raise UserError(f"{folder}: has no accuracy to compare; the data needs labels and a validation split")
    return row


def _print_paths(console: Console, out: Path, last: str) -> None:
    report = min((out / last).glob("seed-*/report.html"))
    pictures = {"Pictures": out / "comparison.png", "": out / "geometry.png"}
    for name, path in {"Folder": out, **pictures, "Report": report}.items():
        if path.exists():
            say(console, f"{name:<9} {path}")
