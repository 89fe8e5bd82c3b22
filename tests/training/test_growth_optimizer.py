"""The state of every timm optimizer: transferred between networks, and its measured degrees."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import timm.optim
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.grow.operators import WidthOperator, available
from isometry.grow.weight_transfer import Degree, Degrees, TrainingState, widen
from isometry.training.growth import State, state_by_name, state_degrees, take_over_state
from isometry.training.objective import Objective
from isometry.training.optim import build_optimizer

BITSANDBYTES = [
    f"bnb{name}{bits}" for name in ("adam", "adamw", "ademamix", "lion", "sgd") for bits in ("", "8bit")
]
APEX = ["fusedadam", "fusedadamw", "fusedlamb", "fusednovograd", "fusedsgd"]
EXCLUDED = {"CUDA required": [*BITSANDBYTES, *APEX], "needs second derivatives": ["adahessian"]}
"""Why, as it is said when they are asked for."""

OPTIMIZERS = [
    name for name in timm.optim.list_optimizers() if not any(name in names for names in EXCLUDED.values())
]


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """Kron compiles its arithmetic, which takes longer than all of these tests."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


pytestmark = pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")


class Network(nn.Module):
    """A vector (biases, norms), matrices, a convolution and a token: what optimizers treat differently."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.patches = nn.Conv2d(3, width, 2, 2)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, 2 * width)
        self.head = nn.Linear(2 * width, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT + self.token
        return self.head(F.gelu(self.hidden(self.norm(tokens))).mean(1))


IMAGES = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 5


def network(width: int = 20, seed: int = 0) -> Network:
    """Random in everything."""
    generator = torch.Generator().manual_seed(seed)
    made = Network(width)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise + (1 if name == "norm.weight" else 0))
    return made


def config(opt: str, **changes: object) -> RunConfig:
    return replace(RunConfig(opt=opt, lr=1e-2, weight_decay=0.02), **changes)


def optimizer_of(model: nn.Module, options: RunConfig) -> torch.optim.Optimizer:
    return build_optimizer(options, Objective(model, {"ce": 1.0}))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        # One optimizer draws random vectors.
        torch.manual_seed(step)
        optimizer.zero_grad()
        F.cross_entropy(model(IMAGES), LABELS).backward()
        optimizer.step()


def assert_equal_states(first: dict[str, State], second: dict[str, State]) -> None:
    assert first.keys() == second.keys()
    for name, state in first.items():
        assert state.keys() == second[name].keys()
        for key, value in state.items():
            ours = value if isinstance(value, list) else [value]
            theirs = second[name][key] if isinstance(value, list) else [second[name][key]]
            for one, other in zip(ours, theirs, strict=True):
                assert type(one) is type(other)
                if isinstance(one, Tensor):
                    assert one.dtype == other.dtype, (name, key)
                    assert torch.equal(one, other), (name, key)
                else:
                    assert one == other, (name, key)


def test_what_is_left_out_cannot_be_built_here():
    for reason, names in EXCLUDED.items():
        for name in names:
            with pytest.raises(UserError, match=reason):
                optimizer_of(nn.Linear(2, 2), config(name))
    assert len(OPTIMIZERS) + sum(map(len, EXCLUDED.values())) == len(timm.optim.list_optimizers())


def test_state_is_known_by_the_names_of_parameters():
    """Whatever order and groups the optimizer has them in."""
    model = network()
    optimizer = optimizer_of(model, config("adamw"))
    assert len(optimizer.param_groups) > 1
    train(model, optimizer, 1)
    states = state_by_name(optimizer, model)
    for name, parameter in model.named_parameters():
        assert states[name]["exp_avg"] is optimizer.state[parameter]["exp_avg"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_goes_over_whole(name):
    """Bitwise; after which both optimizers go on alike, steps and random draws and all."""
    first, second = network(), network(seed=1)
    former = optimizer_of(first, config(name))
    train(first, former, 4)
    second.load_state_dict(first.state_dict())
    latter = optimizer_of(second, config(name))
    states = state_by_name(former, first)
    assert states.keys() == dict(first.named_parameters()).keys()
    take_over_state(latter, [(second, deepcopy(states))], former)
    assert_equal_states(state_by_name(latter, second), states)
    train(first, former, 2)
    train(second, latter, 2)
    for key, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], tensor), key
    assert_equal_states(state_by_name(latter, second), state_by_name(former, first))


def test_what_is_drawn_at_random_goes_on_where_it_was():
    """Kron decides by its own generator when to balance."""
    model = network()
    former, latter = (optimizer_of(model, config("kron")) for _ in range(2))
    train(model, former, 3)
    take_over_state(latter, [(model, {})], former)
    assert latter.state_dict()["rng_state"] == former.state_dict()["rng_state"]


def test_state_of_several_modules_goes_to_their_parameters():
    """The student's and the losses' own; a parameter without state begins anew."""
    student, losses = nn.Linear(3, 3), nn.Linear(2, 2)
    both = nn.ModuleDict({"losses": losses, "student": student})
    former = torch.optim.AdamW(both.parameters())
    for parameter in both.parameters():
        parameter.grad = torch.rand_like(parameter)
    former.step()
    latter = torch.optim.AdamW(nn.ModuleDict({"student": student, "losses": losses}).parameters())
    moments = [(student, state_by_name(former, student)), (losses, {})]
    take_over_state(latter, moments, former)
    assert_equal_states(state_by_name(latter, student), state_by_name(former, student))
    assert state_by_name(latter, losses) == {}


PUBLISHED = {
    "sgd": {"momentum_buffer": Degree(1)},
    "adamw": {"exp_avg": Degree(1), "exp_avg_sq": Degree(2)},
    "lamb": {"exp_avg": Degree(1), "exp_avg_sq": Degree(2)},
    "lion": {"exp_avg": Degree(1)},
    "adamax": {"exp_avg": Degree(1), "exp_inf": Degree(1)},
    "adagrad": {"sum": Degree(2)},
    "laprop": {"exp_avg": Degree(0), "exp_avg_sq": Degree(2)},
    "adopt": {"exp_avg": Degree(0), "exp_avg_sq": Degree(2)},
    "novograd": {"exp_avg": Degree(0)},
    "rmsprop": {"square_avg": Degree(2), "momentum_buffer": Degree(0)},
    "rmsproptf": {"square_avg": Degree(2), "momentum_buffer": Degree(0)},
    "adadelta": {"square_avg": Degree(2), "acc_delta": Degree(0)},
    "madgrad": {"s": Degree(1), "grad_sum_sq": Degree(2), "x0": Degree(0, 1)},
}
"""What the papers' equations say of optimizers that treat all parameters alike."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_degrees_are_those_of_the_equations(name):
    assert list(state_degrees(config(name)).values()) == [PUBLISHED[name]]


def test_muon_keeps_other_things_of_matrices_than_of_vectors():
    matrices, vectors = state_degrees(config("adamuon")).values()
    assert matrices == {"momentum_buffer": Degree(1), "exp_avg_sq": Degree(0)}
    assert vectors == {"exp_avg": Degree(1), "exp_avg_sq": Degree(2)}


def test_nothing_is_said_of_optimizers_that_keep_other_things_of_large_matrices():
    assert state_degrees(config("adafactor")) == {}


def test_adafactors_network_may_grow_past_where_it_begins_to_factor():
    small, large = network(12), network(24, seed=2)
    options = config("adafactor")
    former = optimizer_of(small, options)
    train(small, former, 3)
    moments, degrees = state_by_name(former, small), state_degrees(options)
    grown = widen(
        available(WidthOperator)["duplicate"],
        large,
        TrainingState(small.state_dict(), None, moments, degrees),
        0,
    )
    large.load_state_dict(grown.weights)
    optimizer = optimizer_of(large, options)
    take_over_state(optimizer, [(large, grown.optimizer)], former)
    train(large, optimizer, 3)
    assert all(parameter.isfinite().all() for parameter in large.parameters())


def test_an_optimizer_that_keeps_nothing_has_no_degrees():
    assert not any(state_degrees(config("momentum", momentum=0.0)).values())


STEPS = 100
"""TensorFlow's RMSprop begins with 1, and 0.9^100 is little beside the squares of these gradients."""


@cache
def degrees_of(name: str) -> Degrees:
    return state_degrees(config(name))


Kept = dict[tuple[frozenset[str], str], Tensor]
"""What an optimizer keeps in a parameter's shape, by all names in that state and its own."""


def kept_after(name: str, scales: list[tuple[float, float]]) -> list[Kept]:
    """What it keeps of layers that get the same gradients and begin with the same weights, up to factors."""
    layers = nn.ModuleList(nn.Linear(6, 5) for _ in scales)
    generator = torch.Generator().manual_seed(11)
    both = [
        (torch.randn(5, 6, generator=generator), torch.randn(5, generator=generator)) for _ in range(STEPS)
    ]
    with torch.no_grad():
        for layer, (_, factor) in zip(layers, scales, strict=True):
            for parameter, noise in zip(layer.parameters(), both[0], strict=True):
                parameter.copy_(factor * noise)
    optimizer = optimizer_of(layers, config(name, lr=1e-8, weight_decay=0.0))
    for gradients in both:
        for layer, (factor, _) in zip(layers, scales, strict=True):
            for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
                parameter.grad = 0.03 * factor * gradient
        optimizer.step()
    return [
        {
            (frozenset(state), key): value.double()
            for parameter, state in ((p, optimizer.state[p]) for p in layer.parameters())
            for key, value in state.items()
            if isinstance(value, Tensor) and value.shape == parameter.shape
        }
        for layer in layers
    ]


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if "adafactor" not in name])
def test_degrees_are_what_three_times_the_gradients_or_weights_show(name):
    """Entry by entry, on another layer than they were found on, with another factor, for another time."""
    degrees = degrees_of(name)
    once, more, heavy = kept_after(name, [(1.0, 1.0), (3.0, 1.0), (1.0, 3.0)])
    assert once.keys() == {(kept, key) for kept, known in degrees.items() for key in known}
    for (kept, key), value in once.items():
        degree = degrees[kept][key]
        for found, power in ((more, degree.of_gradients), (heavy, degree.of_weights)):
            off = (found[kept, key] / 3.0**power - value).abs().max() / value.abs().max()
            assert off < 0.2, (key, degree, float(off))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_without_state_begin_anew_beside_others_that_go_on(name):
    """As new blocks do."""
    model = network()
    former, latter = (optimizer_of(model, config(name)) for _ in range(2))
    train(model, former, 3)
    known = {
        key: state for key, state in state_by_name(former, model).items() if not key.startswith("hidden")
    }
    take_over_state(latter, [(model, deepcopy(known))], former)
    taken = state_by_name(latter, model)
    assert_equal_states({key: taken[key] for key in known}, known)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    # Two steps: in its first, ADOPT looks at gradients only.
    train(model, latter, 2)
    for key, tensor in model.state_dict().items():
        assert tensor.isfinite().all(), key
        assert not torch.equal(tensor, weights[key]), key
        assert (tensor - weights[key]).abs().max() < 0.5, key


RATE_INSIDE = frozenset({"rmsproptf", "rmsproptfc", "rmsproptfw", "crmsproptf", "cadafactor"})
"""Their momentum holds past learning rates, and goes on without one."""

WEIGHTS_INSIDE = frozenset({"madgrad", "madgradw"})
"""Their weights are made of their state, and of gradients with a rate of at least 1e-6."""


def grown_with_state(name: str) -> tuple[Network, torch.optim.Optimizer, Tensor]:
    """A network twice as wide after training, its optimizer with the state carried along, and its logits."""
    options = config(name, weight_decay=0.0)
    small, large = network(), network(40, seed=2)
    former = optimizer_of(small, options)
    train(small, former, 4)
    baggage = TrainingState(small.state_dict(), None, state_by_name(former, small), degrees_of(name))
    grown = widen(available(WidthOperator)["duplicate"], large, baggage, seed=0)
    large.load_state_dict(grown.weights)
    latter = optimizer_of(large, options)
    take_over_state(latter, [(large, grown.optimizer)], former)
    logits = large(IMAGES).detach()
    torch.testing.assert_close(logits, small(IMAGES), atol=1e-5, rtol=1e-5)
    return large, latter, logits


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_after_growth_with_carried_state(name):
    """The function stays until there is a learning rate; then every weight learns and stays finite."""
    large, optimizer, before = grown_with_state(name)
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 1e-12
    train(large, optimizer, 1)
    if name not in RATE_INSIDE:
        moved = float((large(IMAGES) - before).detach().abs().max())
        assert moved <= (0.05 if name in WEIGHTS_INSIDE else 1e-5), moved
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    weights = {key: tensor.clone() for key, tensor in large.state_dict().items()}
    train(large, optimizer, 1)
    for key, tensor in large.state_dict().items():
        assert tensor.isfinite().all(), key
        assert not torch.equal(tensor, weights[key]), key
