"""Checks of training options that need neither data nor models."""

import math

import torch

from isometry.config import RunConfig
from isometry.errors import UserError

LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (1, math.inf),
    "global_batch_size": (1, math.inf),
    "warmup_epochs": (0, math.inf),
    "grad_accum_steps": (1, math.inf),
    "log_interval": (1, math.inf),
    "recovery_interval": (0, math.inf),
    "img_size": (1, math.inf),
    "in_chans": (1, math.inf),
    "num_classes": (0, math.inf),
    "drop": (0, 0.99),
    "drop_path": (0, 0.99),
    "lr": (0, math.inf),
    "lr_base": (0, math.inf),
    "lr_base_size": (1, math.inf),
    "min_lr": (0, math.inf),
    "warmup_lr": (0, math.inf),
    "weight_decay": (0, math.inf),
    "momentum": (0, 1),
    "clip_grad": (1e-12, math.inf),
    "model_ema_decay": (0, 1),
}
"""Smallest and largest value of each option, if it is given."""


def check_options(config: RunConfig) -> None:
    """Checks the options of training that need neither data nor models.

    Raises:
        UserError: a value out of range, or one that this machine does not support.
    """
    for name, (least, most) in LIMITS.items():
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and least <= value <= most):
            wanted = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
            raise UserError(f"--{name.replace('_', '-')} {value}: must be {wanted}")
    betas = config.opt_betas
    if betas is not None and (len(betas) < 2 or not all(0 <= beta < 1 for beta in betas)):
        raise UserError(f"--opt-betas {betas}: must be two numbers or more, at least 0 and below 1")
    if config.compile and config.compile_backend not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise UserError(
            f"--compile-backend {config.compile_backend}: torch has no such backend here; it has {known}"
        )
    if config.amp and config.amp_dtype == "float16" and not torch.cuda.is_available():
        raise UserError("--amp-dtype float16: needs a GPU; use bfloat16")
