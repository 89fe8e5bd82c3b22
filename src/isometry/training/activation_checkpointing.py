"""Activation checkpointing of the student: blocks keep their inputs only, and are recomputed in the backward pass.

It costs one more forward pass (Chen et al. 2016, arXiv:1604.06174). timm's ``set_grad_checkpointing`` decides which
parts of an architecture are recomputed.
"""

from typing import Any

from torch import Tensor, nn

from isometry.errors import UserError
from isometry.prune.gates import gated_convs
from isometry.training.objective import Objective
from isometry.training.trainable import Trainable


def checkpoint_blocks(objective: Objective, name: str, *, compiles: bool) -> None:
    """Switches on recomputation of the student's blocks; gradients stay the same, and norms count each batch once.

    Args:
        objective: not compiled or distributed yet.
        name: of the student, for error messages.
        compiles: whether the student will be compiled.

    Raises:
        UserError: timm does not support it for this architecture, convolutions are gated, or the student will be
            compiled and has norms with running statistics.
    """
    student = objective.student
    if gated_convs(student):
        raise UserError(
            "--grad-checkpointing: gates would be counted twice for each image; leave it out, or prune "
            "with --prune.method l1"
        )
    try:
        student.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        raise UserError(
            f"--grad-checkpointing: timm does not support it for {name}; leave it out, and take a smaller "
            "--batch-size with more --grad-accum-steps"
        ) from error
    norms = [module for module in student.modules() if getattr(module, "running_mean", None) is not None]
    if norms and compiles:
        raise UserError(
            f"--grad-checkpointing: {name} has norms with running statistics, which torch.compile can't "
            "recompute; leave out --compile or --grad-checkpointing"
        )
    if norms:
        trainable = objective.trainable_module
        assert isinstance(trainable, Trainable)
        _CountOnce(trainable.tapped, norms)


class _CountOnce:
    """While blocks are recomputed, norms with running statistics update copies, which are dropped.

    Blocks are recomputed between the first gradient at the network's outputs and its next forward pass.

    Args:
        tapped: the network that trains; it returns its logits and a list of features.
        norms: its norms.
    """

    def __init__(self, tapped: nn.Module, norms: list[nn.Module]) -> None:
        self._backward = False
        self._kept: dict[str, Tensor] = {}
        tapped.register_forward_pre_hook(self._begin_forward)
        tapped.register_forward_hook(self._hook_outputs)
        for norm in norms:
            norm.register_forward_pre_hook(self._use_copies)
            # Recomputation raises an exception, maybe inside a norm, once it has all that it needs.
            norm.register_forward_hook(self._restore, always_call=True)

    def _begin_forward(self, tapped: nn.Module, inputs: Any) -> None:
        self._backward = False

    def _hook_outputs(self, tapped: nn.Module, inputs: Any, output: tuple[Any, list[Tensor]]) -> None:
        logits, features = output
        for tensor in (*(logits if isinstance(logits, tuple) else (logits,)), *features):
            if tensor.requires_grad:
                tensor.register_hook(self._begin_backward)

    def _begin_backward(self, gradient: Tensor) -> None:
        self._backward = True

    def _use_copies(self, norm: nn.Module, inputs: Any) -> None:
        if self._backward and norm.training:
            self._kept = dict(norm.named_buffers(recurse=False))
            # Not restored in place, because autograd may have saved these tensors.
            for name, buffer in self._kept.items():
                setattr(norm, name, buffer.clone())

    def _restore(self, norm: nn.Module, inputs: Any, output: Any) -> None:
        for name, buffer in self._kept.items():
            setattr(norm, name, buffer)
        self._kept = {}
