"""`--grow.*` options -> stages; bad plans are refused in one line that names the option."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from helpers.messages import mentions
from helpers.runs import plan_of
from helpers.tiny_models import MODELS
from isometry.config import GrowConfig, RunConfig
from isometry.errors import UserError
from isometry.grow.architectures import Size
from isometry.grow.schedule import Schedule, make_schedule

with torch.device("meta"):
    TARGETS = {name: MODELS[name].build() for name in ("vit", "swin", "resnet")}
"""ViT of 6 blocks and 24 channels, Swin of 2-2-3-1 blocks, ResNet of 2-3-2-3 blocks, 64-12-16-20 channels."""


def plan(name: str = "vit", epochs: int = 12, **grow: Any) -> Schedule:
    return make_schedule(GrowConfig(**grow), epochs, TARGETS[name], MODELS[name].name)


def spans(schedule: Schedule) -> list[tuple[int, int]]:
    return [(stage.first_epoch, stage.epochs) for stage in schedule.stages]


def depths(schedule: Schedule) -> list[tuple[int, ...]]:
    return [stage.size.depth for stage in schedule.stages if stage.size is not None]


def widths(schedule: Schedule) -> list[tuple[int, ...]]:
    return [stage.size.width for stage in schedule.stages if stage.size is not None]


def test_equal_segments():
    schedule = plan(depth="3,6")
    assert spans(schedule) == [(0, 6), (6, 6)]
    assert [stage.number for stage in schedule.stages] == [0, 1]
    assert [stage.arguments for stage in schedule.stages] == [{"depth": 3}, {}]
    assert schedule.grows
    assert spans(plan(depth="2,4,6", epochs=300)) == [(0, 100), (100, 100), (200, 100)]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_segments_are_as_equal_as_whole_epochs_allow(count):
    sizes = ",".join(str(depth) for depth in range(7 - count, 7))
    for epochs in range(count, 40):
        lengths = [stage.epochs for stage in plan(depth=sizes, epochs=epochs).stages]
        assert sum(lengths) == epochs
        assert max(lengths) - min(lengths) <= 1
        assert min(lengths) >= 1


@pytest.mark.parametrize("at", ["0,1,7", "[0, 1, 7]", [0, 1, 7]])
def test_explicit_epochs(at):
    assert spans(plan(depth="2,4,6", at=at)) == [(0, 1), (1, 6), (7, 5)]


@pytest.mark.parametrize(
    "depth",
    ["3,6", "[3, 6]", "3, 6", [3, 6], ["3", "6"], [[3], [6]], [(3,), (6,)]],
)
def test_sizes_can_be_written_in_several_ways(depth):
    assert depths(plan(depth=depth)) == [(3,), (6,)]


@pytest.mark.parametrize(
    "depth",
    [
        "1-1-2-1,2-2-3-1",
        ["1-1-2-1", "2-2-3-1"],
        [[1, 1, 2, 1], [2, 2, 3, 1]],
        [(1, 1, 2, 1), "2-2-3-1"],
    ],
)
def test_sizes_of_a_models_stages_can_be_written_in_several_ways(depth):
    schedule = plan("swin", depth=depth)
    assert depths(schedule) == [(1, 1, 2, 1), (2, 2, 3, 1)]
    assert schedule.stages[0].arguments == {"depths": (1, 1, 2, 1)}


def test_depth_and_width_together():
    schedule = plan(depth="2,4,6", width="12,24,24")
    assert depths(schedule) == [(2,), (4,), (6,)]
    assert widths(schedule) == [(12,), (24,), (24,)]
    assert schedule.stages[0].arguments == {"depth": 2, "embed_dim": 12, "num_heads": 3}
    assert schedule.stages[1].arguments == {"depth": 4}


def test_what_is_not_named_stays_at_full_size():
    assert widths(plan(depth="3,6")) == [(24,), (24,)]
    assert depths(plan(width="12,24")) == [(6,), (6,)]


def test_a_resnets_stages_have_their_own_depths_and_widths():
    schedule = plan("resnet", depth="1-2-1-2,2-3-2-3", width="64-6-8-10,64-12-16-20")
    assert schedule.stages[0].size == Size((1, 2, 1, 2), (64, 6, 8, 10))
    assert schedule.stages[0].arguments == {"layers": (1, 2, 1, 2), "channels": (64, 6, 8, 10)}


def test_every_epoch_belongs_to_one_stage():
    schedule = plan(depth="2,4,6", epochs=11, at="0,4,5")
    for epoch in range(11):
        owners = [s for s in schedule.stages if s.first_epoch <= epoch < s.first_epoch + s.epochs]
        assert owners == [schedule.at(epoch)]


def test_words():
    schedule = plan(depth="3,6", width="12,24")
    assert schedule.describe(schedule.stages[0]) == "stage 1/2 (depth 3, width 12)"
    assert schedule.describe(schedule.stages[1]) == "stage 2/2 (depth 6, width 24)"


def test_a_run_that_does_not_grow_is_one_stage_of_any_architecture():
    config = RunConfig(epochs=7)
    schedule = plan_of(config).schedule
    assert spans(schedule) == [(0, 7)]
    assert not schedule.grows
    assert schedule.stages[0].size is None
    assert schedule.describe(schedule.at(6)) == schedule.stages[0].label == ""
    assert schedule.resolved(config.grow) is config.grow
    assert not config.grow.wanted
    assert GrowConfig(width="12,24").wanted


@pytest.mark.parametrize(
    ("name", "grow"),
    [
        ("vit", {"depth": [3, 6]}),
        ("vit", {"width": "12,24", "at": "0,5"}),
        ("vit", {"depth": "2,4,6", "width": "12,12,24", "depth_operator": "stack"}),
        ("swin", {"depth": [[1, 1, 2, 1], [2, 2, 3, 1]]}),
        ("resnet", {"depth": "1-2-1-2,2-3-2-3", "width": "64-6-8-10,64-12-16-20", "at": [0, 11]}),
    ],
)
def test_resolved_options_give_the_same_schedule(name, grow):
    options = GrowConfig(**grow)
    schedule = plan(name, **grow)
    resolved = schedule.resolved(options)
    assert all(isinstance(text, str) for text in (resolved.depth, resolved.width, resolved.at))
    again = make_schedule(resolved, 12, TARGETS[name], MODELS[name].name)
    assert again.stages == schedule.stages
    assert again.resolved(resolved) == resolved
    assert replace(resolved, depth=options.depth, width=options.width, at=options.at) == options


REFUSED = {
    "shrinks": ({"depth": "4,3,6"}, "--grow.depth: 4 to 3"),
    "shrinks in width": (
        {"depth": "2,4,6", "width": "12,8,24"},
        "--grow.width: 12 to 8",
    ),
    "larger than the model": (
        {"depth": "8,6"},
        "--grow.depth: 8 to 6",
    ),
    "ends too deep": ({"depth": "6,13"}, "--grow.depth: … 13 … 6"),
    "ends too early": ({"depth": "3,5"}, "--grow.depth: … 5 … 6"),
    "ends too narrow": ({"width": "8,12"}, "--grow.width: … 12 … 24"),
    "no block": ({"depth": "0,6"}, "--grow.depth 0: … 1"),
    "no number": (
        {"depth": "three,6"},
        "--grow.depth three: … --grow.depth 3,6",
    ),
    "half a block": (
        {"depth": [2.5, 6]},
        "--grow.depth 2.5: … --grow.depth 3,6",
    ),
    "a truth": (
        {"depth": [True, 6]},
        "--grow.depth True: … --grow.depth 3,6",
    ),
    "nothing": ({"depth": ""}, "--grow.depth : … --grow.depth 3,6"),
    "an empty list": ({"depth": []}, "--grow.depth: … no size … --grow.depth 3,6"),
    "too many numbers": (
        {"depth": "1-2,6"},
        "--grow.depth 1-2: … 1 … 3,6",
    ),
    "one size": (
        {"depth": "6"},
        "--grow: … one size … --grow.depth 6,12",
    ),
    "twice the same": (
        {"depth": "3,3,6"},
        "--grow: two … depth 3, width 24",
    ),
    "numbers of stages differ": (
        {"depth": "2,4,6", "width": "12,24"},
        "--grow.depth … 3 … --grow.width 2",
    ),
    "heads": (
        {"width": "10,24"},
        "--grow.width 10: 6 heads … 24 … 4, 8, 12",
    ),
    "more stages than epochs": (
        {"depth": "2,3,4,6", "epochs": 3},
        "--grow: 4 stages … 3 epochs … --epochs",
    ),
    "a stage after the end": (
        {"depth": "3,6", "at": "0,12"},
        "--grow.at: stage 2 … epoch 12 … 12",
    ),
    "epochs for other stages": (
        {"depth": "3,6", "at": "0,4,8"},
        "--grow.at … 3 epochs … 2 stages",
    ),
    "no beginning": ({"depth": "3,6", "at": "1,4"}, "--grow.at 1,4: … 0"),
    "back in time": ({"depth": "2,4,6", "at": "0,8,4"}, "--grow.at 0,8,4: … increase"),
    "no time": ({"depth": "2,4,6", "at": [0, 4, 4]}, "--grow.at 0,4,4: … increase"),
    "no epoch": (
        {"depth": "3,6", "at": "0,half"},
        "--grow.at 0,half: … --grow.at 0,150",
    ),
    "half an epoch": (
        {"depth": "3,6", "at": [0, 1.5]},
        "--grow.at [0, 1.5]: … --grow.at 0,150",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_plans_are_refused_in_one_line(case):
    grow, message = REFUSED[case]
    with pytest.raises(UserError) as caught:
        plan(**grow)
    assert mentions(str(caught.value), message)
    assert "\n" not in str(caught.value)


def test_epochs_alone_are_refused():
    with pytest.raises(UserError) as caught:
        plan_of(RunConfig(model=MODELS["vit"].name, epochs=12, grow=GrowConfig(at="0,6")))
    assert mentions(str(caught.value), "--grow.at: … --grow.depth or --grow.width")


def test_too_few_numbers_for_the_models_stages_are_refused():
    with pytest.raises(UserError, match=r"^--grow\.depth 6: .*4 numbers.* 1-1-1-1,2-2-3-1"):
        plan("swin", depth="6,12")


def test_a_stage_that_shrinks_beside_others_that_grow_is_refused():
    with pytest.raises(UserError, match=r"^--grow\.depth: 1-2-1-1 to 2-1-3-1"):
        plan("swin", depth="1-2-1-1,2-1-3-1,2-2-3-1")


@pytest.mark.parametrize(
    "start", [{"pretrained": True}, {"initial_checkpoint": "weights.pt"}, {"model": "local-dir:x"}]
)
def test_weights_of_full_size_cannot_grow(start):
    config = RunConfig(**{"model": "vit_tiny_patch16_224", "grow": GrowConfig(depth="6,12"), **start})
    with pytest.raises(UserError, match=r"^--grow: .*weights"):
        plan_of(config)
