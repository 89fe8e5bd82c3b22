"""The dry run: logits on random weights before and after growth; growth that can't work is refused in one line."""

import re

import pytest
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import ParallelScalingBlock

from helpers.messages import mentions
from helpers.runs import plan_of
from helpers.tiny_models import MODELS, WIDTHS, growth_of
from isometry.config import GrowConfig, RunConfig
from isometry.errors import UserError
from isometry.grow.dry_run import TOLERANCE, check_outputs


def settle(name: str, kwargs: dict[str, object] | None = None, **grow: object) -> list[str]:
    """The notes of a run that is planned and checked as before training."""
    tiny = MODELS[name]
    config = RunConfig(
        model=tiny.name,
        model_kwargs={**tiny.kwargs, **(kwargs or {})},
        num_classes=5,
        epochs=10,
        losses={"ce": 1.0},
        grow=GrowConfig(**grow),
    )
    if "img_size" not in config.model_kwargs:
        config.img_size = tiny.img_size
    return plan_of(config).check_growth(averages=False)


def refusal(*args: object, **grow: object) -> str:
    """The message that refuses a plan: one line."""
    with pytest.raises(UserError) as caught:
        settle(*args, **grow)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_identity_passes_within_rounding(name):
    growth = growth_of(name, depth=True, depth_operator="identity")
    size = MODELS[name].img_size
    assert 0 <= check_outputs(growth.surgery, (3, size, size)) < TOLERANCE / 10


@pytest.mark.parametrize("name", WIDTHS)
def test_duplicate_passes_within_rounding(name):
    growth = growth_of(name, width=WIDTHS[name][0])
    size = MODELS[name].img_size
    assert 0 <= check_outputs(growth.surgery, (3, size, size)) < TOLERANCE / 10


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("vit", (("mlp.fc2",),)),
        ("deit3", (("ls2",),)),
        ("resnet", (("bn1",),)),
        ("convnext", (("norm",),)),
    ],
)
def test_wrong_ends_of_branches_are_found(name, ends, monkeypatch):
    """Whatever timm's initial weights are: a ResNet's last norms begin at 0, layer scales near it."""
    growth = growth_of(name, depth=True, depth_operator="identity")
    kind = type(growth.surgery.architecture)
    monkeypatch.setattr(kind, "branch_ends", dict.fromkeys(kind.branch_ends, ends))
    size = MODELS[name].img_size
    with pytest.raises(UserError, match=r"^--grow: identity .*logits"):
        check_outputs(growth.surgery, (3, size, size))


@pytest.mark.parametrize(
    ("name", "width", "words"),
    [("vit", "16,24", "16 to 24 is 1.5 times"), ("cait", "20,24", "20 to 24 is 1.2 times")],
)
def test_layernorm_needs_a_whole_factor(name, width, words):
    assert refusal(name, width=width) == (
        f"--grow.width-operator duplicate: {words}, and LayerNorm keeps its statistics only under whole factors; "
        "widths that grow to 24: 4, 8, 12; or use --grow.width-operator interpolate"
    )
    assert settle(name, width=width, width_operator="interpolate")


@pytest.mark.parametrize("width", ["4", "8", "12"])
def test_widths_in_the_message_work(width):
    assert settle("vit", width=f"{width},24") == []


def test_convnexts_widths_in_the_message_work():
    kwargs = {"dims": (8, 8, 24, 32)}
    message = refusal("convnext", kwargs, width="4-4-16-16,8-8-24-32")
    assert mentions(message, "--grow.width-operator duplicate: … 16 to 24")
    widths = re.search("widths that grow to 24: (.*?);", message)
    assert widths is not None
    assert widths[1] == "2-2-6-8, 4-4-12-16"
    for width in widths[1].split(", "):
        settle("convnext", kwargs, width=f"{width},8-8-24-32")


def test_batchnorm_takes_any_ratio():
    assert settle("resnet", width="64-8-10-12,64-12-16-20") == []


def test_norms_of_added_blocks_are_not_widened():
    assert settle("vit", depth="3,6", width="12,24", depth_operator="identity") == []
    assert "1.5 times" in refusal("vit", depth="3,6", width="16,24", depth_operator="identity")


GATED = {"mlp_layer": SwiGLUPacked}


@pytest.mark.parametrize(
    ("name", "kwargs", "grow"),
    [
        ("resnet, bottlenecks", {"cardinality": 2, "base_width": 32}, {"width": "4-4-4-6,6-8-4-12"}),
        ("vit", GATED, {"width": "12,24"}),
        ("vit", {"global_pool": "map", "class_token": False}, {"width": "12,24"}),
    ],
)
def test_architectures_whose_outputs_change_are_refused(name, kwargs, grow):
    """Grouped convolutions, gated MLPs in one layer, pooling with fused keys and values."""
    message = refusal(name, kwargs, **grow)
    assert message.startswith("--grow: duplicate must leave the logits as they are, and for ")
    assert settle(name, kwargs, **grow, width_operator="interpolate")


def test_such_architectures_may_grow_in_depth():
    assert settle("vit", GATED, depth="3,6", depth_operator="identity") == []


@pytest.mark.parametrize("operator", ["insert", "stack"])
def test_a_resnets_first_block_cannot_be_copied(operator):
    message = refusal("resnet", depth="2-1-2-3,2-3-2-3", depth_operator=operator)
    assert message.startswith(f"--grow.depth: {operator} from 1 to 3: 2 blocks to add")
    message = refusal("resnet", depth="2-3-1-3,2-3-2-3", depth_operator=operator)
    assert message.startswith(f"--grow.depth-operator {operator}: layer3.0 is unlike the blocks after it")
    settle("resnet", depth="2-3-1-3,2-3-2-3", depth_operator="identity")


@pytest.mark.parametrize(
    ("name", "operator", "depth", "words"),
    [
        ("vit", "insert", "2,6", "insert from 2 to 6: 4 blocks to add"),
        ("swin", "stack", "2-2-1-1,2-2-3-1", "stack from 1 to 3: 2 blocks to add"),
    ],
)
def test_more_blocks_than_there_are_to_copy_are_refused(name, operator, depth, words):
    message = refusal(name, depth=depth, depth_operator=operator)
    assert message.startswith(f"--grow.depth: {words}")
    assert message.endswith("; grow in smaller steps, or use --grow.depth-operator identity")
    assert settle(name, depth=depth, depth_operator="identity") == []


def test_blocks_that_cannot_become_the_identity_are_refused():
    message = refusal("vit", {"block_fn": ParallelScalingBlock}, depth="3,6", depth_operator="identity")
    assert mentions(message, "ParallelScalingBlock … identity")
    assert settle("vit", {"block_fn": ParallelScalingBlock}, depth="3,6", depth_operator="stack")


def test_operators_that_change_the_outputs_are_noted():
    """Also blocks that are copied without a moving average."""
    change, average = settle("vit", depth="3,6", depth_operator="stack")
    assert re.search(r"stack.* does not preserve the function", change)
    assert re.search(r"--model-ema.* stack copies", average)
    (change,) = settle("vit", width="12,24", width_operator="interpolate")
    assert re.search(r"interpolate.* does not preserve the function", change)
    assert settle("vit", width="12,24") == []
