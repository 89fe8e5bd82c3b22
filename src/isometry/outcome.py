"""What a finished run leaves: the student as a timm folder, its figures, and the report."""

import json
import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from isometry.assemble import Run, build_student
from isometry.checkpoint import load_checkpoint, write_atomically
from isometry.config import config_to_yaml
from isometry.data import Batch, make_loaders
from isometry.evaluate import accuracy
from isometry.functional import linear_cka, relation_map
from isometry.models import save_model
from isometry.profile import images_per_second, macs, parameter_count
from isometry.report import RelationMaps, ReportData, write_report
from isometry.runfolder import RunFolder
from isometry.taps import TappedModel, block_count, tokens_on_grid
from isometry.train import Trainer

IMAGES_SHOWN = 2
IMAGES_COMPARED = 64


@dataclass(frozen=True)
class Outcome:
    """Where a run's results are, and its table."""

    folder: Path
    report: Path
    rows: list[dict[str, Any]]

    @property
    def student(self) -> dict[str, Any]:
        """The row of the model that was trained."""
        return next(row for row in self.rows if row["role"] == "student")


def finish(trainer: Trainer, folder: RunFolder) -> Outcome:
    """Exports the best student, measures it and the teacher, and writes ``summary.json`` and ``report.html``."""
    run = trainer.run
    student = run.student
    parts, _ = load_checkpoint(folder.best)
    student.load_state_dict(parts["model"])
    student.to(trainer.world.device).eval()
    spec = run.spec
    data_config = {
        "input_size": spec.input_size,
        "mean": spec.mean,
        "std": spec.std,
        "interpolation": spec.interpolation,
        "crop_pct": trainer.config.crop_pct or spec.crop_pct,
    }
    save_model(student, folder.path / "student", run.sources.class_names, data_config)
    rows = measure(trainer)
    write_atomically(folder.path / "summary.json", json.dumps(rows, indent=1))
    report = folder.path / "report.html"
    write_report(report, report_data(trainer, folder, rows))
    return Outcome(folder.path, report, rows)


def measure(trainer: Trainer) -> list[dict[str, Any]]:
    """Rows of the table: teacher (if it was loaded) and student. Accuracy is on the test part, where there is one."""
    run = trainer.run
    rows = []
    if run.teacher is not None:
        teacher = run.teacher.to(trainer.world.device).eval()
        rows.append({"model": f"teacher {short_name(run.config.teacher)}", "role": "teacher", **_figures(trainer, teacher)})
    rows.append(
        {
            "model": f"student {short_name(run.config.model)}" if run.teacher is not None else short_name(run.config.model),
            "role": "student",
            **_figures(trainer, run.student),
            "seconds": trainer.state.seconds,
        }
    )
    return rows


def short_name(name: str) -> str:
    """A model's name without the path of a local folder."""
    return Path(name.removeprefix("local-dir:")).name if name.startswith("local-dir:") else name


def _figures(trainer: Trainer, model: nn.Module) -> dict[str, Any]:
    run = trainer.run
    is_teacher = model is run.teacher
    view = trainer.objective.teacher_view if is_teacher else None
    size = (view.channels, *view.size) if view is not None else run.spec.input_size
    figures: dict[str, Any] = {
        "params": parameter_count(model),
        "macs": macs(model, size),
        "images_per_s": images_per_second(model, size),
    }
    # The other processes have left by now: this one reads every image.
    alone = replace(trainer.world, rank=0, size=1)
    loaders = make_loaders(run.sources, trainer.config, run.spec, seed=trainer.config.seed)
    part = loaders.test or loaders.val
    comparable = model.num_classes == trainer.config.num_classes and (view is not None or not is_teacher)
    if part is not None and run.sources.labelled and comparable:
        found = accuracy(model, part, trainer.preprocess, alone, trainer.autocast, view)
        figures |= {"top1": found["top1"], "top1_part": "test" if loaders.test is not None else "val"}
    return figures


def report_data(trainer: Trainer, folder: RunFolder, rows: list[dict[str, Any]]) -> ReportData:
    """Everything that the report shows."""
    run, config = trainer.run, trainer.config
    where = config.dataset or Path(config.data_dir or "").name
    taught = f"{short_name(config.model)} ◄ {short_name(config.teacher)}" if config.teacher else short_name(config.model)
    geometry = _geometry(trainer) if run.objective.pairs else {}
    notes = list(run.notes)
    if trainer.state.unreadable:
        shown = sorted(set(trainer.state.unreadable))
        notes.append(f"{len(shown)} unreadable images were skipped: {', '.join(shown[:20])}")
    return ReportData(
        title=f"{taught} on {where}",
        subtitle=run.sources.description,
        facts=_facts(run, trainer),
        epochs=folder.metrics.rows(),
        models=rows,
        notes=notes,
        config_yaml=config_to_yaml(replace(config, resume=False)),
        **geometry,
    )


def _facts(run: Run, trainer: Trainer) -> list[tuple[str, str]]:
    best = f"{trainer.state.best_epoch} of {trainer.config.epochs}"
    facts = [
        ("Data", run.sources.description),
        ("Student's weights before", run.student_weights.words),
        ("Terms", ", ".join(f"{term.weight:g} × {term.name}" for term in run.objective.terms)),
        ("Epoch shown", best),
        ("Seed", str(trainer.config.seed)),
        ("Device", f"{trainer.world.device} × {trainer.world.size}, {torch.get_num_threads()} threads"),
        ("Versions", f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"),
        ("Command", " ".join(["isometry", *sys.argv[1:]])),
    ]
    if run.teacher_weights is not None:
        digest = f", SHA-256 {run.teacher_weights.sha256}" if run.teacher_weights.sha256 else ""
        facts.insert(1, ("Teacher's weights", run.teacher_weights.words + digest))
    return facts


@torch.no_grad()
def _geometry(trainer: Trainer) -> dict[str, Any]:
    """Relation maps of the tapped blocks and CKA of all blocks, before and after training, on the same images."""
    run, objective = trainer.run, trainer.objective
    batch = _first_images(trainer)
    images, _ = trainer.preprocess.normalise(batch)
    teacher, view = objective.teacher, objective.teacher_view
    assert teacher is not None and view is not None
    before, _ = build_student(trainer.config)
    before.to(images.device)
    features = {}
    for name, model, seen in (
        ("teacher", teacher, view(images)),
        ("before", before, images),
        ("after", run.student, images),
    ):
        blocks = list(range(block_count(model, name)))
        features[name] = [f.float() for f in TappedModel(model, blocks).eval()(seen)[1]]
    maps = []
    for pair in objective.pairs:
        drawn = {}
        for name in features:
            block = pair.teacher.block if name == "teacher" else pair.student.block
            tokens_BNC = tokens_on_grid(features[name][block][:IMAGES_SHOWN], pair.grid)
            drawn[name] = relation_map(_thin(tokens_BNC).flatten(0, 1)).cpu().numpy()
        maps.append(
            RelationMaps(
                block=f"block {pair.student.block + 1} ◄ {pair.teacher.block + 1}",
                **drawn,
                gap_before=float(np.mean((drawn["before"] - drawn["teacher"]) ** 2)),
                gap_after=float(np.mean((drawn["after"] - drawn["teacher"]) ** 2)),
            )
        )
    return {
        "relations": maps,
        "cka_before": _cka(features["before"], features["teacher"]),
        "cka_after": _cka(features["after"], features["teacher"]),
        "student_blocks": [str(b + 1) for b in range(len(features["after"]))],
        "teacher_blocks": [str(b + 1) for b in range(len(features["teacher"]))],
    }


def _first_images(trainer: Trainer) -> Batch:
    part = trainer.loaders.val or trainer.loaders.test
    batch = next(iter(part)) if part is not None else next(trainer.loaders.train.epoch(0))
    n = min(len(batch), IMAGES_COMPARED)
    return Batch(batch.images[:n], batch.targets[:n], batch.indices[:n], [])


def _thin(tokens_BNC: Tensor, most: int = 98) -> Tensor:
    """At most ``most`` tokens an image, evenly spaced, so that a map can be seen."""
    stride = -(-tokens_BNC.shape[1] // most)
    return tokens_BNC[:, ::stride]


def _cka(student: list[Tensor], teacher: list[Tensor]) -> np.ndarray:
    """CKA of every student block with every teacher block, over tokens on the coarser grid of the two."""
    values = np.zeros((len(student), len(teacher)))
    for i, s in enumerate(student):
        for j, t in enumerate(teacher):
            grid = (min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3]))
            values[i, j] = float(
                linear_cka(tokens_on_grid(s, grid).flatten(0, 1), tokens_on_grid(t, grid).flatten(0, 1))
            )
    return values
