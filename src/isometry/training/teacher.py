"""The teacher of a run: built, cast, sharded and checked."""

from contextlib import suppress
from dataclasses import replace

import torch
from torch import nn

from isometry.config import RunConfig, TeacherConfig
from isometry.data import ImageSpec, Sources
from isometry.distributed import World
from isometry.errors import UserError, first_line
from isometry.losses.base import Term, inputs_of
from isometry.models.build import build_model
from isometry.models.image_reading import Reading, reading_of, saved_reading
from isometry.models.libraries.base import build_external, library_of
from isometry.models.sharding import shard
from isometry.models.spec import ModelSpec, image_spec, label_names
from isometry.models.teacher import is_enlarged
from isometry.models.weights import WeightSource
from isometry.recipes import read_saved
from isometry.seeding import derive_seed, seed_global_generators
from isometry.training.objective import Objective


def build_teacher(
    config: RunConfig, classes: int | None, seed: int, notes: list[str]
) -> tuple[nn.Module | None, WeightSource | None]:
    """The teacher that the options name, and where its weights come from; None without one.

    ``classes`` are those of a random teacher, if the options don't say.
    """
    if not config.teacher:
        return None, None
    spec = ModelSpec(config.teacher, config.teacher_kwargs, config.teacher_weights)
    if config.teacher_weights == "none":
        notes.append(
            "--teacher-weights none: the teacher has random weights and teaches nothing; for dry runs only"
        )
        if "num_classes" not in config.teacher_kwargs:
            spec = replace(spec, num_classes=classes)
    elif not library_of(config.teacher):
        notes += _reading_notes(spec, reading_of(config))
    seed_global_generators(derive_seed(seed, "teacher"))
    return named_teacher(spec, notes, trusted=config.trust_remote_code)


def named_teacher(
    spec: ModelSpec, notes: list[str], *, trusted: bool = False
) -> tuple[nn.Module, WeightSource]:
    """The teacher of timm or of another library that a spec names, and where its weights come from.

    Raises:
        UserError: as :func:`build_model`, or as :func:`isometry.models.libraries.base.build_external`.
    """
    if not library_of(spec.name):
        return build_model(spec, flag="--teacher")
    built = build_external(spec.name, spec.kwargs, spec.weights, trusted=trusted)
    notes += built.notes
    return built.model, built.weights


def _reading_notes(teacher: ModelSpec, here: Reading) -> list[str]:
    """What a teacher that was trained on images read in another way sees, if it was."""
    before = _trained_with(teacher)
    if before is None or before == here:
        return []
    names = [name for name in here if before[name] != here[name]]  # type: ignore[literal-required]
    theirs, ours = (" and ".join(_option(name, reading) for name in names) for reading in (before, here))
    return [
        f"the teacher {teacher.folder or teacher.name} was trained with {theirs} and sees images with {ours} here: it "
        "is probably less accurate than on images that are read in its way"
    ]


def _trained_with(teacher: ModelSpec) -> Reading | None:
    """As its folder says, or the run that the folder is in: older versions did not write it into the folder."""
    told, folder = saved_reading(teacher), teacher.folder
    if told is None and folder is not None and folder.name == "student":
        with suppress(UserError):
            return reading_of(read_saved(folder.parent / "config.yaml")[0])
    return told


def _option(name: str, reading: Reading) -> str:
    option, value = f"--{name.replace('_', '-')}", reading[name]  # type: ignore[literal-required]
    return f"no {option}" if value is None else f"{option} {value}"


def set_dtype(teacher: nn.Module, config: TeacherConfig, world: World) -> None:
    """Casts the teacher to ``--teacher-dtype``; from here on the dtype is that of its weights.

    Raises:
        UserError: float16 without a GPU.
    """
    dtype = getattr(torch, config.teacher_dtype)
    if dtype == torch.float16 and world.device.type != "cuda":
        raise UserError("--teacher-dtype float16: needs a GPU; use bfloat16")
    teacher.to(dtype)


def shard_teacher(teacher: nn.Module, config: TeacherConfig, world: World, notes: list[str]) -> None:
    """Shards the teacher over the processes if the options say so.

    Raises:
        UserError: its architecture can't be sharded.
    """
    if not config.teacher_shard:
        return
    if world.size == 1:
        # No error, because a run may resume with another number of processes.
        notes.append("--teacher-shard: there is one process, which keeps the teacher whole")
        return
    try:
        shard(teacher.eval().requires_grad_(False), world)
        size, dtype = image_spec(teacher).input_size, next(teacher.parameters()).dtype
        with torch.no_grad():
            teacher(torch.zeros(1, *size, dtype=dtype, device=world.device))
    except (RuntimeError, ValueError, NotImplementedError) as error:
        # E.g. a forward that reads the weights of a block without calling it.
        raise UserError(
            f"--teacher-shard: {config.teacher} can't be sharded ({first_line(error)}); leave it out, or "
            "make the teacher smaller with --teacher-dtype bfloat16"
        ) from error


def pixel_notes(config: TeacherConfig, objective: Objective, sources: Sources) -> list[str]:
    """What ``--teacher-pixels original`` does not change, though it may be expected to."""
    if config.teacher_pixels != "original":
        return []
    if objective.view is None:
        return [
            "--teacher-pixels original: no term of this run needs a teacher, and images are read in the student's size"
        ]
    if sources.val is not None and not sources.labelled:
        return [
            "--teacher-pixels original holds for training: without labels, validation measures the loss with a teacher "
            "that sees the student's images, scaled up"
        ]
    return []


def scaling_warnings(student: ImageSpec, teacher: ImageSpec, pixels: str) -> list[str]:
    """What a teacher of larger images than the student's sees, if it is one; ``pixels`` are those that it is to see."""
    (height, width), (rows, columns) = student.input_size[1:], teacher.input_size[1:]
    if (height >= rows and width >= columns) or pixels == "original":
        return []
    offer = (
        f"--teacher-pixels original reads the images at {rows}×{columns} and shows it the same crops of the original "
        "pictures; a larger --img-size shows both networks more"
        if is_enlarged(student, teacher)
        else "a larger --img-size shows it more"
    )
    return [
        f"the teacher sees the student's images, scaled up from {height}×{width} to {rows}×{columns} pixels, without "
        f"the detail that the files have: it is probably less accurate than on images of its own size; {offer}"
    ]


def check_label_names(name: str, teacher: nn.Module, sources: Sources, terms: list[Term]) -> None:
    """Checks that classes with names are the same, and in the same order, as those of the data, if logits are used.

    Raises:
        UserError: they are not.
    """
    names, ours = label_names(teacher) or [], sources.class_names
    if "teacher_logits" not in inputs_of(terms) or not ours or len(names) != len(ours):
        return
    for index, (theirs, own) in enumerate(zip(names, ours, strict=True)):
        if theirs != own:
            raise UserError(
                f"--teacher {name}: its class {index} is {theirs!r} and the data's is {own!r}; "
                "use a teacher of these classes, a --class-map, or only terms on tokens"
            )
