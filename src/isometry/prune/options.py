"""What a run's options ask of pruning: `--prune.*` -> checks, and the network as it enters training."""

from timm.models import is_model, is_model_pretrained
from torch import nn

from isometry.config import PruneConfig, RunConfig
from isometry.errors import UserError
from isometry.prune.l1 import l1_cut
from isometry.prune.sites import add_gates


def has_gates(prune: PruneConfig) -> bool:
    """Whether the options ask for gates."""
    return prune.wanted and prune.method == "gates"


def check_pruning(config: RunConfig) -> None:
    """Refuses options that can't be, before anything is built.

    Raises:
        UserError: a keep rate outside (0, 1], no whole group, options without what they are for, growth at the same
            time, or a network that was never trained.
    """
    prune = config.prune
    if prune.keep_rate is None:
        if prune != PruneConfig():
            named = next(name for name, value in vars(PruneConfig()).items() if getattr(prune, name) != value)
            option = f"--prune.{named}".replace("_", "-")
            raise UserError(f"{option}: is for pruning; add --keep-rate, e.g. --keep-rate 0.6")
        return
    if not 0 < prune.keep_rate <= 1:
        raise UserError(f"--keep-rate {prune.keep_rate}: must be above 0 and at most 1")
    if not 0 <= prune.settle < 1:
        raise UserError(f"--prune.settle {prune.settle}: must be at least 0 and below 1")
    if prune.group < 1:
        raise UserError(f"--prune.group {prune.group}: must be at least 1")
    if prune.method == "l1" and (prune.compact or prune.group != 1):
        raise UserError(
            "--prune.method l1: cuts single filters, for good; leave out --compact and --prune.group"
        )
    if config.grow.depth is not None or config.grow.width is not None:
        raise UserError(
            "--grow, --keep-rate: a network can't grow and be pruned in one run; grow it first, then prune its student/"
        )
    if not prune.from_scratch and never_trained(config):
        raise UserError(
            f"--model {config.model}: was never trained (timm has no weights of it); give a trained folder, "
            "--initial-checkpoint FILE, or --from-scratch"
        )


def never_trained(config: RunConfig) -> bool:
    """Whether nobody has weights of the model: neither a file nor timm."""
    name = config.model
    return (
        not config.initial_checkpoint and ":" not in name and is_model(name) and not is_model_pretrained(name)
    )


def pruned(network: nn.Module, config: RunConfig) -> nn.Module:
    """The network as it enters training: with gates, or without the filters of small norm; else as it is.

    Raises:
        UserError: it has no convolution that can be pruned.
    """
    prune = config.prune
    if prune.keep_rate is None:
        return network
    if prune.method == "l1":
        return l1_cut(network, config.model, prune.keep_rate)
    return add_gates(network, config.model, prune.group)
