"""Transfer: fine-tunes a network on other images, in one run for each folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from isometry.config import RunConfig
from isometry.data import find_sources
from isometry.errors import UserError
from isometry.evaluation.saved_network import SavedNetwork
from isometry.evaluation.scores import Row, wilson
from isometry.files import inside
from isometry.prune.gates import gated_convs
from isometry.recipes import with_overrides
from isometry.training.run import execute

FINE_TUNING: dict[str, Any] = {
    "losses": {"ce": 1},
    "epochs": 30,
    "warmup_epochs": 3,
    "batch_size": 64,
    "lr": 3e-4,
    "weight_decay": 0.05,
    "smoothing": 0.1,
    "scale": [0.4, 1.0],
}
"""Options that differ from training: short, with a small rate and crops that keep most of the image."""


def transfer(
    saved: SavedNetwork,
    folders: list[str],
    out: Path,
    overrides: dict[str, Any],
    device: str,
    console: Console,
) -> list[Row]:
    """Fine-tunes the network on each folder of labelled images, into ``out/NAME``; interrupted runs resume.

    ``overrides`` replace :data:`FINE_TUNING` and all other options of a run.

    Returns:
        A row for each folder: ``folder``, ``run``, ``classes``, ``train`` and ``images`` (numbers of training and
        evaluation images), ``part`` ("test", or "val", which also chose the best epoch), ``epochs``, and top-1 with its
        95 % interval: ``value``, ``low`` and ``high`` (percent); ``top1_by_class`` where classes differ much in number.

    Raises:
        UserError: as :func:`isometry.training.run.execute`; a pruned network; two folders with the same name; images
            without labels.
    """
    if gated_convs(saved.network):
        raise UserError(
            f"--transfer: {saved.name} has gates, which can't be fine-tuned; give the network from before pruning"
        )
    runs = plan(saved, folders, out, overrides, device)
    return [_fine_tune(run, console) for run in runs]


def plan(
    saved: SavedNetwork, folders: list[str], out: Path, overrides: dict[str, Any], device: str
) -> list[RunConfig]:
    """The config of the run on each folder; errors as in :func:`transfer`, before any run starts."""
    model: dict[str, Any] = (
        {"model": saved.name, "pretrained": True}
        if saved.folder is None
        else {"model": f"local-dir:{saved.folder}"}
    )
    common = with_overrides(RunConfig(**FINE_TUNING, **model, device=device), overrides, "--overrides")
    named = {Path(folder).resolve().name: folder for folder in folders}
    if len(named) < len(folders):
        raise UserError("--transfer: two folders have the same name, and so would their runs; rename one")
    runs = [replace(common, data_dir=folder, out=str(inside(out, name))) for name, folder in named.items()]
    for run in runs:
        if not find_sources(run).labelled:
            raise UserError(
                f"--transfer {run.data_dir}: the images have no labels; give one folder per class"
            )
    return runs


def _fine_tune(run: RunConfig, console: Console) -> Row:
    resume = (Path(run.out) / "config.yaml").is_file()
    result = execute(replace(run, resume=resume), console, f"transfer to {Path(run.out).name}")
    if result is None:
        raise UserError("isometry evaluate runs in one process")
    sources = find_sources(run)
    top1, part = result.student["top1"], result.student["top1_part"]
    judged = sources.test if part == "test" else sources.val
    assert judged is not None
    low, high = wilson(round(top1 / 100 * len(judged)), len(judged))
    return {
        "folder": run.data_dir,
        "run": run.out,
        "classes": sources.num_classes,
        "train": len(sources.train),
        "images": len(judged),
        "part": part,
        "epochs": run.epochs,
        "value": top1,
        "low": 100 * low,
        "high": 100 * high,
        **{key: result.student[key] for key in ("top1_by_class",) if key in result.student},
    }
