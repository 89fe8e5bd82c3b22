"""Activation checkpointing of the student: a block keeps its input, and computes itself again in the backward pass.

Memory of the square root kind for one more forward pass (Chen et al. 2016, arXiv:1604.06174), by timm's own
``set_grad_checkpointing``, which says where each architecture is cut.
"""

from typing import Any

from torch import Tensor, nn

from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.prune.gates import gated_convs
from isometry.training.objective import Objective, Trainable


def checkpoint_blocks(objective: Objective, config: RunConfig) -> None:
    """Switches the student of an objective, not compiled or distributed yet, to recomputing its blocks.

    Gradients are the same, dropout included, and norms count each batch once.

    Raises:
        UserError: timm can't do it for this architecture, or its convolutions are gated, or it is to be compiled and
            has norms with running statistics.
    """
    student = objective.student
    if gated_convs(student):
        raise UserError(
            "--grad-checkpointing: gates would say twice what they keep of an image; leave it out, or prune "
            "with --prune.method l1"
        )
    try:
        student.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        raise UserError(
            f"--grad-checkpointing: timm does not offer it for {config.model}; leave it out, and take a smaller "
            "--batch-size with more --grad-accum-steps"
        ) from error
    norms = [module for module in student.modules() if getattr(module, "running_mean", None) is not None]
    if norms and config.compile:
        raise UserError(
            f"--grad-checkpointing: {config.model} has norms that keep statistics, which torch.compile can't compute "
            "again; leave out --compile or --grad-checkpointing"
        )
    if norms:
        trainable = objective.trainable_module
        assert isinstance(trainable, Trainable)
        _CountOnce(trainable.tapped, norms)


class _CountOnce:
    """Norms with running statistics update copies of them, which are dropped, when a batch is computed again.

    That is whatever they compute between the first gradient that comes back to the network and its next forward pass.

    Args:
        tapped: the network that trains, which puts out its logits and a list of features.
        norms: its norms.
    """

    def __init__(self, tapped: nn.Module, norms: list[nn.Module]) -> None:
        self._backward = False
        self._true: dict[str, Tensor] = {}
        tapped.register_forward_pre_hook(self._begin)
        tapped.register_forward_hook(self._watch)
        for norm in norms:
            norm.register_forward_pre_hook(self._set_aside)
            # Recomputation may break off inside the norm, by an exception, as soon as all is there.
            norm.register_forward_hook(self._put_back, always_call=True)

    def _begin(self, tapped: nn.Module, inputs: Any) -> None:
        self._backward = False

    def _watch(self, tapped: nn.Module, inputs: Any, output: tuple[Any, list[Tensor]]) -> None:
        logits, features = output
        for tensor in (*(logits if isinstance(logits, tuple) else (logits,)), *features):
            if tensor.requires_grad:
                tensor.register_hook(self._come_back)

    def _come_back(self, gradient: Tensor) -> None:
        self._backward = True

    def _set_aside(self, norm: nn.Module, inputs: Any) -> None:
        if self._backward and norm.training:
            self._true = dict(norm.named_buffers(recurse=False))
            # Not written back in place: what autograd keeps may be these very tensors.
            for name, buffer in self._true.items():
                setattr(norm, name, buffer.clone())

    def _put_back(self, norm: nn.Module, inputs: Any, output: Any) -> None:
        for name, buffer in self._true.items():
            setattr(norm, name, buffer)
        self._true = {}
