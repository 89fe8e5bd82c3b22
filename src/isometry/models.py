"""ModelSpec <-> timm model: building, loading weights without ever unpickling code, and saving in timm's own form."""

import hashlib
import pickle
import shutil
import socket
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import timm
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_model_input_config, get_pretrained_cfg_value, is_model, save_for_hf, split_model_name_tag
from torch import Tensor, nn

from isometry.data.spec import ImageSpec
from isometry.errors import UserError

WEIGHT_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to build a model again: its timm name, constructor arguments, and where its weights come from.

    ``weights``: ``"pretrained"``, ``"none"`` or the path of a file. ``None`` fields are left to the model.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    weights: str = "none"
    num_classes: int | None = None
    in_chans: int | None = None
    img_size: int | None = None
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    @property
    def folder(self) -> Path | None:
        """The folder of a ``local-dir:`` name."""
        return Path(self.name.removeprefix("local-dir:")) if self.name.startswith("local-dir:") else None


@dataclass(frozen=True)
class WeightSource:
    """Where a model's weights came from: words for a person, and the SHA-256 of the file where there is one."""

    words: str
    sha256: str | None = None


def build_model(spec: ModelSpec, *, flag: str = "--model") -> tuple[nn.Module, WeightSource]:
    """The model that ``spec`` describes, on the CPU, and where its weights came from.

    Args:
        spec: what to build.
        flag: the option that named it, for error messages.

    Raises:
        UserError: unknown name (near names are given), arguments that the architecture refuses, weights that can't be
            fetched, read safely, or fitted to the architecture.
    """
    check_name(spec, flag)
    arguments = _arguments(spec)
    if spec.weights == "pretrained":
        return _create_pretrained(spec, arguments, flag)
    if spec.weights == "none":
        return _create(spec, {**arguments, "pretrained": False}, flag), WeightSource("random, from the seed")
    return _create_from_file(spec, arguments, flag)


def check_name(spec: ModelSpec, flag: str) -> None:
    """Raises UserError unless ``spec.name`` is something that timm can build."""
    if not spec.name:
        raise UserError(f"{flag}: no model named; give a timm name or local-dir:PATH")
    if spec.folder is not None:
        if not (spec.folder / "config.json").is_file():
            raise UserError(f"{flag} {spec.name}: there is no config.json in {spec.folder}")
        if not (spec.folder / "model.safetensors").is_file():
            pickled = [p.name for p in sorted(spec.folder.glob("*")) if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
            found = f"; {pickled[0]} is a pickle and is not opened" if pickled else ""
            raise UserError(f"{flag} {spec.name}: there is no model.safetensors in {spec.folder}{found}")
        return
    if spec.name.startswith("hf-hub:"):
        return
    architecture, _ = split_model_name_tag(spec.name)
    if not is_model(architecture):
        raise UserError(
            f"{flag} {spec.name}: timm has no such model; did you mean {', '.join(_near_names(architecture))}?"
        )


def image_spec(model: nn.Module, img_size: int | None = None) -> ImageSpec:
    """The images that a model wants: at its own size where that is fixed, else at ``img_size`` if given."""
    config = get_model_input_config(model)
    height = config["input_size"][1] if config["fixed_input_size"] or img_size is None else img_size
    return ImageSpec.from_pretrained_cfg({**model.pretrained_cfg, "input_size": config["input_size"]}, height)


def save_model(model: nn.Module, folder: Path, class_names: list[str] | None, data_config: dict[str, Any]) -> None:
    """Writes ``config.json`` and ``model.safetensors``, which ``timm.create_model("local-dir:FOLDER")`` loads.

    An older folder of that name is replaced only once the new one is whole.
    """
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    labels = {"label_names": class_names} if class_names else None
    save_for_hf(model, str(fresh), model_config=labels, safe_serialization=True, data_config=data_config)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def read_weights(path: str | Path, *, flag: str) -> dict[str, Tensor]:
    """Tensors by name, from a safetensors file or from a checkpoint that torch loads with ``weights_only=True``.

    Training checkpoints are unpacked (EMA weights first), and the prefixes of DDP and torch.compile taken off.

    Raises:
        UserError: no such file, a damaged file, a pickle under a safetensors name, or a checkpoint that holds more
            than weights; nothing is ever unpickled into code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{flag} {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        with path.open("rb") as file:
            head = file.read(2)
        looks = "it looks like a pickle, which is never opened here" if head in (b"PK", b"\x80\x02") else str(error)
        raise UserError(f"{flag} {path}: not a safetensors file ({looks})") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{flag} {path}: does not load as weights only, and nothing else is opened; "
            "save its state_dict as safetensors"
        ) from error
    for key in WEIGHT_KEYS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{flag} {path}: holds no state_dict (one of {', '.join(WEIGHT_KEYS)}, or tensors by name)")
    return {key.removeprefix("module.").removeprefix("_orig_mod."): value for key, value in state.items()}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _near_names(name: str, count: int = 3) -> list[str]:
    """Names whose beginnings are most like ``name``: timm's names are long, and people stop typing early."""

    def likeness(known: str) -> float:
        return SequenceMatcher(None, name, known[: len(name)]).ratio()

    return sorted(timm.list_models(), key=likeness, reverse=True)[:count]


def _arguments(spec: ModelSpec) -> dict[str, Any]:
    arguments = dict(spec.kwargs)
    if spec.num_classes is not None:
        arguments["num_classes"] = spec.num_classes
    if spec.in_chans is not None:
        arguments["in_chans"] = spec.in_chans
    if spec.drop_rate:
        arguments["drop_rate"] = spec.drop_rate
    if spec.drop_path_rate:
        arguments["drop_path_rate"] = spec.drop_path_rate
    if spec.img_size is not None:
        sized = timm.models.resolve_model_input_args(spec.name, {"img_size": spec.img_size}, **spec.kwargs)
        if "img_size" in sized:
            arguments["img_size"] = sized["img_size"]
    return arguments


def _create(spec: ModelSpec, arguments: dict[str, Any], flag: str) -> nn.Module:
    try:
        return timm.create_model(spec.name, **arguments)
    except (TypeError, AssertionError, ValueError) as error:
        raise UserError(f"{flag} {spec.name}: its constructor refuses {_shown(spec)} ({_first_line(error)})") from error


def _create_pretrained(
    spec: ModelSpec, arguments: dict[str, Any], flag: str
) -> tuple[nn.Module, WeightSource]:
    weights_flag = "--teacher-weights" if flag == "--teacher" else "--initial-checkpoint"
    if spec.folder is not None:
        try:
            load_file(spec.folder / "model.safetensors")
        except SafetensorError as error:
            raise UserError(f"{flag} {spec.name}: model.safetensors is damaged ({error})") from error
    by_hand = f"hand over the file with {weights_flag} FILE (model.safetensors from its page on the Hugging Face hub)"
    if flag == "--teacher":
        by_hand += ", or --teacher-weights none for a dry run"
    if _needs_network(spec) and not _network_is_there():
        raise UserError(f"{flag} {spec.name}: no network to fetch its pretrained weights; {by_hand}")
    try:
        model = _create(spec, {**arguments, "pretrained": True}, flag)
    except UserError:
        raise
    except Exception as error:
        # timm, huggingface_hub, urllib and their transports share no base class for "could not be fetched".
        if _is_misfit(error):
            raise UserError(f"{flag} {spec.name}: the weights do not fit {_shown(spec)} ({_first_line(error)})") from error
        if isinstance(error, RuntimeError) and "No pretrained weights" in str(error):
            reason = "timm has no pretrained weights for it"
        else:
            reason = f"its pretrained weights could not be fetched ({type(error).__name__})"
        raise UserError(f"{flag} {spec.name}: {reason}; {by_hand}") from error
    return model, _pretrained_source(spec, model)


def _needs_network(spec: ModelSpec) -> bool:
    if spec.folder is not None:
        return False
    if spec.name.startswith("hf-hub:"):
        hub_id: str | None = spec.name.removeprefix("hf-hub:")
    else:
        hub_id = get_pretrained_cfg_value(spec.name, "hf_hub_id")
    if not hub_id:
        return False
    cached = [try_to_load_from_cache(hub_id.split("@")[0], name) for name in ("model.safetensors", "pytorch_model.bin")]
    return not any(isinstance(path, str) for path in cached)


def _network_is_there() -> bool:
    """One look-up of the hub's name, because the hub's client takes most of a minute of retries to say no."""
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(huggingface_hub.constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def _create_from_file(
    spec: ModelSpec, arguments: dict[str, Any], flag: str
) -> tuple[nn.Module, WeightSource]:
    weights_flag = "--teacher-weights" if flag == "--teacher" else "--initial-checkpoint"
    state = read_weights(spec.weights, flag=weights_flag)
    classes = _classes_in(state, spec)
    if "num_classes" not in arguments and classes is not None:
        arguments = {**arguments, "num_classes": classes}
    overlay: dict[str, Any] = {"state_dict": state, "custom_load": False}
    if classes is not None:
        overlay["num_classes"] = classes
    try:
        model = _create(spec, {**arguments, "pretrained": True, "pretrained_cfg_overlay": overlay}, flag)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{weights_flag} {spec.weights}: the weights are of another architecture than {_shown(spec)} "
            f"({_first_line(error)})"
        ) from error
    model.pretrained_cfg.pop("state_dict", None)
    return model, WeightSource(f"file {spec.weights}", sha256_of(Path(spec.weights)))


def _classes_in(state: dict[str, Tensor], spec: ModelSpec) -> int | None:
    """Rows of the classifier in a file of weights, found by the name that timm gives the classifier."""
    classifier = get_pretrained_cfg_value(spec.name, "classifier") if ":" not in spec.name else None
    first = classifier[0] if isinstance(classifier, list | tuple) else classifier
    weight = state.get(f"{first}.weight")
    return None if weight is None else int(weight.shape[0])


def _pretrained_source(spec: ModelSpec, model: nn.Module) -> WeightSource:
    if spec.folder is not None:
        path = spec.folder / "model.safetensors"
        return WeightSource(f"{path}", sha256_of(path))
    hub_id = spec.name.removeprefix("hf-hub:") if ":" in spec.name else model.pretrained_cfg.get("hf_hub_id")
    if hub_id:
        cached = try_to_load_from_cache(str(hub_id).split("@")[0], "model.safetensors")
        if isinstance(cached, str):
            return WeightSource(f"Hugging Face hub {hub_id}", sha256_of(Path(cached)))
        return WeightSource(f"Hugging Face hub {hub_id}")
    return WeightSource(str(model.pretrained_cfg.get("url")))


def _is_misfit(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in str(error)


def _shown(spec: ModelSpec) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in _arguments(spec).items())
    return f"{spec.name}({arguments})"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):
        return lines[1][:160]
    return lines[0][:160] if lines else type(error).__name__
