"""`isometry evaluate --dense`: the networks whose features are compared, and their figures."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from isometry.config import RunConfig
from isometry.data import ImageSpec
from isometry.errors import UserError
from isometry.evaluation.dense.figures import BEFORE, TEACHER, TRAINED, Seeing, dense_figures
from isometry.evaluation.saved_network import SavedNetwork
from isometry.evaluation.scores import Row
from isometry.models.build import build_model, check_on_disk
from isometry.models.spec import ModelSpec, architecture, image_spec, student_spec
from isometry.models.teacher import InputAdapter
from isometry.training.student import plan_student
from isometry.training.teacher import build_teacher


def evaluate_dense(
    saved: SavedNetwork,
    teacher: str,
    pairs: Iterable[tuple[Tensor, Tensor]],
    count: int,
    spec: ImageSpec,
    device: torch.device,
    labelled: bool,
    notes: list[str],
) -> Row:
    """The dense figures of a network, on ``count`` normalised images and their labels.

    Returns:
        ``figures`` and ``notes`` of :func:`isometry.evaluation.dense.figures.dense_figures`, and ``teacher``, its
        name, if there is one. ``notes`` of the evaluation get these and others.

    Raises:
        UserError: a teacher that was named and can't be opened; or as there.
    """
    networks = {TRAINED: Seeing(saved.network)}
    if (before := before_training(saved, notes)) is not None:
        networks[BEFORE] = Seeing(_ready(before, device))
    found: Row = {}
    if (known := teacher_of(saved, teacher, notes)) is not None:
        adapter = InputAdapter(spec, image_spec(known)).to(device)
        networks[TEACHER] = Seeing(_ready(known, device), adapter)
        found["teacher"] = architecture(known)
    rows, left_out = dense_figures(networks, pairs, count, spec, labelled)
    notes += left_out
    return {**found, "figures": rows, "notes": left_out}


def before_training(saved: SavedNetwork, notes: list[str]) -> nn.Module | None:
    """The network as its run built it before the first step, at full size; None, with a note, if that can't be known.

    Nothing is downloaded.
    """
    config = saved.config
    if config is None:
        notes.append("there is no config.yaml of its run, so the network before training is left out")
        return None
    try:
        spec = student_spec(config, config.prune)
        if spec.num_classes is None:
            # Older versions did not save what the run resolved.
            spec = replace(spec, num_classes=int(saved.network.num_classes))  # type: ignore[arg-type]
        check_on_disk(spec, "--model")
        with torch.random.fork_rng():
            return plan_student(spec, config.prune, config.grow, config.epochs, config.seed).build()[0]
    except UserError as error:
        notes.append(f"the network before training is left out ({error})")
        return None


def teacher_of(saved: SavedNetwork, name: str, notes: list[str]) -> nn.Module | None:
    """The teacher that ``name`` names, or the run's own; None, with a note, if it has none or that can't be opened.

    Only a teacher that is named here is downloaded: a run's folder may come from elsewhere.

    Raises:
        UserError: the named teacher can't be opened.
    """
    if name:
        return build_model(ModelSpec(name, weights="pretrained"), flag="--teacher")[0]
    config = saved.config
    if config is None or not config.teacher:
        notes.append("there is no teacher, so kept geometry is left out; name one with --teacher")
        return None
    try:
        return _own_teacher(config, saved, notes)
    except UserError as error:
        notes.append(f"kept geometry is left out, since the run's teacher can't be opened ({error})")
        return None


def _own_teacher(config: RunConfig, saved: SavedNetwork, notes: list[str]) -> nn.Module | None:
    check_on_disk(ModelSpec(config.teacher, config.teacher_kwargs, config.teacher_weights), "--teacher")
    classes = int(saved.network.num_classes)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        return build_teacher(config, classes, config.seed, notes)[0]


def _ready(network: nn.Module, device: torch.device) -> nn.Module:
    return network.to(device).eval()
