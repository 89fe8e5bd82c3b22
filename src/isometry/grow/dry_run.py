"""Growing on shapes and on random weights, before a run: what can't work is refused, what is promised is checked."""

import torch
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.grow.architectures import Family, spelled
from isometry.grow.operators import WidthOperator
from isometry.grow.surgery import Surgery
from isometry.grow.weight_transfer import Baggage, deepen

TOLERANCE = 1e-3
"""Largest difference of logits that passes, as a share of their spread: float32 over many random layers."""


def check_surgery(surgery: Surgery, input_size: tuple[int, int, int]) -> None:
    """All that can be known of a growth before the run: on shapes first, then a promise on random weights.

    Args:
        surgery: the growth.
        input_size: (C, H, W) of an image.

    Raises:
        UserError: an operator has no room in this architecture, or can't keep its promise.
    """
    with torch.device("meta"):
        small, between, large = map(surgery.build, (surgery.before, surgery.between, surgery.after))
        if surgery.deeper is not None:
            deepen(surgery.deeper, surgery.orders(between), between, Baggage(small.state_dict()))
        if surgery.wider is not None:
            check_widths(surgery.wider, between, large, surgery.family)
    if surgery.preserves:
        rehearse(surgery, input_size)


def check_widths(operator: WidthOperator, small: nn.Module, large: nn.Module, family: Family) -> None:
    """Refuses widths that ``operator`` can't keep its promise for.

    LayerNorm divides by the standard deviation over all units. Copies leave that as it is only where every
    unit has as many of them: when the width grows by a whole factor.

    Raises:
        UserError: such a norm would grow by another factor.
    """
    if not operator.preserves:
        return
    norms = {name: module for name, module in large.named_modules() if hasattr(module, "normalized_shape")}
    for name, norm in norms.items():
        old, new = _units(small.get_submodule(name)), _units(norm)
        if new % old:
            words = ", ".join(map(spelled, family.widths(large))) or "none"
            raise UserError(
                f"--grow.width-operator {operator.name}: {old} to {new} is {new / old:.3g} times, and LayerNorm "
                f"keeps its statistics only under whole factors; widths that grow to {new}: {words}; or use "
                "--grow.width-operator interpolate"
            )


def rehearse(surgery: Surgery, input_size: tuple[int, int, int]) -> float:
    """Grows random weights and compares the logits before and after.

    Args:
        surgery: the growth; it must promise to preserve the function.
        input_size: (C, H, W) of an image.

    Returns:
        The largest difference of logits, as a share of their standard deviation.

    Raises:
        UserError: they differ by more than rounding: something in this architecture is not as its family has it.
    """
    generator = torch.Generator().manual_seed(0)
    small, large = surgery.build(surgery.before), surgery.build(surgery.after)
    _randomise(small, generator)
    _randomise(large, generator)
    image = torch.randn(2, *input_size, generator=generator)
    before = _logits(small, image)
    grown = surgery.carry(Baggage(small.state_dict()), large)
    large.load_state_dict(grown.weights)
    difference = float((_logits(large, image) - before).abs().max() / before.std())
    if not difference <= TOLERANCE:
        raise UserError(
            f"--grow: {surgery.words} promises the same logits, and for {type(large).__name__} with these options "
            f"they change by {difference:.2g} of their spread; use another operator"
        )
    return difference


def _units(norm: nn.Module) -> int:
    return int(norm.normalized_shape[-1])  # type: ignore[index]


@torch.no_grad()
def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Everything random, so that no zero that timm starts with hides a mistake."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            fan = tensor[0].numel() if tensor.dim() > 1 else 1
            centre = 1.0 if tensor.dim() == 1 and not name.endswith("bias") else 0.0
            tensor.copy_((centre + 0.2 * noise).abs() if centre else noise / fan**0.5)


def _logits(model: nn.Module, image: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(image)
    return logits
