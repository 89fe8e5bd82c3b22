"""Whether weights and answers of networks are finite numbers."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.models.teacher import TeacherOutput


def all_finite(module: nn.Module) -> bool:
    """Whether all parameters and buffers of a module are finite; waits for the device once."""
    tensors = [x for x in module.state_dict().values() if x.is_floating_point() and x.numel()]
    # Times 0 what is not finite is NaN, and a sum of zeros can't overflow; on a GPU it takes a launch for many tensors.
    zeros = torch._foreach_mul(tensors, 0.0) if tensors else []
    return bool(torch.nn.utils.get_total_norm(zeros, 1).isfinite())


def check_weights_given(module: nn.Module, name: str) -> None:
    """Raises UserError for weights that the user gave and that are not finite; ``name`` is the option and its value."""
    if all_finite(module):
        return
    bad = [key for key, tensor in module.state_dict().items() if not tensor.isfinite().all()]
    raise UserError(
        f"{name}: has weights that are NaN or infinite, in {len(bad)} of its tensors, e.g. {bad[0]}; "
        "give others, such as an earlier save"
    )


def check_answers(answers: Iterable[Tensor], name: str, images: str = "the first images") -> None:
    """Raises UserError for answers of a network called ``name`` that are not finite; waits for the device."""
    if not all(answer.isfinite().all() for answer in answers):
        raise UserError(
            f"{name}: its answers to {images} are NaN or infinite, though its weights are not: they are damaged, or "
            "too large for its data type"
        )


class FirstLook:
    """Looks at the answers of student and teacher once in training, and once outside it."""

    def __init__(self) -> None:
        self._done: set[bool] = set()

    def __call__(
        self, logits: Tensor | tuple[Tensor, ...], teacher: TeacherOutput | None, training: bool
    ) -> None:
        """Raises UserError for answers that are not finite: of the teacher, since a loss may not show it (``hard``), or
        of the student."""
        if training in self._done:
            return
        self._done.add(training)
        if teacher is not None:
            check_answers((teacher.logits, *teacher.tokens.values()), "the teacher")
        check_answers(logits if isinstance(logits, tuple) else (logits,), "the student")
