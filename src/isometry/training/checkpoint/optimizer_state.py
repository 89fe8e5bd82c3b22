"""Conversion of an optimizer's state to tensors for safetensors and other values for JSON, and back."""

import json
from typing import Any

import torch
from torch import Tensor

from isometry.errors import UserError
from isometry.training.checkpoint.files import Tensors


def split_optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """The optimizer's tensors by ``state/index/name`` or ``param_groups/index/name``, and its other values.

    Raises:
        UserError: a value is neither a tensor nor representable in JSON.
    """
    whole = optimizer.state_dict()
    tensors: Tensors = {}
    rest: dict[str, Any] = {}
    for section, numbered in (
        ("state", whole["state"]),
        ("param_groups", dict(enumerate(whole["param_groups"]))),
    ):
        rest[section] = {str(index): {} for index in numbered}
        for index, entries in numbered.items():
            for name, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"{section}/{index}/{name}"] = value
                else:
                    rest[section][str(index)][name] = value
    try:
        json.dumps(rest)
    except TypeError as error:
        raise UserError(
            f"--opt: {type(optimizer).__name__} has a state that only pickle can save ({error}); "
            "choose another, e.g. adamw"
        ) from error
    return tensors, rest


def join_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Tensors, rest: dict[str, Any]) -> None:
    """Loads the output of :func:`split_optimizer_state`."""
    whole: dict[str, dict[int, dict[str, Any]]] = {
        section: {int(index): dict(entries) for index, entries in numbered.items()}
        for section, numbered in rest.items()
    }
    for key, value in tensors.items():
        section, index, name = key.split("/", 2)
        whole[section][int(index)][name] = value
    optimizer.load_state_dict({"state": whole["state"], "param_groups": list(whole["param_groups"].values())})
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # In its parameter's layout of memory, in which the optimizer made it: another rounds otherwise.
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
