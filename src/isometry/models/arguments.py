"""Arguments of timm's constructors, which a user or a ``config.json`` gives: what none of them may be."""

import inspect
from typing import Any

import timm
from timm.models import build_model_with_cfg

from isometry.errors import UserError, printable

LOADING = (
    {*inspect.signature(timm.create_model).parameters, *inspect.signature(build_model_with_cfg).parameters}
    | {"device", "dtype", "features_only"}
) - {"kwargs"}
"""Arguments of timm that say which files to load and what to make of the network, and nothing of its architecture."""

MOST_OF_A_SIZE = 2**20
"""No depth, width or number of classes is larger: Python's own lists of so many layers already take seconds."""


def check_arguments(arguments: dict[str, Any], where: str) -> None:
    """Raises UserError for an argument that is none of an architecture, or for an impossible size.

    ``where`` comes before the argument's name in the message.
    """
    for name in arguments.keys() & LOADING:
        raise UserError(f"{where}{name}: is no argument of a network; leave it out")
    _check_sizes(arguments, where)


def _check_sizes(value: Any, where: str) -> None:
    """Raises UserError for an integer in a network's arguments that is larger than any size of a network."""
    if isinstance(value, dict):
        for name, each in value.items():
            _check_sizes(each, f"{where}{printable(str(name)[:80])}: ")
    elif isinstance(value, list | tuple):
        for each in value:
            _check_sizes(each, where)
    elif isinstance(value, int) and abs(value) > MOST_OF_A_SIZE:
        raise UserError(f"{where}must be at most {MOST_OF_A_SIZE:,}, in a network that can be built")
