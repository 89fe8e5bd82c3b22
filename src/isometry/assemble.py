"""RunConfig -> everything that a run is made of: data, student, teacher, objective, and the config resolved."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from isometry.config import RunConfig, TapsConfig
from isometry.data import ImageSpec, Sources, find_sources
from isometry.distributed import World
from isometry.errors import UserError
from isometry.models import ModelSpec, WeightSource, build_model, check_name, image_spec
from isometry.objective import Objective, parse_terms
from isometry.seeding import derive_seed, seed_global_generators

DEFAULT_LOSSES: dict[str, float] = {"soft": 1.0, "whole": 4.0}
DEFAULT_LOSSES_ALONE: dict[str, float] = {"ce": 1.0}


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
    notes: list[str]


def assemble(config: RunConfig, world: World) -> Run:
    """Builds the parts of a run on the CPU; nothing is written, nothing trains.

    Raises:
        UserError: whatever can't work, before any step is taken.
    """
    _check_numbers(config)
    notes: list[str] = []
    config = _with_losses(config)
    check_name(student_spec(config), "--model")
    sources = find_sources(config)
    teacher, teacher_weights = _build_teacher(config, notes)
    classes = _number_of_classes(config, sources, teacher)
    config = replace(config, num_classes=classes)
    student, student_weights = build_student(config)
    spec = image_spec(student, config.img_size)
    config = replace(config, img_size=spec.input_size[-1], in_chans=spec.input_size[0])
    _check_label_names(config, sources, teacher)
    generator = torch.Generator()
    seed_global_generators(derive_seed(config.seed, "terms"))
    objective = Objective(
        student,
        config.losses,
        teacher,
        taps=(config.taps.student, config.taps.teacher),
        reduction=config.reduction,
        generator=generator,
        img_size=config.img_size,
    )
    if objective.needs_labels and not sources.labelled:
        raise UserError(
            f"{config.data_dir or config.dataset}: the images have no labels, and losses.ce needs them; "
            "--losses.ce 0, or give one folder per class"
        )
    config = _resolved(config, objective, world, notes)
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
        notes,
    )


def student_spec(config: RunConfig) -> ModelSpec:
    """The spec of the model that trains."""
    from_folder = config.model.startswith(("local-dir:", "hf-hub:"))
    weights = config.initial_checkpoint or ("pretrained" if config.pretrained or from_folder else "none")
    return ModelSpec(
        config.model,
        config.model_kwargs,
        weights,
        num_classes=config.num_classes,
        in_chans=config.in_chans,
        img_size=config.img_size,
        drop_rate=config.drop,
        drop_path_rate=config.drop_path,
    )


def build_student(config: RunConfig) -> tuple[nn.Module, WeightSource]:
    """The model that trains, as it is before the first step: the same bits for the same config."""
    seed_global_generators(derive_seed(config.seed, "model"))
    return build_model(student_spec(config), flag="--model")


def _build_teacher(config: RunConfig, notes: list[str]) -> tuple[nn.Module | None, WeightSource | None]:
    if not config.teacher:
        return None, None
    spec = ModelSpec(config.teacher, config.teacher_kwargs, config.teacher_weights)
    if config.teacher_weights == "none":
        notes.append("DRY RUN: --teacher-weights none, the teacher is random and teaches nothing")
    seed_global_generators(derive_seed(config.seed, "teacher"))
    return build_model(spec, flag="--teacher")


def _with_losses(config: RunConfig) -> RunConfig:
    losses = config.losses or (DEFAULT_LOSSES if config.teacher else DEFAULT_LOSSES_ALONE)
    parse_terms(losses)
    return replace(config, losses=losses)


def _number_of_classes(config: RunConfig, sources: Sources, teacher: nn.Module | None) -> int:
    known = config.num_classes or sources.num_classes
    if known is None and not sources.labelled and teacher is not None:
        known = teacher.num_classes
    if known is None:
        raise UserError("--num-classes: the data does not say how many classes it has; give the number")
    if sources.num_classes is not None and known < sources.num_classes:
        raise UserError(f"--num-classes {known}: the data has {sources.num_classes} classes")
    return known


def _check_label_names(config: RunConfig, sources: Sources, teacher: nn.Module | None) -> None:
    """A teacher with the same number of classes in another order would teach nonsense."""
    names = label_names(teacher)
    uses_logits = any("soft" == t.name or "hard" == t.name for t in parse_terms(config.losses))
    if uses_logits and names and sources.class_names and len(names) == len(sources.class_names):
        wrong = [(i, a, b) for i, (a, b) in enumerate(zip(names, sources.class_names, strict=True)) if a != b]
        if wrong:
            index, theirs, ours = wrong[0]
            raise UserError(
                f"--teacher {config.teacher}: its class {index} is {theirs!r} and the data's is {ours!r}; "
                "use a teacher of these classes, a --class-map, or only terms on tokens"
            )


def label_names(model: nn.Module | None) -> list[str] | None:
    """The names of a model's classes, where its config gives them."""
    names = model.pretrained_cfg.get("label_names") if model is not None else None
    return [str(name) for name in names] if isinstance(names, list | tuple) else None


def _resolved(config: RunConfig, objective: Objective, world: World, notes: list[str]) -> RunConfig:
    taps = TapsConfig(
        [pair.student.block for pair in objective.pairs] or None,
        [pair.teacher.block for pair in objective.pairs] or None,
    )
    warmup = config.warmup_epochs
    if warmup >= config.epochs:
        warmup = config.epochs // 10
        notes.append(f"warm-up shortened from {config.warmup_epochs} to {warmup} of {config.epochs} epochs")
    images_a_step = config.batch_size * config.grad_accum_steps * world.size
    lr = config.lr if config.lr is not None else config.lr_base * images_a_step / config.lr_base_size
    return replace(
        config,
        taps=taps,
        lr=lr,
        warmup_epochs=warmup,
        validation_batch_size=config.validation_batch_size or config.batch_size,
        device=str(world.device),
    )


def _check_numbers(config: RunConfig) -> None:
    at_least = {
        "epochs": 1,
        "log_interval": 1,
        "grad_accum_steps": 1,
        "recovery_interval": 0,
        "warmup_epochs": 0,
    }
    for name, least in at_least.items():
        if getattr(config, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(config, name)}: must be at least {least}")
    if config.amp and config.amp_dtype == "float16" and not torch.cuda.is_available():
        raise UserError("--amp-dtype float16 needs a GPU; use bfloat16")
