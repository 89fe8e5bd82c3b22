"""`isometry evaluate --dense`: the networks whose features are compared, and their figures."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from isometry.config import DataConfig, RunConfig
from isometry.data import ImageSpec
from isometry.data.dense.sources import DenseSources, find_dense_sources
from isometry.errors import UserError
from isometry.evaluation.dense.feature_extractor import BEFORE, TEACHER, TRAINED, FeatureExtractor
from isometry.evaluation.dense.figures import dense_figures
from isometry.evaluation.dense.patch_probe import patch_probe
from isometry.evaluation.inference import Pairs
from isometry.evaluation.saved_network import SavedNetwork
from isometry.evaluation.scores import Row
from isometry.models.build import check_on_disk
from isometry.models.libraries.base import library_of
from isometry.models.spec import ModelSpec, architecture, image_spec, student_spec
from isometry.models.teacher import InputAdapter, StudentView, is_enlarged
from isometry.parsing import read_json
from isometry.report.records.run_folders import EVALUATION
from isometry.report.records.schema import Evaluation
from isometry.training.student import plan_student
from isometry.training.teacher import build_teacher, named_teacher
from isometry.training.teacher_cache.identity import hash_weights


@dataclass(frozen=True)
class DenseInputs:
    """The images that networks are compared on.

    ``read`` gives images of the size and normalisation that it is told, and their labels, which mean nothing if they
    are not ``labelled``; ``spec`` are those of the evaluated network. ``masks`` are images with masks, read as
    ``config`` says, if there are any.
    """

    read: Callable[[ImageSpec], AbstractContextManager[Pairs]]
    labelled: bool
    spec: ImageSpec
    config: DataConfig
    device: torch.device
    masks: DenseSources | None = None


def masks_named(config: DataConfig, folder: str) -> DenseSources | None:
    """The images with masks in the folder, or those of the data set that has them; None if there are none.

    Raises:
        UserError: masks that can't be used.
    """
    if folder:
        named = replace(config, data_dir=folder, dataset="", class_map=None)
        return find_dense_sources(named, "segment")
    return find_dense_sources(config, "segment") if config.dataset == "digit-scenes" else None


def evaluate_dense(
    saved: SavedNetwork, known: nn.Module | None, images: DenseInputs, notes: list[str]
) -> Row:
    """The dense figures of a network, beside its ``known`` teacher if there is one.

    Returns:
        ``figures`` and ``notes`` of :func:`isometry.evaluation.dense.figures.dense_figures` and, where there are masks,
        of :func:`isometry.evaluation.dense.patch_probe.patch_probe`; ``weights``, the SHA-256 of the network's; and
        ``teacher``, its name, if there is one. ``notes`` of the evaluation get these and others.

    Raises:
        UserError: as there.
    """
    found: Row = {"weights": hash_weights(saved.network)}
    before = before_training(saved, notes)
    view = None if known is None else student_view(saved.config, images.spec, image_spec(known), notes)
    spec = images.spec if view is None else view.images
    networks = {TRAINED: FeatureExtractor(saved.network, view)}
    if before is not None:
        networks[BEFORE] = FeatureExtractor(_ready(before, images.device), view)
    if known is not None:
        adapter = InputAdapter(spec, image_spec(known)).to(images.device)
        networks[TEACHER] = FeatureExtractor(_ready(known, images.device), adapter)
        found["teacher"] = architecture(known)
    with images.read(spec) as pairs:
        rows, left_out = dense_figures(networks, pairs, spec, images.labelled)
    if images.masks is not None:
        more, said = patch_probe(networks, images.masks, images.config, spec, images.device)
        rows, left_out = rows + more, left_out + said
    notes += left_out
    return {**found, "figures": rows, "notes": left_out}


def student_view(
    config: RunConfig | None, student: ImageSpec, teacher: ImageSpec, notes: list[str]
) -> StudentView | None:
    """What scales images of the teacher's size down for the network, if its run had ``--teacher-pixels original``.

    None, with a note, for a teacher whose images are not larger than the network's, or of another shape.
    """
    if config is None or config.teacher_pixels != "original":
        return None
    rows, columns = teacher.input_size[1:]
    if not is_enlarged(student, teacher):
        notes.append(
            f"--teacher-pixels original of the run is not followed: the teacher takes {rows}×{columns} pixels, and "
            "sees the network's images, scaled"
        )
        return None
    notes.append(
        f"as in training (--teacher-pixels original), images are read at {rows}×{columns} pixels for the teacher, and "
        "scaled down for the network"
    )
    return StudentView(student, teacher)


def former_figures(place: Path, network: nn.Module, notes: list[str]) -> Row | None:
    """The "dense" of the ``evaluation.json`` in ``place``, to be kept by an evaluation that does not measure it anew;
    None if there is none or, with a note, if it is of other weights than those of ``network``."""
    try:
        former: Row | None = read_json(place / EVALUATION, Evaluation).get("dense")
    except (OSError, ValueError):
        return None
    if former is None or former.get("weights") == hash_weights(network):
        return former
    notes.append(
        "the former figures of --dense are left out, since they are of other weights; measure them again"
    )
    return None


def before_training(saved: SavedNetwork, notes: list[str]) -> nn.Module | None:
    """The network as its run built it before the first step, at full size; None, with a note, if that can't be known.

    Pretrained weights that it began with are not downloaded from the hub.
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


def teacher_of(saved: SavedNetwork, name: str, trusted: bool, notes: list[str]) -> nn.Module | None:
    """The teacher that ``name`` names, or the run's own; None, with a note, if it has none or that can't be opened.

    Only a teacher that is named here is downloaded from the hub: a run's folder may come from elsewhere.

    Raises:
        UserError: the named teacher can't be opened.
    """
    if name:
        return named_teacher(ModelSpec(name, weights="pretrained"), notes, trusted=trusted)[0]
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
    if library_of(config.teacher):
        raise UserError(f"{config.teacher} is of another library than timm; name it with --teacher")
    check_on_disk(ModelSpec(config.teacher, config.teacher_kwargs, config.teacher_weights), "--teacher")
    classes = int(saved.network.num_classes)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        return build_teacher(config, classes, config.seed, notes)[0]


def _ready(network: nn.Module, device: torch.device) -> nn.Module:
    return network.to(device).eval()
