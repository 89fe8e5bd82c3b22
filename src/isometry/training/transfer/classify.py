"""Fine-tuning on classes of other images, in one run for each folder."""

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
from isometry.training.results import RunResult
from isometry.training.run import execute
from isometry.training.transfer.options import saved_network, transfer_config


def fine_tune(run: RunConfig, console: Console, label: str = "") -> RunResult:
    """Fine-tunes on the labelled images that ``run`` names, into its folder.

    Raises:
        UserError: as :func:`isometry.training.run.execute`; images without labels; several processes.
    """
    _check_labelled(run, f"transfer: {run.data_dir or run.dataset}")
    result = execute(run, console, label)
    if result is None:
        raise UserError("isometry transfer runs in one process")
    return result


def fine_tune_each(
    saved: SavedNetwork,
    folders: list[str],
    out: Path,
    overrides: dict[str, Any],
    device: str,
    console: Console,
) -> list[Row]:
    """Fine-tunes the network on each folder of labelled images, into ``out/NAME``; interrupted runs resume.

    ``overrides`` replace :data:`isometry.training.transfer.options.FINE_TUNING` and all other options of a run.

    Returns:
        A row for each folder: ``folder``, ``run``, ``classes``, ``train`` and ``images`` (numbers of training and
        evaluation images), ``part`` ("test", or "val", which also chose the best epoch), ``epochs``, and top-1 with its
        95 % interval: ``value``, ``low`` and ``high`` (percent); ``top1_by_class`` where classes differ much in number.

    Raises:
        UserError: as :func:`fine_tune`, :func:`transfer_config` and :func:`saved_network`; two folders with the same
            name.
    """
    return [_row_of(run, console) for run in plan(saved, folders, out, overrides, device)]


def plan(
    saved: SavedNetwork, folders: list[str], out: Path, overrides: dict[str, Any], device: str
) -> list[RunConfig]:
    """The config of the run on each folder; errors as in :func:`fine_tune_each`, before any run starts."""
    common = transfer_config(saved_network(saved), {"device": device}, overrides)
    named = {Path(folder).resolve().name: folder for folder in folders}
    if len(named) < len(folders):
        raise UserError("--transfer: two folders have the same name, and so would their runs; rename one")
    runs = [replace(common, data_dir=folder, out=str(inside(out, name))) for name, folder in named.items()]
    for run in runs:
        _check_labelled(run, f"--transfer {run.data_dir}")
    return runs


def _check_labelled(run: RunConfig, where: str) -> None:
    if not find_sources(run).labelled:
        raise UserError(f"{where}: the images have no labels; give one folder per class")


def _row_of(run: RunConfig, console: Console) -> Row:
    resume = (Path(run.out) / "config.yaml").is_file()
    result = fine_tune(replace(run, resume=resume), console, f"transfer to {Path(run.out).name}")
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
