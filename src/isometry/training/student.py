"""The model that trains, at every size that it has on the way, and what it is to learn there."""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from isometry.config import RunConfig, TapsConfig
from isometry.errors import UserError
from isometry.grow.architectures import Size, find_architecture
from isometry.grow.dry_run import check_surgery
from isometry.grow.schedule import Schedule, Stage, make_schedule, one_stage
from isometry.grow.surgery import Surgery, plan_surgery
from isometry.losses import find_loss
from isometry.losses.base import parse_terms
from isometry.models.build import build_model
from isometry.models.cost import macs, parameter_count
from isometry.models.spec import image_spec, student_spec
from isometry.models.taps import block_count, choose_blocks, in_smaller
from isometry.models.weights import WeightSource
from isometry.prune.options import pruned
from isometry.prune.sites import check_prunable
from isometry.seeding import derive_seed, seed_global_generators
from isometry.training.activation_checkpointing import checkpoint_blocks
from isometry.training.objective import Objective


def build_student(config: RunConfig, stage: Stage | None = None) -> tuple[nn.Module, WeightSource]:
    """The model that trains, at a stage's size or at full size, before any step: the same bits for the same config."""
    # A later stage draws anew: its new blocks must not repeat what other blocks began with.
    place = [stage.number] if stage is not None and stage.number else []
    seed_global_generators(derive_seed(config.seed, "model", *place))
    spec = student_spec(config)
    if stage is not None:
        spec = replace(spec, kwargs=spec.kwargs | stage.arguments)
    network, source = build_model(spec, flag="--model")
    return pruned(network, config), source


def check_architecture(config: RunConfig) -> None:
    """Refuses a model that can't be pruned, if it is to be, before its weights are fetched.

    Raises:
        UserError: as :func:`isometry.prune.sites.check_prunable`.
    """
    if config.prune.wanted:
        network, _ = build_model(replace(student_spec(config), weights="none"), flag="--model")
        check_prunable(network, config.model, config.prune.group)


def plan_stages(config: RunConfig) -> Schedule:
    """The sizes of the model that trains, by epochs.

    Raises:
        UserError: a plan that can't be.
    """
    if not config.grow.wanted:
        return one_stage(config)
    if student_spec(config).weights != "none":
        raise UserError(
            "--grow: starts from new weights of a smaller network, and pretrained ones are of full size; "
            "leave out --grow, or --pretrained, --initial-checkpoint and local-dir:"
        )
    with torch.device("meta"):
        target, _ = build_model(student_spec(config), flag="--model")
    return make_schedule(config, target)


def settle_growth(
    config: RunConfig, schedule: Schedule, teacher: nn.Module | None, notes: list[str]
) -> RunConfig:
    """Checks every growth of the schedule, if there is any; returns the config with what was left open about it.

    Raises:
        UserError: an operator has no room in this architecture, or can't keep its promise.
    """
    if schedule.target is None:
        return config
    planned = surgeries(config, schedule)
    for surgery in planned:
        check_surgery(surgery, image_spec(schedule.target, config.img_size).input_size)
    changing = dict.fromkeys(surgery.label for surgery in planned if not surgery.preserves)
    if changing:
        notes.append(
            f"{', '.join(changing)}: does not preserve the function, so the network's answers change at growth"
        )
    if any(surgery.copies_average for surgery in planned) and not config.model_ema:
        notes.append(
            f"no --model-ema: {config.grow.depth_operator} copies blocks as they train, not their average"
        )
    grown = replace(config, grow=schedule.resolved(config.grow))
    asks = {name for term in parse_terms(config.losses) for name in find_loss(term.name).inputs}
    if teacher is None or not asks & {"student_tokens", "teacher_tokens"}:
        return grown
    blocks = choose_blocks(schedule.target, teacher, config.taps.student, config.taps.teacher)
    return replace(grown, taps=TapsConfig(*blocks))


def surgeries(config: RunConfig, schedule: Schedule) -> list[Surgery]:
    """The growths of a schedule, in order."""
    if schedule.target is None:
        return []
    architecture = find_architecture(schedule.target, config.model)
    planned = []
    for number, (before, after) in enumerate(pairwise(schedule.sizes), start=1):
        seed = derive_seed(config.seed, "grow", number)
        build = partial(_build_of_size, config, schedule.target, seed)
        planned.append(plan_surgery(config.grow, architecture, before, after, seed, build))
    return planned


def stage_networks(
    config: RunConfig, schedule: Schedule, input_size: tuple[int, int, int]
) -> list[dict[str, Any]]:
    """The network of each stage: ``model`` (in words), ``by`` (the operators that make it), and what it costs."""
    made = ["", *(surgery.label for surgery in surgeries(config, schedule))]
    return [
        {"model": stage.label, "by": by, **stage_cost(config, stage, input_size)}
        for stage, by in zip(schedule.stages, made, strict=True)
    ]


def stage_cost(config: RunConfig, stage: Stage, input_size: tuple[int, int, int]) -> dict[str, int]:
    """``params`` and ``macs`` (of one image) of a stage's network."""
    # Built in earnest, for an architecture that can't be counted on shapes.
    model, _ = build_student(config, stage)
    return {"params": parameter_count(model), "macs": macs(model, input_size)}


def build_objective(
    config: RunConfig,
    schedule: Schedule,
    student: nn.Module,
    teacher: nn.Module | None,
    generator: torch.Generator,
) -> Objective:
    """What a student of any stage learns. The taps of a run that grows are those of the full-size model."""
    seed_global_generators(derive_seed(config.seed, "terms"))
    taps: tuple[str | list[int] | None, str | list[int] | None] = (config.taps.student, config.taps.teacher)
    if (
        schedule.target is not None
        and isinstance(config.taps.student, list)
        and isinstance(config.taps.teacher, list)
    ):
        counts = (block_count(model, "the student") for model in (schedule.target, student))
        places = in_smaller(config.taps.student, *counts)
        pairs = [(p, block) for p, block in zip(places, config.taps.teacher, strict=True) if p is not None]
        taps = [place for place, _ in pairs], [block for _, block in pairs]
    objective = Objective(
        student,
        config.losses,
        teacher,
        taps=taps,
        reduction=config.reduction,
        relations=config.relations,
        generator=generator,
        img_size=config.img_size,
    )
    if config.grad_checkpointing:
        checkpoint_blocks(objective, config)
    return objective


def _build_of_size(config: RunConfig, target: nn.Module, seed: int, size: Size) -> nn.Module:
    """A new network of any size in the target's family: the same bits for the same seed."""
    seed_global_generators(derive_seed(seed, "between"))
    arguments = find_architecture(target, config.model).arguments(target, size)
    spec = replace(student_spec(config), kwargs=config.model_kwargs | arguments)
    return build_model(spec, flag="--model")[0]
