"""Second heads: a distillation head (DeiT) is trained by the terms on the teacher; any other is refused.

An auxiliary head, such as Inception's, learns from the labels with a weight of its own and has no part in the answer.
"""

from typing import Any

from torch import Tensor, nn

from isometry.errors import UserError

Logits = Tensor | tuple[Tensor, Tensor]
"""Logits (B, K), or a pair: those of the class token and those of the distillation head."""


def refuse_auxiliary_head(model: nn.Module, option: str) -> None:
    """Raises UserError for a network of timm that was built with an auxiliary head, which it runs in every pass."""
    if getattr(model, "aux_logits", False):
        raise UserError(
            f"{option}: has an auxiliary head, which no loss here trains; leave out aux_logits=True "
            "(its pretrained weights load without it)"
        )


def as_logits(model: nn.Module, output: Any) -> Logits:
    """The output of a classifier, if it is logits or those of a network that timm trains with a distillation head.

    Raises:
        UserError: it is something else, e.g. a pair with the logits of an auxiliary head.
    """
    if isinstance(output, Tensor):
        return output
    if hasattr(model, "set_distilled_training"):
        label_logits, distilled_logits = output
        return label_logits, distilled_logits
    raise UserError(
        f"{type(model).__name__} returns more than its logits and has no distillation head, so its other outputs would "
        "not be trained; build it without them, e.g. without auxiliary heads"
    )
