"""Weight files, read without unpickling code."""

import argparse
import pickle
import socket
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from isometry.errors import UserError

WEIGHT_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where training checkpoints keep their weights, in the order of preference (timm's and DeiT's names)."""

PICKLE_HEADS = (b"PK", b"\x80")
"""First bytes of what torch.save and pickle write."""


@dataclass(frozen=True)
class WeightSource:
    """Where a model's weights came from, and the SHA-256 of the file if there is one."""

    description: str
    sha256: str | None = None


def read_weights(path: str | Path, *, flag: str) -> dict[str, Tensor]:
    """Tensors by name, from a safetensors file or a checkpoint that torch loads with ``weights_only=True``.

    Training checkpoints are unpacked (EMA first), and the prefixes of DDP and torch.compile are removed.

    Raises:
        UserError: no such file, a damaged file, a pickle under a safetensors name, or a checkpoint that holds
            more than weights; nothing is ever unpickled into code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{flag} {path}: no such file")
    try:
        state: Any = (
            _read_safetensors(path, flag) if path.suffix == ".safetensors" else _read_checkpoint(path)
        )
    except OSError as error:
        raise UserError(f"{flag} {path}: can't be read ({error.strerror or error})") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{flag} {path}: can't be loaded with weights_only=True, and other checkpoints are not opened; "
            "save its state_dict as safetensors"
        ) from error
    if isinstance(state, dict):
        state = next((state[key] for key in WEIGHT_KEYS if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"{flag} {path}: holds no state_dict (one of {', '.join(WEIGHT_KEYS)}, or tensors by name)"
        )
    return {key.removeprefix("module.").removeprefix("_orig_mod."): value for key, value in state.items()}


def cached_from_hub(hub_id: str) -> Path | None:
    """A hub model's weights in the local cache; None if they were not downloaded yet."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(hub_id.partition("@")[0], name)
        if isinstance(found, str):
            return Path(found)
    return None


def is_online() -> bool:
    """Whether the hub's name resolves: a quick check, because the hub's client retries for most of a minute."""
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(huggingface_hub.constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def _read_safetensors(path: Path, flag: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        with path.open("rb") as file:
            is_pickle = file.read(2).startswith(PICKLE_HEADS)
        reason = "it looks like a pickle, which is never opened here" if is_pickle else str(error)
        raise UserError(f"{flag} {path}: not a complete safetensors file ({reason})") from error


def _read_checkpoint(path: Path) -> Any:
    # timm's training checkpoints carry their arguments as a Namespace, which is plain data.
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        return torch.load(path, map_location="cpu", weights_only=True)
