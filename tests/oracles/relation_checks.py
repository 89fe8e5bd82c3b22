"""What tests of the gap share: random tokens, both gradients, and the promises of its precision."""

import functools

import torch
from torch import Tensor

from isometry.functional import gram_gap
from oracles import relations as oracle

FORMS = ("tokens", "channels")


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def rotation(channels: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(normal(channels, channels, seed=seed, dtype=torch.float64))[0]


def with_gradients(student: Tensor, teacher: Tensor, **options: object) -> tuple[Tensor, Tensor, Tensor]:
    student, teacher = (x.detach().clone().requires_grad_() for x in (student, teacher))
    value = gram_gap(student, teacher, **options)
    value.sum().backward()
    return value.detach(), student.grad, teacher.grad


@functools.cache
def tokens_of(case: str, n: int, channels: int) -> Tensor:
    return oracle.hard_tokens(n, channels, torch.Generator().manual_seed(1))[case]


def assert_as_promised(found: tuple[Tensor, Tensor, Tensor], true: oracle.Gap) -> None:
    value, *grads = found
    ratio = float(true.value / true.scale)
    error = float((value.double() - true.value).abs())
    assert value >= 0
    assert error <= 1e-7 * true.scale
    if ratio >= 1e-2:
        assert error <= 1e-5 * true.value
    bound = 1e-5 if ratio >= 1e-3 else 1e-3
    for found_grad, true_grad in zip(grads, (true.student_grad, true.teacher_grad), strict=True):
        assert oracle.relative_error(found_grad, true_grad) <= bound
