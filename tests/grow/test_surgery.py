"""Growth of real networks: every tensor against its definition, and logits that must not change."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.tiny_models import MODELS, RESNETS, WIDTHS, Growth, averaged, growth_of, logits
from isometry.config import GrowConfig
from isometry.grow.architectures import Size, find_architecture
from isometry.grow.operators import WidthOperator, available
from isometry.grow.surgery import plan_surgery
from isometry.grow.weight_transfer import Tensors, TrainingState
from oracles import growth as oracle

STACKABLE = [name for name in MODELS if name not in RESNETS]
DEPTH_CASES = [
    *[(name, operator) for name in MODELS for operator in ("identity", "insert")],
    *[(name, "stack") for name in STACKABLE],
]
WIDTH_CASES = [(name, width) for name, widths in WIDTHS.items() for width in widths]


@cache
def deepening(name: str, operator: str) -> Growth:
    return growth_of(name, depth=True, depth_operator=operator)


@cache
def widening(name: str, width: tuple[int, ...], operator: str = "duplicate") -> Growth:
    return growth_of(name, width=width, width_operator=operator)


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def orders_of(name: str, operator: str) -> dict[str, list[oracle.Place]]:
    tiny = MODELS[name]
    return {
        holder: oracle.ORDERS[operator](old, new)
        for holder, old, new in zip(tiny.holders, *tiny.depths, strict=True)
    }


@pytest.mark.parametrize(("name", "operator"), DEPTH_CASES)
def test_deeper_networks_are_the_oracles_tensor_by_tensor(name, operator):
    """Copies from the moving average where published; the average itself grows by its own copies."""
    growth, silent = deepening(name, operator), MODELS[name].zeros
    average = averaged(growth)
    fresh = {key: tensor.clone() for key, tensor in growth.large.state_dict().items()}
    small = {key: tensor.clone() for key, tensor in growth.small.state_dict().items()}
    grown = growth.transfer(average)
    orders = orders_of(name, operator)
    assert_same(grown.weights, oracle.deepened(small, average, orders, fresh, silent))
    assert grown.average is not None
    assert_same(grown.average, oracle.deepened(average, average, orders, fresh, silent))
    assert grown.weights.keys() == fresh.keys()
    assert_same(growth.large.state_dict(), fresh)
    assert_same(growth.small.state_dict(), small)


@pytest.mark.parametrize(("name", "operator"), [("vit", "insert"), ("swin", "stack")])
def test_without_a_moving_average_blocks_are_copied_as_they_train(name, operator):
    growth = deepening(name, operator)
    small = growth.small.state_dict()
    grown = growth.transfer()
    assert grown.average is None
    assert_same(grown.weights, oracle.deepened(small, small, orders_of(name, operator), {}, ()))


@pytest.mark.parametrize("name", MODELS)
def test_identity_leaves_the_logits_as_they_are(name):
    growth = deepening(name, "identity")
    before = logits(growth.small, growth.tiny)
    fresh = {key: tensor.clone() for key, tensor in growth.large.state_dict().items()}
    grown = growth.transfer().weights
    large = growth.build(growth.surgery.after)
    assert growth.surgery.preserves
    assert (logits(large, growth.tiny, grown) - before).abs().max() <= 1e-5
    # New blocks that were not zeroed would have changed them.
    blocks = {key: fresh[key] for key in grown if key.endswith(MODELS[name].zeros)}
    added = {key: blocks[key] for key in blocks if not grown[key].any()}
    assert added
    assert (logits(large, growth.tiny, {**grown, **added}) - before).abs().max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_new_identity_blocks_can_learn(name):
    """Parameters that are zero get a gradient."""
    growth = deepening(name, "identity")
    large = growth.build(growth.surgery.after)
    large.load_state_dict(growth.transfer().weights)
    F.cross_entropy(large(growth.tiny.images()), torch.tensor([0, 1, 2])).backward()
    zeroed = [parameter for parameter in large.parameters() if not parameter.detach().any()]
    assert zeroed
    for parameter in zeroed:
        assert parameter.grad is not None
        assert parameter.grad.any()


@pytest.mark.parametrize("operator", ["insert", "stack"])
def test_copied_blocks_change_the_logits_as_the_operator_says(operator):
    growth = deepening("vit", operator)
    assert not growth.surgery.preserves
    large = growth.build(growth.surgery.after)
    difference = logits(large, growth.tiny, growth.transfer().weights) - logits(growth.small, growth.tiny)
    assert difference.abs().max() > 1e-2


@pytest.mark.parametrize(("name", "width"), WIDTH_CASES)
def test_duplicate_leaves_the_logits_as_they_are(name, width):
    growth = widening(name, width)
    large = growth.build(growth.surgery.after)
    average = averaged(growth)
    before = logits(growth.small, growth.tiny)
    grown = growth.transfer(average)
    assert growth.surgery.preserves
    assert (logits(large, growth.tiny, grown.weights) - before).abs().max() <= 1e-4
    smaller = growth.build(growth.surgery.before)
    expected = logits(smaller, growth.tiny, average)
    assert grown.average is not None
    assert (logits(large, growth.tiny, grown.average) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["vit", "cait", "resnet", "convnext"])
def test_duplicate_and_identity_together_leave_the_logits_as_they_are(name):
    growth = growth_of(name, depth=True, width=WIDTHS[name][0], depth_operator="identity")
    large = growth.build(growth.surgery.after)
    before = logits(growth.small, growth.tiny)
    assert (logits(large, growth.tiny, growth.transfer().weights) - before).abs().max() <= 1e-4
    assert growth.surgery.label == "identity + duplicate"
    assert growth.surgery.preserves


def test_depth_then_width_is_both_in_one():
    """insert + duplicate is insert, then duplicate, with copies of the average."""
    both = growth_of("vit", depth=True, width=(12,), depth_operator="insert")
    average = averaged(both)
    grown = both.transfer(average)
    between = Size(both.surgery.after.depth, both.surgery.before.width)
    first = oracle.deepened(both.small.state_dict(), average, orders_of("vit", "insert"), {}, ())
    middle = both.build(between)
    both_large = both.build(both.surgery.after)
    expected = logits(middle, both.tiny, first)
    assert (logits(both_large, both.tiny, grown.weights) - expected).abs().max() <= 1e-4
    assert not both.surgery.preserves


def sources_of(growth: Growth, name: str, old: Tensor, new: Tensor, dim: int) -> list[int]:
    """The source of each unit along an axis, known from the architecture."""
    if ".qkv." in name and dim == 0:
        before, after = (model.blocks[0].attn.num_heads for model in (growth.small, growth.large))
        return oracle.head_sources(before, after, old.shape[0] // (3 * before))
    return oracle.unit_sources(old.shape[dim], new.shape[dim])


def is_read(name: str, tensor: Tensor, dim: int) -> bool:
    """A layer's inputs: dimension 1 of its weight. Positions and tokens are (1, N, C)."""
    return dim == 1 and tensor.dim() in (2, 4) and name.endswith("weight")


@pytest.mark.parametrize(("name", "width"), WIDTH_CASES)
def test_wider_networks_copy_units_and_split_what_reads_them(name, width):
    """Incoming weights, biases, norms and statistics are the source's; outgoing weights add up to the source's."""
    growth = widening(name, width)
    small, grown = growth.small.state_dict(), growth.transfer().weights
    assert {key: t.shape for key, t in grown.items()} == {
        key: t.shape for key, t in growth.large.state_dict().items()
    }
    split = 0
    for key, new in grown.items():
        old = small[key].double()
        expected, found = old, new.double()
        for dim in range(old.dim()):
            if old.shape[dim] == new.shape[dim]:
                continue
            sources = sources_of(growth, key, old, new, dim)
            if is_read(key, new, dim):
                found = oracle.added_up(found, sources, old.shape[dim])
                split += 1
                columns = [found_of.abs().sum() for found_of in new.double().unbind(dim)]
                twins = [place for place, unit in enumerate(sources) if unit == sources[0]]
                assert len({float(columns[place]) for place in twins}) == len(twins), key
            else:
                expected = oracle.copied(expected, sources, dim)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5, msg=key)
    assert split


UNITS = {
    "vit": ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.2.mlp.fc1.weight"),
    "cait": ("patch_embed.proj.weight", "blocks.0.attn.proj_l.weight", "blocks.2.mlp.fc1.weight"),
    "resnet": ("layer2.0.conv1.weight", "layer4.1.conv1.weight"),
    "resnet, bottlenecks": ("layer1.0.conv1.weight", "layer3.1.conv2.weight"),
    "convnext": ("stem.0.weight", "stages.2.blocks.0.conv_dw.weight", "stages.0.blocks.0.mlp.fc1.weight"),
}
"""Incoming weights of copied units."""


def distances_of_copies(growth: Growth, large: nn.Module, name: str) -> dict[int, float]:
    """Distance of each copy's incoming weights from its source's.

    Its own inputs are copies, too, whose shares differ: what counts is the sum over them.
    """
    old, new = growth.small.state_dict()[name], large.state_dict()[name].double()
    if old.shape[1] != new.shape[1]:
        inputs = oracle.unit_sources(old.shape[1], new.shape[1])
        new = oracle.added_up(new, inputs, old.shape[1])
    sources = sources_of(growth, name, old, new, 0)
    first = [sources.index(unit) for unit in sources]
    return {
        place: float((new[place] - new[source]).abs().max())
        for place, source in enumerate(first)
        if place != source
    }


@pytest.mark.parametrize("name", UNITS)
def test_copies_differ_after_the_first_step(name):
    growth = widening(name, WIDTHS[name][0])
    large = growth.build(growth.surgery.after)
    large.load_state_dict(growth.transfer().weights)
    assert all(max(distances_of_copies(growth, large, key).values()) <= 1e-6 for key in UNITS[name])
    F.cross_entropy(large(growth.tiny.images()), torch.tensor([0, 1, 2])).backward()
    torch.optim.SGD(large.parameters(), lr=1.0).step()
    for key in UNITS[name]:
        gradient = large.get_parameter(key).grad
        assert gradient is not None
        # A unit that a ReLU shuts off for all these images does not learn at all.
        awake = {
            place: distance
            for place, distance in distances_of_copies(growth, large, key).items()
            if gradient[place].abs().max() > 1e-3
        }
        assert awake
        assert min(awake.values()) > 1e-5, key


INTERPOLATED = {
    "vit": {"norm.weight": 1, "pos_embed": 1, "head.weight": 1 / 2},
    "resnet": {"layer2.0.bn1.running_var": 1, "fc.weight": 8 / 20},
}
"""Tensors that grow along their last axis, and the share of the sum over it that an entry keeps."""


@pytest.mark.parametrize("name", INTERPOLATED)
def test_interpolated_units_lie_between_the_old_ones(name):
    """The operator declares that the function changes."""
    growth = widening(name, WIDTHS[name][0], "interpolate")
    assert not growth.surgery.preserves
    small, grown = growth.small.state_dict(), growth.transfer().weights
    for key, share in INTERPOLATED[name].items():
        rows = small[key].double().reshape(-1, small[key].shape[-1])
        new = [oracle.interpolated(row.tolist(), grown[key].shape[-1]) for row in rows]
        expected = share * torch.tensor(new).reshape(grown[key].shape)
        torch.testing.assert_close(grown[key], expected, atol=1e-6, rtol=1e-5)
    large = growth.build(growth.surgery.after)
    difference = logits(large, growth.tiny, grown) - logits(growth.small, growth.tiny)
    assert difference.abs().max() > 1e-2


@pytest.mark.parametrize("operator", available(WidthOperator))
def test_the_same_seed_grows_the_same_network(operator):
    first, again = (widening("vit", (12,), operator).transfer().weights for _ in range(2))
    assert_same(first, again)
    other = widening("vit", (12,), operator)
    moved = replace(other.surgery, seed=6)
    weights = moved.transfer(TrainingState(other.small.state_dict()), other.large).weights
    assert torch.equal(weights["head.weight"], first["head.weight"]) == (operator == "interpolate")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (((2,), (12,)), ((4,), (12,)), "stack"),
        (((4,), (12,)), ((4,), (24,)), "interpolate"),
        (((2,), (12,)), ((4,), (24,)), "stack + interpolate"),
    ],
)
def test_a_surgery_has_operators_only_for_what_grows(before, after, words):
    options = GrowConfig(depth_operator="stack", width_operator="interpolate")
    tiny = MODELS["vit"]
    architecture = find_architecture(tiny.build(), tiny.name)
    surgery = plan_surgery(options, architecture, Size(*before), Size(*after), seed=0, build=tiny.build)
    assert surgery.label == words
    assert not surgery.preserves


def projections(width: int, pairs: int) -> nn.ModuleDict:
    """Two terms with a projection to the teacher's 7 channels for each pair of blocks."""
    return nn.ModuleDict(
        {term: nn.ModuleList([nn.Linear(width, 7) for _ in range(pairs)]) for term in ("whole", "intra")}
    )


def test_projections_move_with_their_pairs():
    """Pairs 0 and 1 become 0 and 2; pair 1 is new."""
    growth = deepening("vit", "insert")
    small, large = projections(12, 2), projections(12, 3)
    moments = {name: {"exp_avg": p.detach() * 2} for name, p in small.named_parameters()}
    carried = growth.surgery.transfer_losses(
        TrainingState(small.state_dict(), None, moments), large, {0: 0, 1: 2}
    )
    for term in ("whole", "intra"):
        for old, new in ((0, 0), (1, 2)):
            for name in ("weight", "bias"):
                source = small.state_dict()[f"{term}.{old}.{name}"]
                assert torch.equal(carried.weights[f"{term}.{new}.{name}"], source)
                assert torch.equal(carried.optimizer[f"{term}.{new}.{name}"]["exp_avg"], source * 2)
        fresh = large.state_dict()[f"{term}.1.weight"]
        assert torch.equal(carried.weights[f"{term}.1.weight"], fresh)
    assert len(carried.optimizer) == 8
    large.load_state_dict(carried.weights)


def test_projections_of_pairs_that_are_gone_are_left_out():
    growth = deepening("vit", "insert")
    small, large = projections(12, 2), projections(12, 1)
    carried = growth.surgery.transfer_losses(TrainingState(small.state_dict()), large, {1: 0})
    assert carried.weights.keys() == large.state_dict().keys()
    assert torch.equal(carried.weights["whole.0.weight"], small.state_dict()["whole.1.weight"])


def test_projections_of_a_wider_student_project_the_same():
    growth = widening("vit", (12,))
    small, large = projections(12, 2), projections(24, 2)
    carried = growth.surgery.transfer_losses(TrainingState(small.state_dict()), large, {0: 1, 1: 0})
    large.load_state_dict(carried.weights)
    tokens = torch.randn(5, 12)
    for old, new in ((0, 1), (1, 0)):
        projected = large["intra"][new](torch.cat([tokens, tokens], 1))
        torch.testing.assert_close(projected, small["intra"][old](tokens))
