"""Trainable: all that the optimizer of an objective sees."""

from typing import Any

from torch import Tensor, nn

from isometry.models.taps import BlockShape, TappedModel, layout_of
from isometry.prune.gates import GatedConv, GateOutput, gated_convs, take_gate_outputs

StudentOutput = tuple[Any, list[Tensor], list[GateOutput]]
"""Logits (a pair with a distillation head), features of the tapped blocks, and outputs of the gates."""


class Trainable(nn.Module):
    """All that the optimizer sees: the student with its taps, and the losses with their projections."""

    def __init__(self, student: nn.Module, shapes: list[BlockShape], terms: nn.ModuleDict) -> None:
        super().__init__()
        self.tapped = TappedModel(student, [shape.block for shape in shapes], layout_of(shapes))
        self.terms = terms
        # In a list, because they are submodules of the student already.
        self.gated: list[GatedConv] = list(gated_convs(student).values())

    def forward(self, input_BCHW: Tensor) -> StudentOutput:
        logits, features = self.tapped(input_BCHW)
        # Gate outputs are returned, so that DistributedDataParallel sees all that a loss may depend on.
        return logits, features, take_gate_outputs(self.gated)
