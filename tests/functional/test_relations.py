"""The laws of the gap, of relation maps and of CKA, and what they refuse."""

import math

import pytest
import torch

from isometry.functional import gram_gap, linear_cka, relation_map, relations
from oracles import relations as oracle
from oracles.relation_checks import FORMS, assert_as_promised, normal, rotation, tokens_of, with_gradients


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
def test_gradcheck_in_both_arguments(form: str) -> None:
    student = normal(2, 7, 4, dtype=torch.float64).requires_grad_()
    teacher = normal(2, 7, 5, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: gram_gap(s, t, form=form), (student, teacher))


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
def test_equal_geometries_have_no_gap(form: str) -> None:
    student = normal(3, 50, 24)
    scale = 2 * relation_map(student).square().sum((1, 2))
    longer_and_turned = (student.double() @ rotation(24)).float() * normal(3, 50, 1, seed=2).exp()
    for teacher in (student, longer_and_turned, torch.cat([student, torch.zeros(3, 50, 8)], dim=-1)):
        value, *grads = with_gradients(student, teacher, form=form)
        assert (value >= 0).all()
        assert (value <= 1e-7 * scale).all()
        assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
def test_invariances(form: str) -> None:
    student, teacher = normal(60, 24), normal(60, 32, seed=1)
    value = gram_gap(student, teacher, form=form)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    same = torch.stack(
        [
            gram_gap(teacher, student, form=form),
            gram_gap(student[order], teacher[order], form=form),
            gram_gap(student * normal(60, 1, seed=4).exp(), teacher, form=form),
            gram_gap(student, (teacher.double() @ rotation(32)).float(), form=form),
        ]
    )
    torch.testing.assert_close(same, value.expand(4), rtol=1e-5, atol=0)
    assert gram_gap(student, teacher[order], form=form) != value


def test_gap_grows_with_the_noise() -> None:
    student, noise = normal(80, 24), normal(80, 24, seed=1)
    gaps = torch.stack([gram_gap(student, student + amount * noise) for amount in (0.01, 0.03, 0.1, 0.3, 1)])
    assert (gaps.diff() > 0).all()


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
def test_gradient_is_orthogonal_to_the_tokens(form: str) -> None:
    student, teacher = tokens_of("massive channel", 196, 64), normal(196, 32)
    _, *grads = with_gradients(student, teacher, form=form)
    for tokens, grad in zip((student, teacher), grads, strict=True):
        cosines = (tokens.double() * grad).sum(-1) / (
            tokens.double().norm(dim=-1) * grad.double().norm(dim=-1)
        )
        assert cosines.abs().max() < 1e-5


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zeros", [slice(0, 5), slice(0, 30), slice(None)])
def test_zero_tokens(form: str, zeros: slice) -> None:
    student, teacher = normal(40, 12), normal(40, 10, seed=1)
    student[zeros] = 0
    teacher[35:] = 0
    true = oracle.explicit_gap(student, teacher)
    value, *grads = with_gradients(student, teacher, form=form)
    assert float((value - true.value).abs()) <= 1e-7 * true.scale
    for grad, true_grad in zip(grads, (true.student_grad, true.teacher_grad), strict=True):
        torch.testing.assert_close(
            grad.double(), true_grad, rtol=1e-4, atol=1e-4 * float(true_grad.abs().max())
        )
    assert (grads[0][zeros] == 0).all()
    assert (grads[1][35:] == 0).all()


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
def test_all_zero_on_both_sides(form: str) -> None:
    value, *grads = with_gradients(torch.zeros(2, 9, 4), torch.zeros(2, 9, 6), form=form)
    assert all((x == 0).all() for x in (value, *grads))


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_tokens_whose_squares_leave_float32(form: str, size: float) -> None:
    student, teacher = normal(40, 12), normal(40, 10, seed=1)
    plain, plain_grad, _ = with_gradients(student, teacher, form=form)
    value, grad, _ = with_gradients(student * size, teacher, form=form)
    torch.testing.assert_close(value, plain, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad.double() * size, plain_grad.double(), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_token_that_is_not_finite_shows(form: str, broken: float) -> None:
    student = normal(20, 6)
    student[3, 2] = broken
    assert gram_gap(student, normal(20, 6, seed=1), form=form).isnan()


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3), (0,), (2, 0)])
def test_leading_dimensions_are_independent(form: str, lead: tuple[int, ...]) -> None:
    student, teacher = normal(*lead, 20, 8), normal(*lead, 20, 12, seed=1)
    value, student_grad, teacher_grad = with_gradients(student, teacher, form=form)
    assert value.shape == lead
    flat = [
        x.reshape(math.prod(lead), *x.shape[len(lead) :])
        for x in (student, teacher, student_grad, teacher_grad)
    ]
    for one, s, t, s_grad, t_grad in zip(value.flatten(), *flat, strict=True):
        assert_as_promised((one, s_grad, t_grad), oracle.explicit_gap(s, t))


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
def test_more_than_one_tile(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isometry.functional._gap._TILE", 1000)
    monkeypatch.setattr("isometry.functional._gap._ROWS", 7)
    monkeypatch.setattr("isometry.functional._gap._GRAM_BLOCK", 5)
    monkeypatch.setattr("isometry.functional._batched_gap._TILE", 100)
    test_leading_dimensions_are_independent(form, (5,))


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
def test_no_tokens(form: str) -> None:
    assert (gram_gap(torch.ones(3, 0, 4), torch.ones(3, 0, 5), form=form) == 0).all()


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
def test_strided_inputs(form: str) -> None:
    student, teacher = normal(12, 2, 20, 8), normal(9, 20, 2)
    strided = student.permute(1, 2, 3, 0)[:, :, ::2, 1::2].select(2, 0), teacher.permute(2, 1, 0)
    assert not any(x.is_contiguous() for x in strided)
    expected = with_gradients(*(x.contiguous() for x in strided), form=form)
    for found, contiguous in zip(with_gradients(*strided, form=form), expected, strict=True):
        torch.testing.assert_close(found, contiguous)


@pytest.mark.usefixtures("arithmetic")
def test_only_the_gradients_asked_for() -> None:
    for form in FORMS:
        student, teacher = normal(30, 8).requires_grad_(), normal(30, 6, seed=1)
        gram_gap(student, teacher, form=form).backward()
        assert teacher.grad is None
        both = with_gradients(student, teacher, form=form)
        torch.testing.assert_close(student.grad, both[1])
        teacher.requires_grad_()
        gram_gap(student.detach(), teacher, form=form).backward()
        torch.testing.assert_close(teacher.grad, both[2])


def test_no_graph_without_gradients() -> None:
    student = normal(30, 8).requires_grad_()
    with torch.no_grad():
        assert not gram_gap(student, normal(30, 6)).requires_grad
    assert not gram_gap(student.detach(), normal(30, 6)).requires_grad


@pytest.mark.usefixtures("arithmetic")
def test_gradient_scales_with_what_comes_from_above() -> None:
    for form in FORMS:
        student, teacher = normal(3, 30, 8).requires_grad_(), normal(3, 30, 6, seed=1)
        weights = torch.tensor([0.0, 1.0, -2.5])
        (grad,) = torch.autograd.grad((weights * gram_gap(student, teacher, form=form)).sum(), student)
        plain = with_gradients(student, teacher, form=form)[1]
        torch.testing.assert_close(grad, weights[:, None, None] * plain)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [True, False])
def test_low_precision_is_computed_in_float32(form: str, dtype: torch.dtype, autocast: bool) -> None:
    student, teacher = normal(100, 24, dtype=dtype), normal(100, 32, seed=1, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value, *grads = with_gradients(student, teacher, form=form)
        assert relation_map(student).dtype == torch.float32
    expected, *expected_grads = with_gradients(student.float(), teacher.float(), form=form)
    assert value.dtype == torch.float32
    assert value == expected
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert torch.equal(grad, expected_grad.to(dtype))


@pytest.mark.parametrize("form", FORMS)
def test_float64_is_computed_in_float64(form: str) -> None:
    student, teacher = normal(300, 24, dtype=torch.float64), normal(300, 32, seed=1, dtype=torch.float64)
    true = oracle.explicit_gap(student, teacher)
    found = with_gradients(student, teacher, form=form)
    assert {x.dtype for x in found} == {torch.float64}
    for x, y in zip(found, (true.value, true.student_grad, true.teacher_grad), strict=True):
        assert oracle.relative_error(x, y) < 1e-11
    mixed, student_grad, teacher_grad = with_gradients(student.float(), teacher, form=form)
    assert (mixed.dtype, student_grad.dtype, teacher_grad.dtype) == (
        torch.float64,
        torch.float32,
        torch.float64,
    )


@pytest.mark.parametrize("form", FORMS)
def test_global_matmul_precision_does_not_matter(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "_SMALL", 0)
    student, teacher = normal(512, 256), normal(512, 256, seed=1)
    expected = with_gradients(student, teacher, form=form)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = with_gradients(student, teacher, form=form)
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_compiled_code_may_call_it() -> None:
    student, teacher = normal(30, 8).requires_grad_(), normal(30, 6, seed=1)
    compiled = torch.compile(lambda s, t: gram_gap(2 * s, t) + 1, backend="eager")
    value = compiled(student, teacher)
    torch.testing.assert_close(value, gram_gap(student, teacher) + 1)
    value.backward()
    torch.testing.assert_close(student.grad, with_gradients(student, teacher)[1])


def test_channel_form_never_builds_the_map() -> None:
    n = 200_000  # whose map has 160 GB
    student, teacher = normal(n, 4), normal(n, 4, seed=1)
    value, grad, _ = with_gradients(student, teacher)
    assert value > 0
    assert grad.shape == (n, 4)


@pytest.mark.parametrize(("n", "form"), [(20, "tokens"), (400, "channels")])
def test_auto_takes_the_cheaper_form(n: int, form: str) -> None:
    student, teacher = normal(n, 96), normal(n, 96, seed=1)
    assert torch.equal(gram_gap(student, teacher), gram_gap(student, teacher, form=form))
    other = next(x for x in FORMS if x != form)
    torch.testing.assert_close(gram_gap(student, teacher), gram_gap(student, teacher, form=other))


def test_refuses_what_does_not_fit() -> None:
    for student, teacher, word in (
        (normal(10, 4), normal(11, 4), "same dimensions"),
        (normal(2, 10, 4), normal(3, 10, 4), "same dimensions"),
        (normal(2, 10, 4), normal(10, 4), "same dimensions"),
        (normal(10), normal(10), "two dimensions"),
        (torch.ones(10, 4, dtype=torch.int64), normal(10, 4), "floating point"),
        (normal(10, 4), torch.ones(10, 4, dtype=torch.bool), "floating point"),
    ):
        with pytest.raises(ValueError, match=word):
            gram_gap(student, teacher)
    with pytest.raises(ValueError, match="'rows'"):
        gram_gap(normal(10, 4), normal(10, 4), form="rows")


def test_relation_map() -> None:
    tokens = normal(2, 30, 8)
    tokens[1, 4] = 0
    tokens.requires_grad_()
    maps = relation_map(tokens)
    for found, one in zip(maps, tokens.detach(), strict=True):
        torch.testing.assert_close(found.double(), oracle.explicit_map(one), rtol=0, atol=1e-6)
    (maps * normal(2, 30, 30, seed=1)).sum().backward()
    assert tokens.grad.isfinite().all()
    assert (tokens.grad[1, 4] == 0).all()
    assert relation_map(tokens.double()).dtype == torch.float64
    assert torch.autograd.gradcheck(relation_map, normal(6, 3, dtype=torch.float64).requires_grad_())
    for wrong in (normal(4), torch.ones(3, 4, dtype=torch.int32)):
        with pytest.raises(ValueError, match="tokens must"):
            relation_map(wrong)


def test_linear_cka() -> None:
    a = normal(50, 8)
    b = (a.double() @ normal(8, 12, seed=1, dtype=torch.float64)).float() + 0.3 * normal(50, 12, seed=2) + 5
    value = linear_cka(a, b)
    torch.testing.assert_close(value.double(), oracle.explicit_cka(a, b), rtol=1e-6, atol=0)
    assert 0.5 < value < 1
    turned = (3 * a.double() @ rotation(8)).float() + 7
    torch.testing.assert_close(linear_cka(turned, b), value, rtol=1e-5, atol=0)
    torch.testing.assert_close(linear_cka(a, turned), torch.tensor(1.0))
    torch.testing.assert_close(linear_cka(b, a), value)
    assert linear_cka(a, torch.ones(50, 3)) == 0
    assert linear_cka(a.bfloat16(), b).dtype == torch.float32
    for wrong in (normal(49, 3), normal(2, 50, 3)):
        with pytest.raises(ValueError, match=r"\(n, Ca\)"):
            linear_cka(a, wrong)
