"""An objective that trains the classifier alone, on a backbone that stays as it is."""

from typing import Any, Self

from torch import nn

from isometry.errors import UserError
from isometry.losses.base import INPUTS
from isometry.training.objective import Objective


class FrozenObjective(Objective):
    """As :class:`Objective`, with a student of which only the classifier changes.

    The rest gets no gradient and stays in eval mode, so that no weight, no running mean of a norm and no dropout of it
    changes.

    Raises:
        UserError: as of :class:`Objective`; the student has no classifier, or a term has nothing to train.
    """

    def __init__(self, student: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(student, *args, **kwargs)
        if not student.num_classes:
            raise UserError("--freeze: the network has no classifier, so nothing would be trained")
        for term in self.terms:
            if not any(
                name.startswith("student_") and INPUTS[name].scope == "batch" for name in term.loss.inputs
            ):
                raise UserError(
                    f"--freeze: losses.{term.name} compares features, which stay; set --losses.{term.name} 0"
                )
        student.requires_grad_(False)
        for head in self._heads():
            head.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """As of any module, except for the backbone."""
        super().train(mode)
        self.student.eval()
        for head in self._heads():
            head.train(mode)
        return self

    def _heads(self) -> tuple[nn.Module, ...]:
        """The classifier, or both of a network with a distillation head."""
        found: Any = self.student.get_classifier()  # type: ignore[operator]
        return found if isinstance(found, tuple) else (found,)
