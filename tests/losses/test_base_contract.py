"""What every loss in the folder promises, whoever wrote it."""

from typing import Any, get_type_hints

import pytest
import torch

from isometry.errors import UserError
from isometry.losses import Loss, available, build_loss
from isometry.losses.base import CONTEXT, _fits, parse_terms

B, N, K, CS, CT, G = 4, 6, 5, 8, 12, 7
SHAPES = {
    "student_tokens": (B, N, CS),
    "teacher_tokens": (B, N, CT),
    "cross_entropy": (B,),
    "saliencies": (B, G),
    "pooled_features": (B, CS),
}
LEARNING = ("student_logits", "student_distilled_logits", "student_tokens", "saliencies")
"""Inputs that a loss is there to change."""
NAMES = sorted(available())


def built(name: str) -> Loss:
    torch.manual_seed(0)
    loss = build_loss(
        name,
        {},
        reduction="mean",
        generator=torch.Generator().manual_seed(0),
        student_width=CS,
        teacher_width=CT,
    )
    if name == "sparsity":
        # As an epoch has left it: before the first one's end it asks nothing of anybody.
        loss.limit.fill_(2)
    return loss


def inputs_of(loss: Loss, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for name in loss.inputs:
        if name == "labels":
            made.append(torch.randint(K, (B,), generator=generator))
            continue
        tensor = torch.randn(SHAPES.get(name, (B, K)), generator=generator)
        if name in ("cross_entropy", "saliencies"):
            tensor = tensor.abs()
        made.append(tensor.to(dtype).requires_grad_(name in LEARNING))
    return made


def test_the_losses_of_the_package_are_found_by_their_files_names():
    on_outputs = {"ce", "embedding", "hard", "inter", "intra", "random", "soft", "whole"}
    assert on_outputs | {"similarity", "sparsity"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_names_inputs_that_train_the_student(name):
    assert set(available()[name].inputs) & set(LEARNING)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_gives_a_finite_float32_scalar_that_is_not_negative(name, dtype):
    loss = built(name).to(dtype)
    value = loss(*inputs_of(loss, dtype))
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert value >= 0


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_reaches_the_student_and_is_finite(name):
    loss = built(name)
    given = inputs_of(loss)
    loss(*given).backward()
    for input_name, tensor in zip(loss.inputs, given, strict=True):
        if input_name in LEARNING:
            assert torch.isfinite(tensor.grad).all()
            assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_slope(name):
    loss = built(name).double()
    given = [t.detach().double() if t.is_floating_point() else t for t in inputs_of(loss)]
    given[0].requires_grad_()
    # Random terms must draw alike at every call.
    state = loss.generator.get_state() if getattr(loss, "generator", None) is not None else None

    def value(student):
        if state is not None:
            loss.generator.set_state(state)
        return loss(student, *given[1:])

    direction = torch.randn(given[0].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(value(given[0]), given[0])
    # Logit losses compute in float32, so the step is as large as the curvature allows.
    step = 1e-3
    with torch.no_grad():
        slope = (value(given[0] + step * direction) - value(given[0] - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum().double(), slope.double(), rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in NAMES if available()[n].scale_invariant])
def test_a_loss_that_is_scale_invariant_compares_tokens_up_to_scale(name):
    student, teacher = (tensor.detach() for tensor in inputs_of(built(name)))
    expected = built(name)(student, teacher)
    assert expected > 1e-3
    torch.testing.assert_close(built(name)(3 * student, teacher), expected)
    torch.testing.assert_close(built(name)(student, 3 * teacher), expected)
    assert built(name)(student, 2 * student) < 1e-6


def test_a_student_with_the_teachers_logits_has_no_soft_loss():
    logits = torch.randn(B, K)
    assert built("soft")(logits, logits) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("name", [n for n in NAMES if len(available()[n].inputs) == 2])
def test_shapes_that_do_not_fit_are_refused(name):
    loss = built(name)
    student, other = inputs_of(loss)
    with pytest.raises((ValueError, RuntimeError)):
        loss(student[: B - 1], other)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (("student_token", "labels"), "student_token: no such input; did you mean student_tokens"),
        (("xyz",), "xyz: no such input; there are cross_entropy, labels, .*teacher_tokens"),
        ("labels", "must be a tuple of names"),
    ],
)
def test_inputs_that_do_not_exist_are_refused_with_near_ones(inputs, message):
    with pytest.raises(UserError, match=rf"^Mine\.inputs:? {message}"):
        type("Mine", (Loss,), {"inputs": inputs})


@pytest.mark.parametrize("forward", [lambda self, student: student, lambda self, *inputs: inputs[0], None])
def test_forward_takes_the_inputs(forward):
    own = {} if forward is None else {"forward": forward}
    with pytest.raises(UserError, match=r"^Mine\.forward must take .*student_tokens, labels"):
        type("Mine", (Loss,), {"inputs": ("student_tokens", "labels"), **own})


def test_an_unknown_loss_is_refused_with_a_near_name():
    with pytest.raises(UserError, match=r"losses\.whol: .*whole"):
        build_loss("whol", {})


def test_an_unknown_option_is_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"losses\.soft\.temprature: .*temperature"):
        build_loss("soft", {"temprature": 2})


def test_a_value_that_the_loss_refuses_is_named():
    with pytest.raises(UserError, match=r"losses\.soft: temperature .*-1"):
        build_loss("soft", {"temperature": -1})


@pytest.mark.parametrize(
    ("name", "option", "value", "why"),
    [
        ("whole", "reduction", "foo", "one of mean, paper"),
        ("whole", "reduction", True, "one of mean, paper"),
        ("inter", "relations", ["local"], "one of global, local"),
        ("random", "k", True, "a whole number"),
        ("random", "k", 1.5, "a whole number"),
        ("random", "k", "5", "a whole number"),
        ("random", "generator", 5, "no such option"),
        ("embedding", "student_width", 3, "no such option"),
        ("soft", "temperature", float("nan"), "a finite number"),
        ("soft", "temperature", False, "a finite number"),
        ("sparsity", "gamma", None, "a finite number"),
    ],
)
def test_options_are_checked_by_their_types_and_choices(name, option, value, why):
    """Also those of a loss that is switched off."""
    for weight in (1, 0):
        with pytest.raises(UserError, match=rf"^losses\.{name}\.{option}.*: .*{why}"):
            parse_terms({name: {"weight": weight, option: value}})
    with pytest.raises(UserError, match=rf"^losses\.{name}\.{option}"):
        build_loss(name, {option: value})


def numbers_of(name: str) -> list[str]:
    """The numeric options of a loss."""
    hints = get_type_hints(available()[name].__init__)
    return [option for option, hint in hints.items() if hint in (int, float) and option not in CONTEXT]


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name in NAMES for option in numbers_of(name)]
)
def test_a_number_is_refused_or_gives_a_finite_loss(name, option):
    for value in (0, -1, 1e-30, 1e30, 10**30, float("inf"), float("nan"), "many"):
        try:
            loss = build_loss(name, {option: value})
        except UserError as error:
            if option not in str(error):
                raise
            continue
        assert torch.isfinite(loss(*inputs_of(loss)))
    assert {name for name in NAMES if numbers_of(name)} >= {"random", "soft", "sparsity"}


def test_types_of_an_extensions_options():
    """Unions and containers are looked at from outside; what has no type is the constructor's own matter."""
    assert _fits(None, int | None)
    assert _fits([1], list[int])
    assert not _fits("1", list[int] | int)
    assert _fits(object(), Any)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("soft", "temperature", 0), ("random", "k", 0), ("sparsity", "gamma", -1.0)],
)
def test_values_are_refused_before_anything_is_built(name, option, value):
    before = torch.get_rng_state()
    with pytest.raises(UserError, match=f"losses.{name}: .*{option}"):
        parse_terms({name: {"weight": 1, option: value}})
    parse_terms({"embedding": 1})
    assert torch.equal(torch.get_rng_state(), before)
