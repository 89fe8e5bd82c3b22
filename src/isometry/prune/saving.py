"""Pruned networks in folders: timm's config.json and model.safetensors, and what timm can't know of their shape.

config.json has one more key: ``"isometry": {"group": G, "widths": {NAME: CHANNELS, ...}}``, with the channels that
share a gate (null without gates) and the output channels of each convolution that can be cut.
"""

import json
from pathlib import Path
from typing import Any

from torch import nn

from isometry.errors import UserError
from isometry.models.build import OWN_KEY, build_model, save_model
from isometry.models.spec import ModelSpec
from isometry.models.weights import read_weights
from isometry.prune.cutting import set_widths, widths
from isometry.prune.gates import gated_convs
from isometry.prune.sites import add_gates
from isometry.prune.skipping import skipping

WEIGHTS = "model.safetensors"


def save_network(
    network: nn.Module, folder: Path, class_names: list[str] | None, data_config: dict[str, Any]
) -> None:
    """Writes a network, with gates or without, cut or whole, so that :func:`load_network` gives it back bit by bit.

    Args:
        network: a timm model, pruned or not.
        folder: an older one of that name is replaced only once the new one is whole.
        class_names: as in :func:`isometry.models.build.save_model`.
        data_config: likewise.
    """
    group = next((conv.group for conv in gated_convs(network).values()), None)
    shape = {"group": group, "widths": widths(network)}
    save_model(network, folder, class_names, data_config, {OWN_KEY: shape})


def load(folder: str | Path) -> nn.Module:
    """A saved network ready for inference, in eval mode on the CPU: with gates, the form that skips channels.

    Args and errors as in :func:`load_network`.
    """
    network = load_network(folder)
    return skipping(network) if gated_convs(network) else network


def load_network(folder: str | Path, *, flag: str = "isometry.load") -> nn.Module:
    """A saved network in the form that trains: gates that multiply, cut channels gone; in eval mode, on the CPU.

    Args:
        folder: a run folder, or the folder of a network (a run's ``student``); one without pruning will do.
        flag: what named it, for error messages.

    Raises:
        UserError: no such folder, no network in it, weights that are no whole safetensors file (a pickle is never
            opened), or that don't fit what config.json says.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{flag} {folder}: no such folder")
    if (folder / "student").is_dir():
        folder = folder / "student"
    name = f"local-dir:{folder}"
    network, _ = build_model(ModelSpec(name), flag=flag)
    shape = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(OWN_KEY)
    if shape is None:
        return build_model(ModelSpec(name, weights="pretrained"), flag=flag)[0].eval()
    try:
        _give_shape(network, name, **shape)
    except (UserError, ValueError, TypeError) as error:
        raise UserError(
            f'{flag} {folder}: "{OWN_KEY}" in config.json does not fit its architecture ({error}); '
            "save the network again"
        ) from error
    state = read_weights(folder / WEIGHTS, flag=flag)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()[:160]
        raise UserError(
            f"{flag} {folder}: {WEIGHTS} does not fit config.json ({reason}); copy both files from one run"
        ) from error
    return network.eval()


def _give_shape(network: nn.Module, name: str, *, group: int | None, widths: dict[str, int]) -> None:
    if group is not None:
        if not isinstance(group, int) or group < 1:
            raise ValueError(f"group {group} is no number of channels")
        add_gates(network, name, group)
    if not isinstance(widths, dict) or not all(isinstance(width, int) for width in widths.values()):
        raise ValueError("widths are no channels by name")
    set_widths(network, widths)
