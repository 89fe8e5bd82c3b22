"""RunConfig -> all that a run is made of: data, student, teacher, objective, and the config resolved."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from isometry.config import RunConfig, TapsConfig
from isometry.data import ImageSpec, Sources, find_sources, without_labels
from isometry.distributed import World
from isometry.errors import UserError, first_line
from isometry.grow.schedule import Schedule, Stage
from isometry.losses import find_loss
from isometry.losses.base import parse_terms
from isometry.models.build import build_model, check_name
from isometry.models.cost import macs
from isometry.models.sharding import GatheredTeacher, shard
from isometry.models.spec import ModelSpec, image_spec, label_names, student_spec
from isometry.models.weights import WeightSource
from isometry.prune.options import check_pruning, has_gates
from isometry.seeding import derive_seed, seed_global_generators
from isometry.training.communication import micro_batch_words, traffic_words
from isometry.training.objective import Objective
from isometry.training.student import (
    build_objective,
    build_student,
    check_architecture,
    plan_stages,
    settle_growth,
)

DEFAULT_LOSSES: dict[str, float | dict[str, Any]] = {"soft": 1.0, "whole": 4.0}
DEFAULT_LOSSES_ALONE: dict[str, float | dict[str, Any]] = {"ce": 1.0}
DEFAULT_LOSSES_OF_GATES: dict[str, float | dict[str, Any]] = {"sparsity": 5e-3, "similarity": 1.0}

LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (1, math.inf),
    "global_batch_size": (1, math.inf),
    "warmup_epochs": (0, math.inf),
    "grad_accum_steps": (1, math.inf),
    "log_interval": (1, math.inf),
    "recovery_interval": (0, math.inf),
    "img_size": (1, math.inf),
    "in_chans": (1, math.inf),
    "num_classes": (0, math.inf),
    "drop": (0, 0.99),
    "drop_path": (0, 0.99),
    "lr": (0, math.inf),
    "lr_base": (0, math.inf),
    "lr_base_size": (1, math.inf),
    "min_lr": (0, math.inf),
    "warmup_lr": (0, math.inf),
    "weight_decay": (0, math.inf),
    "momentum": (0, 1),
    "clip_grad": (1e-12, math.inf),
    "model_ema_decay": (0, 1),
}
"""Least and largest value of options, where they are given."""


@dataclass
class Run:
    """The parts of a run, built but not started. ``config`` says what was left open, too."""

    config: RunConfig
    sources: Sources
    spec: ImageSpec
    student: nn.Module
    student_weights: WeightSource
    teacher: nn.Module | None
    teacher_weights: WeightSource | None
    objective: Objective
    generator: torch.Generator
    schedule: Schedule
    stage: Stage
    notes: list[str]
    teacher_macs: int = 0
    """Of one image, counted before it was sharded."""
    gathered_teacher: GatheredTeacher | None = None
    """What only all processes together can find out of a sharded one, once they have."""


def assemble(config: RunConfig, world: World) -> Run:
    """Builds the parts of a run on the CPU; nothing is written, nothing trains.

    Raises:
        UserError: whatever can't work, before any step is taken.
    """
    _check_numbers(config)
    notes: list[str] = []
    check_pruning(config)
    config = _with_losses(config)
    check_name(student_spec(config), "--model")
    check_architecture(config)
    sources = find_sources(config)
    if config.num_classes == 0:
        sources = without_labels(sources)
    teacher, teacher_weights = _build_teacher(config, sources, notes)
    classes = _number_of_classes(config, sources, teacher)
    config = replace(config, num_classes=classes)
    schedule = plan_stages(config)
    stage = schedule.stages[0]
    student, student_weights = build_student(config, stage)
    spec = image_spec(student, config.img_size)
    _try_images(student, spec, "--img-size ", f"the student {config.model}")
    config = replace(config, img_size=spec.input_size[-1], in_chans=spec.input_size[0])
    config = settle_growth(config, schedule, teacher, notes)
    teacher_macs = 0
    if teacher is not None:
        teacher_spec = image_spec(teacher)
        option, name = "--teacher-kwargs img_size=", f"the teacher {config.teacher}"
        teacher_macs = _try_images(teacher, teacher_spec, option, name)
        _check_label_names(config, sources, teacher)
        _lay_out(teacher, config, world, notes)
    generator = torch.Generator()
    objective = build_objective(config, schedule, student, teacher, generator)
    if objective.needs_labels and not sources.labelled:
        wanted = {"labels", "cross_entropy"}
        asking = next(term.name for term in objective.terms if wanted & {*find_loss(term.name).inputs})
        raise UserError(
            f"{config.data_dir or config.dataset}: the images have no labels, and losses.{asking} needs "
            f"them; --losses.{asking} 0, or give one folder per class"
        )
    config = _resolved(config, objective, world, notes)
    traffic = traffic_words(config, objective) if world.size > 1 else ""
    notes += [words for words in (micro_batch_words(config, objective), traffic) if words]
    return Run(
        config,
        sources,
        spec,
        student,
        student_weights,
        teacher,
        teacher_weights,
        objective,
        generator,
        schedule,
        stage,
        notes,
        teacher_macs,
    )


def enter_stage(run: Run, stage: Stage) -> Run:
    """The same run with a new network of the stage's size, and an objective on it."""
    config = run.config
    student, weights = build_student(config, stage)
    objective = build_objective(config, run.schedule, student, run.teacher, run.generator)
    return replace(run, stage=stage, student=student, student_weights=weights, objective=objective)


def _build_teacher(
    config: RunConfig, sources: Sources, notes: list[str]
) -> tuple[nn.Module | None, WeightSource | None]:
    if not config.teacher:
        return None, None
    spec = ModelSpec(config.teacher, config.teacher_kwargs, config.teacher_weights)
    if config.teacher_weights == "none":
        notes.append("DRY RUN: --teacher-weights none, the teacher is random and teaches nothing")
        if "num_classes" not in config.teacher_kwargs:
            spec = replace(spec, num_classes=config.num_classes or sources.num_classes)
    seed_global_generators(derive_seed(config.seed, "teacher"))
    return build_model(spec, flag="--teacher")


def _lay_out(teacher: nn.Module, config: RunConfig, world: World, notes: list[str]) -> None:
    """Puts a teacher into the type that it is asked in, and into pieces over the processes."""
    if config.teacher_dtype == "float16" and world.device.type != "cuda":
        raise UserError("--teacher-dtype float16: needs a GPU; use bfloat16")
    teacher.to(getattr(torch, config.teacher_dtype))
    if config.teacher_shard and world.size > 1:
        _shard(teacher, config, world)
    elif config.teacher_shard:
        # A run may go on with another number of processes, and be checked in one.
        notes.append("--teacher-shard: there is one process, which keeps the teacher whole")


def _shard(teacher: nn.Module, config: RunConfig, world: World) -> None:
    try:
        shard(teacher.eval().requires_grad_(False), world)
        size, dtype = image_spec(teacher).input_size, getattr(torch, config.teacher_dtype)
        with torch.no_grad():
            teacher(torch.zeros(1, *size, dtype=dtype, device=world.device))
    except (RuntimeError, ValueError, NotImplementedError) as error:
        # A forward that reaches past a block's own forward, at its weights, finds them in pieces.
        raise UserError(
            f"--teacher-shard: {config.teacher} can't be taken apart ({first_line(error)}); leave it out, or "
            "make the teacher smaller with --teacher-dtype bfloat16"
        ) from error


def _with_losses(config: RunConfig) -> RunConfig:
    losses = config.losses or (DEFAULT_LOSSES if config.teacher else DEFAULT_LOSSES_ALONE) | (
        DEFAULT_LOSSES_OF_GATES if has_gates(config.prune) else {}
    )
    terms = parse_terms(losses)
    if has_gates(config.prune) and all(find_loss(term.name).takes_gates() for term in terms):
        raise UserError(
            f"--losses: {', '.join(term.name for term in terms)} only moves gates; what is given replaces the default "
            "terms, so add what the network is to learn, e.g. --losses.ce 1"
        )
    return replace(config, losses=losses)


def _number_of_classes(config: RunConfig, sources: Sources, teacher: nn.Module | None) -> int:
    known = config.num_classes if config.num_classes is not None else sources.num_classes
    if known is None and not sources.labelled and teacher is not None:
        known = int(teacher.num_classes)  # type: ignore[arg-type]
    if known is None:
        raise UserError("--num-classes: the data does not say how many classes it has; give the number")
    if sources.num_classes is not None and known < sources.num_classes:
        raise UserError(f"--num-classes {known}: the data has {sources.num_classes} classes")
    return known


def _check_label_names(config: RunConfig, sources: Sources, teacher: nn.Module) -> None:
    """A teacher with the same number of classes in another order would teach nonsense."""
    names = label_names(teacher) or []
    uses_logits = any("teacher_logits" in find_loss(term.name).inputs for term in parse_terms(config.losses))
    if not uses_logits or not sources.class_names or len(names) != len(sources.class_names):
        return
    for index, (theirs, ours) in enumerate(zip(names, sources.class_names, strict=True)):
        if theirs != ours:
            raise UserError(
                f"--teacher {config.teacher}: its class {index} is {theirs!r} and the data's is {ours!r}; "
                "use a teacher of these classes, a --class-map, or only terms on tokens"
            )


def _resolved(config: RunConfig, objective: Objective, world: World, notes: list[str]) -> RunConfig:
    warmup = config.warmup_epochs
    if warmup >= config.epochs:
        warmup = config.epochs // 10
        notes.append(f"warm-up shortened from {config.warmup_epochs} to {warmup} of {config.epochs} epochs")
    whole_batch = config.global_batch_size or config.batch_size * world.size
    images_a_step = whole_batch * config.grad_accum_steps
    lr = config.lr if config.lr is not None else config.lr_base * images_a_step / config.lr_base_size
    return replace(
        config,
        taps=config.taps if config.grow.wanted else _taps(objective),
        lr=lr,
        warmup_epochs=warmup,
        global_batch_size=whole_batch,
        validation_batch_size=config.validation_batch_size or config.batch_size,
        device=str(world.device),
    )


def _taps(objective: Objective) -> TapsConfig:
    return TapsConfig(
        [pair.student.block for pair in objective.pairs] or None,
        [pair.teacher.block for pair in objective.pairs] or None,
    )


def _check_numbers(config: RunConfig) -> None:
    for name, (least, most) in LIMITS.items():
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and least <= value <= most):
            wanted = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
            raise UserError(f"--{name.replace('_', '-')} {value}: must be {wanted}")
    betas = config.opt_betas
    if betas is not None and (len(betas) < 2 or not all(0 <= beta < 1 for beta in betas)):
        raise UserError(f"--opt-betas {betas}: must be two numbers or more, at least 0 and below 1")
    if config.compile and config.compile_backend not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise UserError(
            f"--compile-backend {config.compile_backend}: torch has no such backend here; it has {known}"
        )
    if config.amp and config.amp_dtype == "float16" and not torch.cuda.is_available():
        raise UserError("--amp-dtype float16: needs a GPU; use bfloat16")


def _try_images(model: nn.Module, spec: ImageSpec, option: str, name: str) -> int:
    """MACs of a forward pass on shapes: an image may be too small or of a wrong multiple for an architecture."""
    try:
        return macs(model, spec.input_size)
    except Exception as error:
        # What goes wrong inside a network that is given such images is anything.
        size = "×".join(map(str, spec.input_size))
        raise UserError(
            f"{option}{spec.input_size[-1]}: {name} can't take images of {size} ({first_line(error)}); "
            "give another size"
        ) from error
