"""The gap as a GPU computes it, on the CPU: the promises of ``precision="high"``, and when it is taken."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import Tensor

from isometry.functional import gram_gap
from oracles import relations as oracle
from oracles.relation_checks import FORMS, normal, tokens_of, with_gradients

CASES = tuple(oracle.hard_tokens(16, 8, torch.Generator().manual_seed(0)))

pytestmark = pytest.mark.usefixtures("as_on_a_gpu")


def assert_as_high_promises(found: tuple[Tensor, Tensor, Tensor], true: oracle.Gap) -> None:
    value, *grads = found
    assert value >= 0
    assert float((value.double() - true.value).abs()) <= 1e-4 * true.scale
    for found_grad, true_grad in zip(grads, (true.student_grad, true.teacher_grad), strict=True):
        assert torch.isfinite(found_grad).all()
        if true.value >= 5e-3 * true.scale:
            assert oracle.relative_error(found_grad, true_grad) <= 5e-3


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("form", "n", "channels"), [("channels", 1536, (192, 384)), ("tokens", 196, (64, 128))]
)
def test_high_precision(case: str, form: str, n: int, channels: tuple[int, int]) -> None:
    student = tokens_of(case, n, channels[0])
    for seed, ratio in enumerate(oracle.RATIOS):
        teacher = oracle.teacher_at(student, 1.02 * ratio, channels[1], torch.Generator().manual_seed(seed))
        found = with_gradients(student, teacher, form=form, precision="high")
        assert_as_high_promises(found, oracle.explicit_gap(student, teacher))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spread", [0.1, 1e-2, 1e-3])
def test_tokens_that_are_alike(spread: float, form: str) -> None:
    """Nearly all of such a token is a common mean, in whose rounding the gradient would be lost."""
    student = normal(1, 192, seed=2) + spread * normal(400, 192)
    teacher = normal(400, 384, seed=1)
    found = with_gradients(student, teacher, form=form, precision="high")
    assert_as_high_promises(found, oracle.explicit_gap(student, teacher))
    found = with_gradients(teacher, student, form=form, precision="high")
    assert_as_high_promises(found, oracle.explicit_gap(teacher, student))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e6, 1e30])
def test_the_size_of_tokens_does_not_matter(size: float, form: str) -> None:
    student, teacher = normal(64, 24), normal(64, 32, seed=1)
    value, grad, _ = with_gradients(student, teacher, form=form, precision="high")
    scaled, scaled_grad, _ = with_gradients(size * student, teacher, form=form, precision="high")
    torch.testing.assert_close(scaled, value, rtol=1e-3, atol=0)
    torch.testing.assert_close(size * scaled_grad, grad, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("form", FORMS)
def test_zero_tokens_have_no_part_in_it(form: str) -> None:
    student, teacher = normal(40, 24), normal(40, 32, seed=1)
    without = with_gradients(student[8:], teacher[8:], form=form, precision="high")
    student[:8], teacher[:8] = 0, 0
    value, grad, _ = with_gradients(student, teacher, form=form, precision="high")
    # Other tokens are rounded otherwise.
    torch.testing.assert_close(value, without[0], rtol=1e-4, atol=0)
    assert (grad[:8] == 0).all()
    nothing = with_gradients(torch.zeros(5, 3), torch.zeros(5, 4), form=form, precision="high")
    assert all((found == 0).all() for found in nothing)


def differs_from_highest(student: Tensor, teacher: Tensor) -> bool:
    return not torch.equal(gram_gap(student, teacher), gram_gap(student, teacher, precision="highest"))


def test_the_default_is_torchs_setting() -> None:
    student, teacher = normal(300, 24), normal(300, 32, seed=1)
    assert torch.get_float32_matmul_precision() == "highest"
    assert not differs_from_highest(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert differs_from_highest(student, teacher)
    torch.set_float32_matmul_precision("high")
    try:
        assert differs_from_highest(student, teacher)
        assert not differs_from_highest(student.double(), teacher.double())
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("pass", "highest"),
        ("torch.set_float32_matmul_precision('highest')", "highest"),
        ("torch.set_float32_matmul_precision('high')", "high"),
        ("torch.set_float32_matmul_precision('medium')", "high"),
        ("torch.backends.cuda.matmul.allow_tf32 = True", "high"),
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", "high"),
        ("torch.backends.fp32_precision = 'tf32'", "high"),
        ("torch.backends.fp32_precision = 'ieee'", "highest"),
        ("torch.backends.mkldnn.matmul.fp32_precision = 'bf16'", "highest"),
    ],
)
def test_every_name_of_torchs_setting_is_followed(setting: str, wanted: str) -> None:
    """In processes of their own: torch does not let go of a setting by another name."""
    code = f"import torch\n{setting}\n" + textwrap.dedent("""
        from isometry.functional import gram_gap, relations
        print(relations._default_precision(torch.device("cpu")), float(gram_gap(torch.eye(3), torch.ones(3, 2))))
    """)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [wanted, "6.0"]


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="best"):
        gram_gap(normal(4, 3), normal(4, 3), precision="best")


def test_a_problem_of_any_size_that_is_small_is_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("isometry.functional.relations.launches_dominate", lambda device: True)
    student, teacher = normal(30, 24), normal(30, 32, seed=1)
    exact = gram_gap(student, teacher, precision="highest")
    assert torch.equal(gram_gap(student, teacher, precision="high"), exact)
