"""RunConfig -> the parts of a run: data, student, teacher, objective, and the config with all values filled in."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from isometry.config import OptimConfig, RunConfig, TapsConfig
from isometry.config.paths import absolute_paths
from isometry.data import ImageSpec, Sources, find_sources, without_labels
from isometry.data.inventory import Inventory
from isometry.data.option_checks import AUTO
from isometry.data.survey import Survey, survey
from isometry.data.transforms import image_mode
from isometry.distributed import World
from isometry.errors import UserError, counted
from isometry.grow.schedule import Schedule, Stage
from isometry.losses.base import INPUTS, Term, parse_terms
from isometry.models.build import build_model
from isometry.models.names import check_name
from isometry.models.sharding import GatheredTeacher
from isometry.models.spec import ModelSpec, image_spec, student_spec
from isometry.models.taps import block_count, choose_blocks, in_smaller
from isometry.models.weights import WeightSource
from isometry.prune.options import check_pruning, has_gates
from isometry.prune.sites import check_prunable
from isometry.recipes import with_former_defaults
from isometry.seeding import derive_seed, seed_global_generators
from isometry.training.activation_checkpointing import checkpoint_blocks
from isometry.training.batch_size import check_batch_norms, share_batch
from isometry.training.checkpoint.run_folder import begun_as
from isometry.training.communication import accumulation_note, communication_note
from isometry.training.frozen import FrozenObjective
from isometry.training.image_trial import pixels_in_no_patch, try_images
from isometry.training.memory_layout import set_memory_format
from isometry.training.objective import Objective, Taps
from isometry.training.option_checks import check_options
from isometry.training.student import StudentPlan, plan_student
from isometry.training.teacher import build_teacher, check_label_names, pixel_notes, set_dtype, shard_teacher

DEFAULT_LOSSES: dict[str, float | dict[str, Any]] = {"soft": 1.0, "whole": 4.0}
DEFAULT_LOSSES_ALONE: dict[str, float | dict[str, Any]] = {"ce": 1.0}
DEFAULT_LOSSES_OF_GATES: dict[str, float | dict[str, Any]] = {"sparsity": 5e-3, "similarity": 1.0}


@dataclass
class Run:
    """The parts of a run, built but not started; what the config left open is resolved here, once.

    Attributes:
        config: with all values filled in.
        sources: the data.
        spec: the images that the student expects.
        plan: how the student is built, and its schedule of growth.
        stage: the present stage.
        terms: the losses.
        generator: that random terms draw from.
        notes: for the user and the report.
        sample: what a look at some of the training images found.
        teacher_macs: of one image, counted before the teacher is sharded.
        gathered_teacher: figures of a sharded teacher, computed while all processes are alive.
        inventory: of the data, once it was taken.
    """

    config: RunConfig
    sources: Sources
    spec: ImageSpec
    plan: StudentPlan
    stage: Stage
    student: nn.Module
    student_weights: WeightSource
    teacher: nn.Module | None
    teacher_weights: WeightSource | None
    terms: list[Term]
    objective: Objective
    generator: torch.Generator
    notes: list[str]
    sample: Survey
    teacher_macs: int = 0
    gathered_teacher: GatheredTeacher | None = None
    inventory: Inventory | None = None

    @property
    def schedule(self) -> Schedule:
        """The sizes of the student, by epochs."""
        return self.plan.schedule


def assemble(config: RunConfig, world: World) -> Run:
    """Builds the parts of a run on the CPU; writes nothing and trains nothing.

    Raises:
        UserError: anything that can't work, before any step is taken.
    """
    check_options(config)
    check_pruning(config.prune, config, config.grow.wanted)
    if (begun := begun_as(config)) is not None:
        config = with_former_defaults(config, begun)
        if config.pixel_range == AUTO:
            # What it found then, also if other images were added.
            config = replace(config, pixel_range=begun.pixel_range)
    config, notes = share_batch(absolute_paths(config), world, begun)
    gated = has_gates(config.prune)
    config = replace(config, losses=config.losses or _default_losses(bool(config.teacher), gated))
    terms = _parse_terms(config.losses, gated)
    spec = student_spec(config, config.prune)
    check_name(spec, "--model")
    if config.prune.wanted:
        # Before its weights are downloaded.
        check_prunable(build_model(replace(spec, weights="none"))[0], spec.name, config.prune.group)
    sources = find_sources(config)
    sample = survey(sources.train, looks=world.main or config.pixel_range == AUTO)
    notes += sample.notes(config.pixel_range)
    config = replace(config, pixel_range=sample.resolved(config.pixel_range))
    if config.num_classes == 0:
        sources = without_labels(sources)
    notes += [*sources.notes, *sources.class_notes]
    random_classes = config.num_classes or sources.num_classes
    teacher, teacher_weights = build_teacher(config, random_classes, config.seed, notes)
    classes = _number_of_classes(config.num_classes, sources, teacher)
    spec = replace(spec, num_classes=classes)
    plan = plan_student(spec, config.prune, config.grow, config.epochs, config.seed)
    student, student_weights = plan.build(plan.schedule.stages[0])
    images = image_spec(student, config.img_size)
    image_mode(images)
    try_images(student, images, "--model", plan.spec)
    channels, _, side = images.input_size
    plan = replace(plan, spec=replace(plan.spec, img_size=side, in_chans=channels))
    notes += pixels_in_no_patch(student, images, "--model") + plan.check_growth(config.model_ema)
    config = replace(config, num_classes=classes, img_size=side, in_chans=channels)
    taps = _taps_at_full_size(config.taps, plan.schedule.target, teacher, terms)
    config = replace(config, grow=plan.schedule.resolved(config.grow), taps=taps)
    teacher_macs = 0
    if teacher is not None:
        teacher_spec = ModelSpec(config.teacher or "", config.teacher_kwargs)
        teacher_macs = try_images(teacher, image_spec(teacher), "--teacher", teacher_spec)
        notes += pixels_in_no_patch(teacher, image_spec(teacher), "--teacher")
        check_label_names(config.teacher, teacher, sources, terms)
        set_dtype(teacher, config, world)
        shard_teacher(teacher, config, world, notes)
    generator = torch.Generator()
    objective = _build_objective(config, plan, terms, student, teacher, generator)
    notes += check_batch_norms(student, images.input_size, config.batch_size)
    if not sources.labelled:
        _refuse_label_terms(terms, config.data_dir or config.dataset)
    config = replace(
        config,
        taps=config.taps if config.grow.wanted else _taps(objective),
        lr=_learning_rate(config, (config.global_batch_size or config.batch_size) * config.grad_accum_steps),
        warmup_epochs=_warmup_epochs(config, notes),
        validation_batch_size=config.validation_batch_size or config.batch_size,
        device=str(world.device),
    )
    notes += accumulation_note(config.grad_accum_steps, terms) + pixel_notes(config, objective, sources)
    notes += communication_note(config.batch_size, objective) if world.size > 1 else []
    return Run(
        config,
        sources,
        images,
        plan,
        plan.schedule.stages[0],
        student,
        student_weights,
        teacher,
        teacher_weights,
        terms,
        objective,
        generator,
        notes,
        sample,
        teacher_macs,
    )


def enter_stage(run: Run, stage: Stage) -> Run:
    """The same run with a new network of the stage's size, and an objective for it."""
    student, weights = run.plan.build(stage)
    objective = _build_objective(run.config, run.plan, run.terms, student, run.teacher, run.generator)
    return replace(run, stage=stage, student=student, student_weights=weights, objective=objective)


def _build_objective(
    config: RunConfig,
    plan: StudentPlan,
    terms: list[Term],
    student: nn.Module,
    teacher: nn.Module | None,
    generator: torch.Generator,
) -> Objective:
    """The objective of a student of any stage. The taps of a run that grows are those of the full-size model."""
    seed_global_generators(derive_seed(plan.seed, "terms"))
    taps: tuple[Taps, Taps] = (config.taps.student, config.taps.teacher)
    teacher_blocks: list[int] = []
    target = plan.schedule.target
    if target is not None and isinstance(config.taps.student, list) and isinstance(config.taps.teacher, list):
        teacher_blocks = config.taps.teacher
        counts = (block_count(model, "the student") for model in (target, student))
        places = in_smaller(config.taps.student, *counts)
        pairs = [(p, block) for p, block in zip(places, config.taps.teacher, strict=True) if p is not None]
        taps = [place for place, _ in pairs], [block for _, block in pairs]
    objective = (FrozenObjective if config.freeze else Objective)(
        student,
        terms,
        teacher,
        taps=taps,
        reduction=config.reduction,
        relations=config.relations,
        generator=generator,
        img_size=plan.spec.img_size,
        teacher_blocks=teacher_blocks,
        original_pixels=config.teacher_pixels == "original",
    )
    if config.channels_last:
        set_memory_format(objective, torch.channels_last)
    if config.grad_checkpointing:
        checkpoint_blocks(objective, config.model, compiles=config.compile)
    return objective


def _default_losses(has_teacher: bool, gated: bool) -> dict[str, float | dict[str, Any]]:
    losses = DEFAULT_LOSSES if has_teacher else DEFAULT_LOSSES_ALONE
    return losses | DEFAULT_LOSSES_OF_GATES if gated else losses


def _parse_terms(losses: dict[str, float | dict[str, Any]], gated: bool) -> list[Term]:
    terms = parse_terms(losses)
    if gated and all(term.loss.scope() == "layer" for term in terms):
        raise UserError(
            f"--losses: {', '.join(term.name for term in terms)} only moves gates; --losses replaces the default "
            "terms, so add what the network is to learn, e.g. --losses.ce 1"
        )
    return terms


def _taps_at_full_size(
    taps: TapsConfig, target: nn.Module | None, teacher: nn.Module | None, terms: list[Term]
) -> TapsConfig:
    """The taps of a run that grows, from its full-size model; those of other runs follow from the objective."""
    uses_blocks = any(term.loss.scope() == "block" for term in terms)
    if target is None or teacher is None or not uses_blocks:
        return taps
    return TapsConfig(*choose_blocks(target, teacher, taps.student, taps.teacher))


def _number_of_classes(given: int | None, sources: Sources, teacher: nn.Module | None) -> int:
    known = given if given is not None else sources.num_classes
    if known is None and not sources.labelled and teacher is not None:
        known = int(teacher.num_classes)  # type: ignore[arg-type]
    if known is None:
        raise UserError("--num-classes: the data does not say how many classes it has; give the number")
    if sources.num_classes is not None and known < sources.num_classes:
        raise UserError(
            f"--num-classes {known}: the data has {counted(sources.num_classes, 'class', 'classes')}"
        )
    return known


def _refuse_label_terms(terms: list[Term], data: str) -> None:
    for term in terms:
        if any(INPUTS[name].needs_labels for name in term.loss.inputs):
            raise UserError(
                f"{data}: the images have no labels, and losses.{term.name} needs them; "
                f"--losses.{term.name} 0, or give one folder per class"
            )


def _learning_rate(config: OptimConfig, images: int) -> float:
    """The rate for steps of so many images."""
    return config.lr if config.lr is not None else config.lr_base * images / config.lr_base_size


def _warmup_epochs(config: OptimConfig, notes: list[str]) -> int:
    if config.warmup_epochs < config.epochs:
        return config.warmup_epochs
    warmup = config.epochs // 10
    notes.append(f"warm-up shortened from {config.warmup_epochs} to {warmup} of {config.epochs} epochs")
    return warmup


def _taps(objective: Objective) -> TapsConfig:
    return TapsConfig(
        [pair.student.block for pair in objective.pairs] or None,
        [pair.teacher.block for pair in objective.pairs] or None,
    )
