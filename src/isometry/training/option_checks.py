"""Checks of training options that need neither data nor models."""

import torch

from isometry.config import RunConfig, out_of_range
from isometry.errors import UserError


def check_options(config: RunConfig) -> None:
    """Checks the options of training that need neither data nor models.

    Raises:
        UserError: a value out of range, or one that this machine does not support.
    """
    if fault := out_of_range(config):
        raise UserError(fault)
    if config.task != "classify":
        raise UserError(
            f"--task {config.task}: is for isometry transfer, which trains a finished network for it"
        )
    if config.freeze and (config.grow.wanted or config.prune.wanted):
        raise UserError(
            "--freeze: a network that grows or is pruned has no part that stays as it is; leave it out"
        )
    betas = config.opt_betas
    if betas is not None and len(betas) < 2:
        raise UserError(f"--opt-betas {betas}: must be two numbers or more")
    if config.compile and config.compile_backend not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise UserError(
            f"--compile-backend {config.compile_backend}: torch has no such backend here; it has {known}"
        )
    if config.amp and config.amp_dtype == "float16" and not torch.cuda.is_available():
        raise UserError("--amp-dtype float16: needs a GPU; use bfloat16")
