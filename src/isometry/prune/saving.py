"""Pruned networks in folders: timm's config.json and model.safetensors, with one more key in config.json for the shape.

``"isometry": {"group": G, "widths": {NAME: CHANNELS, ...}}`` has the channels that share a gate (null without gates)
and the output channels of each convolution that can be cut.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StrictInt
from torch import nn
from typing_extensions import TypedDict

from isometry.errors import UserError
from isometry.models.build import OWN_KEY, build_model, save_model
from isometry.models.finite import check_weights_given
from isometry.models.spec import ModelSpec
from isometry.models.weights import read_weights
from isometry.parsing import closed, read_json, validate
from isometry.prune.cutting import set_widths, widths
from isometry.prune.gates import gated_convs
from isometry.prune.sites import add_gates
from isometry.prune.skipping import skipping

WEIGHTS = "model.safetensors"


@closed
class Shape(TypedDict):
    """The key ``"isometry"`` of config.json."""

    group: Annotated[StrictInt, Field(gt=0)] | None
    widths: dict[str, StrictInt]


def save_network(
    network: nn.Module,
    folder: Path,
    class_names: list[str] | None,
    data_config: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> None:
    """Writes a network, with gates or without, cut or whole; :func:`load_network` restores it exactly.

    Args:
        network: a timm model, pruned or not.
        folder, class_names, data_config, extra: as in :func:`isometry.models.build.save_model`.
    """
    group = next((conv.group for conv in gated_convs(network).values()), None)
    shape = {"group": group, "widths": widths(network)}
    save_model(network, folder, class_names, data_config, {**(extra or {}), OWN_KEY: shape})


def load(folder: str | Path) -> nn.Module:
    """A saved network for inference, in eval mode on the CPU: the skipping form of a network with gates.

    Args and errors as in :func:`load_network`.
    """
    network = load_network(folder)
    return skipping(network) if gated_convs(network) else network


def load_network(folder: str | Path, *, flag: str = "isometry.load") -> nn.Module:
    """A saved network in the form for training, with gates that multiply; in eval mode, on the CPU.

    Args:
        folder: a run folder, or the folder of a network (a run's ``student``), pruned or not.
        flag: the option that named it, for error messages.

    Raises:
        UserError: no such folder, no network in it, weights that are no complete safetensors file (pickles are never
            opened), that don't fit config.json, or that are not finite.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{flag} {folder}: no such folder")
    if (folder / "student").is_dir():
        folder = folder / "student"
    name = f"local-dir:{folder}"
    network, _ = build_model(ModelSpec(name), flag=flag)
    shape = read_json(folder / "config.json", dict[str, Any]).get(OWN_KEY)
    if shape is None:
        return build_model(ModelSpec(name, weights="pretrained"), flag=flag)[0].eval()
    try:
        shape = validate(shape, Shape)
        if shape["group"] is not None:
            add_gates(network, name, shape["group"])
        set_widths(network, shape["widths"])
    except (UserError, ValueError) as error:
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
    check_weights_given(network, f"{flag} {folder}")
    return network.eval()
