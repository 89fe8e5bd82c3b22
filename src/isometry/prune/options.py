"""`--prune.*` options -> checks, and the network as it enters training."""

from timm.models import is_model, is_model_pretrained
from torch import nn

from isometry.config import ModelConfig, PruneConfig
from isometry.errors import UserError
from isometry.prune.l1 import l1_cut
from isometry.prune.sites import add_gates


def has_gates(prune: PruneConfig) -> bool:
    """Whether the options ask for gates."""
    return prune.wanted and prune.method == "gates"


def check_pruning(prune: PruneConfig, model: ModelConfig, grows: bool) -> None:
    """Checks the options before anything is built; ``grows`` is whether the run grows.

    Raises:
        UserError: options without ``--keep-rate``, growth in the same run, or a network that
            was never trained.
    """
    if prune.keep_rate is None:
        if prune != PruneConfig():
            named = next(name for name, value in vars(PruneConfig()).items() if getattr(prune, name) != value)
            option = f"--prune.{named}".replace("_", "-")
            raise UserError(f"{option}: is for pruning; add --keep-rate, e.g. --keep-rate 0.6")
        return
    if prune.method == "l1" and (prune.compact or prune.group != 1):
        raise UserError(
            "--prune.method l1: cuts single filters permanently; leave out --compact and --prune.group"
        )
    if grows:
        raise UserError(
            "--grow, --keep-rate: a network can't grow and be pruned in one run; grow it first, then prune its student/"
        )
    name, file = model.model, model.initial_checkpoint
    has_weights = bool(file) or ":" in name or not is_model(name) or is_model_pretrained(name)
    if not prune.from_scratch and not has_weights:
        raise UserError(
            f"--model {name}: was never trained (timm has no weights of it); give a trained folder, "
            "--initial-checkpoint FILE, or --from-scratch"
        )


def pruned(network: nn.Module, name: str, prune: PruneConfig) -> nn.Module:
    """The network as it enters training: with gates, with filters cut, or as it is, as the options ask.

    Raises:
        UserError: it has no convolution that can be pruned.
    """
    if prune.keep_rate is None:
        return network
    if prune.method == "l1":
        return l1_cut(network, name, prune.keep_rate)
    return add_gates(network, name, prune.group)
