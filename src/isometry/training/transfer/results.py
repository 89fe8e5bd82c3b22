"""Results of a finished run for boxes or masks: its networks in folders, its scores, and the report."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isometry.config import RunConfig
from isometry.data import ImageSpec
from isometry.data.dense.sources import DenseSources
from isometry.data.unreadable import skipped
from isometry.evaluation.dense.answers import answers_to
from isometry.evaluation.dense.examples import read_examples
from isometry.evaluation.dense.pictures import task_data
from isometry.evaluation.environment import machine, versions
from isometry.files import write_atomically
from isometry.models.build import save_model
from isometry.models.cost import macs, parameter_count
from isometry.models.dense.network import DenseNetwork
from isometry.models.dense.saving import save_dense
from isometry.models.image_reading import KEY, reading_of
from isometry.models.spec import architecture
from isometry.recipes import config_to_yaml
from isometry.report.log_panels import logged_figures
from isometry.report.page import render_report, write_page
from isometry.report.records.data import ReportData
from isometry.report.records.record import write_record
from isometry.report.tables import INTERVALS, TASK_FIGURES
from isometry.training.checkpoint.files import load_checkpoint
from isometry.training.loggers import open_loggers
from isometry.training.memory_layout import lay_out
from isometry.training.progress import add_notes
from isometry.training.results import Row, RunResult
from isometry.training.transfer.dense import TERMS, DenseTrainer

STUDENT, NETWORK = "student", "model"
"""Folders of the backbone and of the whole network."""


class Answering(nn.Module):
    """A dense network up to its answers for every place, which multiply-accumulates are counted of."""

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Any:
        """As :meth:`isometry.models.dense.detector.Detector.raw`."""
        return self.network.raw(images)  # type: ignore[operator]


def finish_dense(trainer: DenseTrainer) -> RunResult:
    """Saves the best network and its backbone, evaluates it, and writes ``summary.json`` and the report."""
    run, folder, network = trainer.run, trainer.folder, trainer.network
    best = load_checkpoint(folder.best)
    if best.note:
        add_notes(run.notes, [best.note], trainer.console)
    network.load_state_dict(best.parts["model"])
    # Channels last is a matter of speed in training; folders and figures are those of the plain layout.
    lay_out(network, torch.contiguous_format)
    network.eval()
    save_dense(network, folder.path / NETWORK, reading_of(run.config))
    _save_backbone(network, run.spec, run.config, folder.path / STUDENT)
    loader, part = (
        (trainer.loaders.test, "test") if trainer.loaders.test is not None else (trainer.loaders.val, "val")
    )
    rows: list[Row] = [network_row(network, run.spec) | {"seconds": trainer.state.seconds}]
    data = ReportData(
        title=f"{architecture(network.backbone)}, {'boxes' if network.task == 'detect' else 'masks'}",
        subtitle=run.sources.description,
        facts=_facts(trainer),
        epochs=folder.metrics.rows(),
        models=rows,
        config_yaml=config_to_yaml(replace(run.config, resume=False)),
    )
    if loader is not None:
        answers = answers_to(network, loader, trainer.preprocess)
        trainer.add_unreadable(answers.unreadable)
        scores = answers.scores()
        examples = read_examples(network, loader, trainer.preprocess, answers)
        rows[0] |= table_figures(scores) | {"part": part}
        where = _names(run.sources, part)
        data = replace(data, task=task_data(answers, scores, part, examples, where, run.sources.train))
    data = replace(data, notes=[*run.notes, *skipped(trainer.state.unreadable)])
    write_atomically(folder.path / "summary.json", json.dumps(rows, indent=1))
    write_record(folder.path, data)
    report = folder.path / "report.html"
    write_page(report, render_report(data))
    with open_loggers(run.config, trainer.state.step) as loggers:
        for logger in loggers:
            logger.end(logged_figures(data), {}, trainer.state.step)
    return RunResult(folder.path, report, rows, network=folder.path / NETWORK)


def network_row(network: DenseNetwork, spec: ImageSpec) -> Row:
    """The row of the table of models, without scores."""
    return {
        "model": architecture(network.backbone),
        "role": "student",
        "task": network.task,
        "params": parameter_count(network),
        "macs": macs(Answering(network), spec.input_size),
    }


def table_figures(scores: Row) -> Row:
    """The scores that a table of networks shows, and the ends of their intervals, percent, by key."""
    return {
        key: scores[key] for key in scores if key in {*TASK_FIGURES, *INTERVALS} and scores[key] is not None
    }


def _names(sources: DenseSources, part: str) -> Any:
    """Describes where a picture of the part is."""
    images = sources.test if part == "test" else sources.val
    assert images is not None
    return images.where


def _save_backbone(network: DenseNetwork, spec: ImageSpec, config: RunConfig, folder: Path) -> None:
    """The backbone as a plain timm folder, without a classifier, as any run's student."""
    names = ("input_size", "mean", "std", "interpolation", "crop_mode", "crop_pct")
    data_config: dict[str, Any] = {name: getattr(spec, name) for name in names}
    save_model(network.backbone, folder, None, data_config, {KEY: reading_of(config)})


def _facts(trainer: DenseTrainer) -> list[tuple[str, str]]:
    run, config = trainer.run, trainer.config
    names = TERMS[trainer.network.task].values() or ["cross-entropy"]
    return [
        ("Data", run.sources.description),
        ("Backbone", f"{parameter_count(trainer.network.backbone):,} parameters"),
        ("Backbone before", run.weights.description + (", frozen" if config.freeze else "")),
        ("Losses", ", ".join(names)),
        ("Epoch shown", f"{trainer.state.best_epoch} of {config.epochs}"),
        ("Seed", str(config.seed)),
        ("Device", f"{trainer.world.device}, {torch.get_num_threads()} threads"),
        ("Machine", machine(trainer.world.device)),
        ("Versions", versions()),
        ("Command", shlex.join(["isometry", *sys.argv[1:]])),
    ]
