"""Optimizer state is carried over as the gradients that it averages are, measured in float64."""

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.tiny_models import MODELS, WIDTHS, growth_of
from isometry.errors import UserError
from isometry.functional.growth import along
from isometry.grow.architectures import Size, find_architecture
from isometry.grow.operators import DepthOperator, WidthOperator, available
from isometry.grow.weight_transfer import Degree, TrainingState, deepen, widen
from oracles import growth as oracle

DEPTH, WIDTH = available(DepthOperator), available(WidthOperator)
DUPLICATE = WIDTH["duplicate"]
ADAM = {frozenset({"step", "exp_avg", "exp_avg_sq"}): {"exp_avg": Degree(1), "exp_avg_sq": Degree(2)}}


class EvenShares(type(DUPLICATE)):
    """Copies with equal shares, for which the law of the moments is exact."""

    def shares(self, weight: Tensor, dim: int, old: int, groups: int, generator: torch.Generator) -> Tensor:
        return along(self.mean_shares(old, weight.shape[dim], groups), weight, dim)


def gradients(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """By parameter, in float64."""
    model.double().zero_grad()
    F.cross_entropy(model(images.double()), torch.arange(len(images))).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def adam_state(gradient: Tensor) -> dict[str, Tensor]:
    """After one gradient, without decay."""
    return {"step": torch.tensor(3.0), "exp_avg": gradient.clone(), "exp_avg_sq": gradient**2}


@pytest.mark.parametrize(
    ("name", "width"), [(name, width) for name, widths in WIDTHS.items() for width in widths]
)
def test_moments_become_those_of_the_wider_networks_gradients(name, width):
    """For every parameter: the first moment the gradient, the second its square; steps stay."""
    growth = growth_of(name, width=width)
    images = growth.tiny.images()
    before = gradients(growth.small, images)
    moments = {key: adam_state(gradient) for key, gradient in before.items()}
    old = TrainingState(growth.small.state_dict(), None, moments, ADAM)
    grown = widen(EvenShares(), growth.large.double(), old, seed=0)
    large = growth.build(growth.surgery.after).double()
    large.load_state_dict(grown.weights)
    after = gradients(large, images)
    assert grown.optimizer.keys() == after.keys()
    scale = max(float(gradient.abs().max()) for gradient in after.values())
    for key, gradient in after.items():
        state = grown.optimizer[key]
        torch.testing.assert_close(state["exp_avg"], gradient, atol=1e-9 * scale, rtol=1e-6, msg=key)
        torch.testing.assert_close(state["exp_avg_sq"], gradient**2, atol=1e-9 * scale**2, rtol=1e-6, msg=key)
        assert state["step"] == 3
    for key, gradient in before.items():
        assert torch.equal(moments[key]["exp_avg"], gradient)


def perceptron(hidden: int) -> nn.Module:
    torch.manual_seed(hidden)
    return nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3)).double()


def grown_perceptron(seed: int, units: tuple[int, int]) -> tuple[dict[str, Tensor], nn.Module, TrainingState]:
    """True gradients of a small perceptron, and the same function with more units, uneven shares."""
    small, large = (perceptron(size) for size in units)
    images = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4).cos()
    before = gradients(small, images)
    moments = {key: adam_state(gradient) for key, gradient in before.items()}
    grown = widen(DUPLICATE, large, TrainingState(small.state_dict(), None, moments, ADAM), seed)
    large.load_state_dict(grown.weights)
    return gradients(large, images), large, grown


@pytest.mark.parametrize("units", [(5, 10), (5, 13), (2, 7)])
def test_outgoing_weights_have_their_sources_gradients_whatever_the_shares(units):
    after, _, grown = grown_perceptron(1, units)
    for name in ("2.weight", "2.bias"):
        torch.testing.assert_close(grown.optimizer[name]["exp_avg"], after[name])
        torch.testing.assert_close(grown.optimizer[name]["exp_avg_sq"], after[name] ** 2)


@pytest.mark.parametrize("units", [(5, 10), (5, 13), (2, 7)])
def test_incoming_weights_moments_are_right_in_sum_over_the_copies(units):
    """Shares sum to 1; the carried moments are the mean over shares."""
    after, _, grown = grown_perceptron(1, units)
    sources = oracle.unit_sources(*units)
    for name in ("0.weight", "0.bias"):
        for unit in range(units[0]):
            copies = [place for place, source in enumerate(sources) if source == unit]
            carried = grown.optimizer[name]["exp_avg"][copies]
            torch.testing.assert_close(carried.sum(0), after[name][copies].sum(0))
            torch.testing.assert_close(carried, carried[:1].expand_as(carried))


def test_incoming_weights_gradients_are_the_carried_ones_on_average_over_shares():
    found = [grown_perceptron(seed, (5, 13))[0]["0.weight"] for seed in range(100)]
    _, _, grown = grown_perceptron(0, (5, 13))
    expected = grown.optimizer["0.weight"]["exp_avg"]
    spread = torch.stack(found).std(0) / len(found) ** 0.5
    assert ((torch.stack(found).mean(0) - expected).abs() <= 4.5 * spread + 1e-12).all()
    assert spread.max() > 0


def widened(state: dict[str, object], degrees: dict[str, Degree], key: str = "0.weight") -> TrainingState:
    """A perceptron's state with one optimizer tensor, from 4 units to 8."""
    old = TrainingState(perceptron(4).state_dict(), None, {key: state}, {frozenset(state): degrees})
    return widen(DUPLICATE, perceptron(8), old, seed=0)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_a_tensor_scales_with_its_power_of_the_gradients(degree):
    state = torch.rand(4, 4, dtype=torch.float64)
    grown = widened({"s": state}, {"s": Degree(degree)}).optimizer["0.weight"]["s"]
    torch.testing.assert_close(grown, torch.cat([state, state]) / 2**degree)


def test_state_of_unknown_degree_is_dropped_where_the_parameter_changes():
    small, large = perceptron(4), perceptron(8)
    moments = {"0.weight": {"s": torch.ones(4, 4)}, "2.bias": {"s": torch.ones(3)}}
    grown = widen(DUPLICATE, large, TrainingState(small.state_dict(), None, moments), 0).optimizer
    assert grown.keys() == {"2.bias"}


def test_degrees_depend_on_all_names_of_a_state():
    """Muon keeps another quantity for matrices than for vectors, under the same name."""
    small, large = perceptron(4), perceptron(8)
    one = torch.ones(4, dtype=torch.float64)
    moments = {"0.weight": {"m": one.expand(4, 4), "v": one.expand(4, 4)}, "0.bias": {"v": one}}
    degrees = {frozenset({"m", "v"}): {"m": Degree(1), "v": Degree(0)}, frozenset({"v"}): {"v": Degree(2)}}
    grown = widen(DUPLICATE, large, TrainingState(small.state_dict(), None, moments, degrees), 0).optimizer
    assert float(grown["0.weight"]["v"].mean()) == 1
    assert float(grown["0.weight"]["m"].mean()) == 1 / 2
    assert float(grown["0.bias"]["v"].mean()) == 1 / 4


@pytest.mark.parametrize("kept", [torch.ones(4), torch.ones(2, 2), [torch.ones(4, 4)], None])
def test_state_of_another_shape_is_dropped_where_the_parameter_changes(kept):
    state = {"row": kept, "exp_avg": torch.ones(4, 4)}
    assert widened(state, {}).optimizer == {}
    state = {"row": kept, "exp_avg": torch.ones(3)}
    assert widened(state, {}, "2.bias").optimizer["2.bias"].keys() == state.keys()


@pytest.mark.parametrize("kept", [7, 0.5, True, torch.tensor(7.0), torch.ones(1, 1)])
def test_numbers_stay_as_they_are(kept):
    state = {"count": kept, "m": torch.ones(4, 4)}
    assert widened(state, {"m": Degree(1)}).optimizer["0.weight"]["count"] == kept


def test_state_that_depends_on_weights_is_dropped_where_the_parameter_changes():
    """MADGRAD's weights are x0 − s/∛v: shares would have to be in x0 and s, and gradients have none."""
    degrees = {"s": Degree(1), "x0": Degree(0, 1)}
    assert widened({"s": torch.ones(4, 4), "x0": torch.ones(4, 4)}, degrees).optimizer == {}
    assert widened({"s": torch.ones(3), "x0": torch.ones(3)}, degrees, "2.bias").optimizer


def test_interpolated_moments_lie_between_and_keep_their_sum():
    small, large = perceptron(4), perceptron(8)
    state = {"m": torch.rand(4, 4, dtype=torch.float64)}
    degrees = {frozenset({"m"}): {"m": Degree(1)}}
    old = TrainingState(small.state_dict(), None, {"0.weight": state}, degrees)
    grown = widen(WIDTH["interpolate"], large, old, 0)
    columns = [oracle.interpolated(column, 8) for column in state["m"].T.tolist()]
    expected = torch.tensor(columns, dtype=torch.float64).T / 2
    torch.testing.assert_close(grown.optimizer["0.weight"]["m"], expected)
    torch.testing.assert_close(grown.optimizer["0.weight"]["m"].sum(), state["m"].sum())


@pytest.mark.parametrize("operator", DEPTH)
@pytest.mark.parametrize("name", ["vit", "cait", "swin", "resnet", "convnext"])
def test_copied_blocks_take_their_sources_state_and_new_ones_have_none(name, operator):
    growth = growth_of(name, depth=True, depth_operator=operator)
    moments = {key: {"exp_avg": torch.randn_like(p)} for key, p in growth.small.named_parameters()}
    orders = {
        holder: oracle.ORDERS[operator](old, new)
        for holder, old, new in zip(growth.tiny.holders, *growth.tiny.depths, strict=True)
    }
    old = TrainingState(growth.small.state_dict(), None, moments)
    grown = growth.surgery.transfer(old, growth.large).optimizer
    first = {key: state["exp_avg"] for key, state in moments.items()}
    expected = oracle.deepened(first, first, orders, {}, ())
    assert grown.keys() == expected.keys()
    for key, state in grown.items():
        assert torch.equal(state["exp_avg"], expected[key]), key
    assert (len(grown) < len(list(growth.large.parameters()))) == (operator == "identity")


def test_a_copy_and_its_source_do_not_share_their_state():
    growth = growth_of("vit", depth=True, depth_operator="insert")
    name = "blocks.{}.norm1.weight"
    state = {"exp_avg": torch.zeros(24), "Q": [torch.zeros(24)]}
    old = TrainingState(growth.small.state_dict(), growth.small.state_dict(), {name.format(3): state})
    grown = growth.surgery.transfer(old, growth.large)
    for kept in (grown.optimizer[name.format(4)], grown.weights, grown.average):
        assert kept is not None
        for value in kept.values():
            value = value[0] if isinstance(value, list) else value
            if value.is_floating_point():
                value.fill_(1)
    assert set(grown.optimizer) == {name.format(4), name.format(5)}
    other = grown.optimizer[name.format(5)]
    assert not other["exp_avg"].any()
    assert not other["Q"][0].any()
    assert not state["Q"][0].any()
    assert all((tensor != 1).any() for tensor in growth.small.state_dict().values() if tensor.dim() > 1)


@pytest.mark.parametrize("operator", ["insert", "stack"])
@pytest.mark.parametrize("name", ["resnet", "resnet, bottlenecks"])
def test_a_resnets_first_block_is_no_copy_of_the_others(name, operator):
    tiny = MODELS[name]
    depth = tiny.kwargs["layers"]
    orders = {
        holder: DEPTH[operator].order(1 if holder == "layer3" else blocks, blocks)
        for holder, blocks in zip(tiny.holders, depth, strict=True)
    }
    small = tiny.build(layers=(*depth[:2], 1, depth[3]))
    with pytest.raises(UserError) as caught:
        deepen(
            DEPTH[operator],
            find_architecture(small, name),
            orders,
            tiny.build(),
            TrainingState(small.state_dict()),
        )
    assert str(caught.value) == (
        f"--grow.depth-operator {operator}: layer3.0 is unlike the blocks after it and can't be copied to layer3.1; "
        "use identity"
    )


def test_growth_of_nothing_changes_nothing():
    growth = growth_of("vit")
    assert growth.surgery.label == ""
    size = Size((6,), (24,))
    assert (growth.surgery.before, growth.surgery.after) == (size, size)
    small = growth.small.state_dict()
    assert all(torch.equal(tensor, small[name]) for name, tensor in growth.transfer().weights.items())


def test_a_block_with_a_projection_is_not_copied_without_it():
    """With equal widths, a strided first block has the shapes of the others and a projection."""
    kwargs = {"num_classes": 3, "channels": (64, 64, 64, 64)}
    small, large = (timm.create_model("resnet18", layers=(2, n, 2, 2), **kwargs) for n in (1, 2))
    orders = {"layer2": DEPTH["stack"].order(1, 2)}
    with pytest.raises(UserError, match=r"layer2\.0"):
        deepen(
            DEPTH["stack"],
            find_architecture(small, "resnet18"),
            orders,
            large,
            TrainingState(small.state_dict()),
        )
