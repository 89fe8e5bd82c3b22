"""Provenance of a run: data, weights, versions, machine, command."""

import shlex
import sys

import torch

from isometry.evaluation.environment import machine, versions
from isometry.training.loop import Trainer


def provenance(trainer: Trainer) -> list[tuple[str, str]]:
    """(name, value) pairs for the report; the command is quoted for a shell."""
    run, world = trainer.run, trainer.world
    facts = [("Data", run.sources.description)]
    if run.teacher_weights is not None:
        digest = f", SHA-256 {run.teacher_weights.sha256}" if run.teacher_weights.sha256 else ""
        facts.append(("Teacher's weights", run.teacher_weights.description + digest))
    return [
        *facts,
        ("Student's weights before", run.student_weights.description),
        ("Terms", ", ".join(f"{term.weight:g} × {term.name}" for term in run.objective.terms)),
        ("Epoch shown", f"{trainer.state.best_epoch} of {trainer.config.epochs}"),
        ("Seed", str(trainer.config.seed)),
        ("Device", f"{world.device} × {world.size}, {torch.get_num_threads()} threads"),
        ("Machine", machine(world.device)),
        ("Versions", versions()),
        ("Command", shlex.join(["isometry", *sys.argv[1:]])),
    ]
