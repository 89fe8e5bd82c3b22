"""A dry run of growth before training: on shapes, and on random weights where the outputs must stay the same."""

import torch
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.grow.architectures import Architecture, format_size
from isometry.grow.operators import WidthOperator
from isometry.grow.surgery import Surgery
from isometry.grow.weight_transfer import TrainingState, deepen

TOLERANCE = 1e-3
"""Largest accepted difference of logits, over their standard deviation: float32 rounding over many random layers."""


def check_surgery(surgery: Surgery, input_size: tuple[int, int, int]) -> None:
    """Checks a growth as far as possible before training, for images of ``input_size`` (C, H, W).

    Raises:
        UserError: an operator can't be applied to this architecture, or does not preserve the function as it declares.
    """
    with torch.device("meta"):
        small, between, large = map(surgery.build, (surgery.before, surgery.between, surgery.after))
        if surgery.depth_operator is not None:
            state = TrainingState(small.state_dict())
            deepen(surgery.depth_operator, surgery.architecture, surgery.orders(between), between, state)
        if surgery.width_operator is not None:
            check_widths(surgery.width_operator, between, large, surgery.architecture)
    if surgery.preserves:
        check_outputs(surgery, input_size)


def check_widths(
    operator: WidthOperator, small: nn.Module, large: nn.Module, architecture: Architecture
) -> None:
    """Raises UserError unless layer norms widen by integer factors under an operator that preserves the function.

    LayerNorm divides by the standard deviation over all units, which copies leave as it is only where all units have
    the same number of copies.
    """
    if not operator.preserves:
        return
    for name, norm in large.named_modules():
        if not hasattr(norm, "normalized_shape"):
            continue
        old, new = _units(small.get_submodule(name)), _units(norm)
        if new % old:
            possible = ", ".join(map(format_size, architecture.widths(large))) or "none"
            raise UserError(
                f"--grow.width-operator {operator.name}: {old} to {new} is {new / old:.3g} times, and LayerNorm "
                f"keeps its statistics only under whole factors; widths that grow to {new}: {possible}; or use "
                "--grow.width-operator interpolate"
            )


@torch.no_grad()
def check_outputs(surgery: Surgery, input_size: tuple[int, int, int]) -> float:
    """Grows a network of random weights by a ``surgery`` that preserves the function, and compares its logits.

    Returns:
        The largest difference of logits before and after, over their standard deviation.

    Raises:
        UserError: they differ by more than :data:`TOLERANCE`.
    """
    generator = torch.Generator().manual_seed(0)
    small, large = surgery.build(surgery.before), surgery.build(surgery.after)
    _randomise(small, generator)
    _randomise(large, generator)
    image = torch.randn(2, *input_size, generator=generator)
    before: Tensor = small.eval()(image)
    large.load_state_dict(surgery.transfer(TrainingState(small.state_dict()), large).weights)
    difference = float((large.eval()(image) - before).abs().max() / before.std())
    if not difference <= TOLERANCE:
        raise UserError(
            f"--grow: {surgery.label} must leave the logits as they are, and for {type(large).__name__} with these "
            f"options they change by {difference:.2g} standard deviations; use another operator"
        )
    return difference


def _units(norm: nn.Module) -> int:
    return int(norm.normalized_shape[-1])  # type: ignore[index]


@torch.no_grad()
def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Makes every parameter random, because timm's initial zeros would hide differences."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.dim() == 1 and not name.endswith("bias"):
                tensor.copy_((1 + 0.2 * noise).abs())
            else:
                fan_in = tensor[0].numel() if tensor.dim() > 1 else 1
                tensor.copy_(noise / fan_in**0.5)
