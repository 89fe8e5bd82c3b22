"""ModelSpec <-> timm model: building it with its weights, and saving it in timm's format."""

from pathlib import Path
from typing import Any

import timm
from timm.models import (
    get_pretrained_cfg_value,
    resolve_model_input_args,
    save_for_hf,
)
from torch import Tensor, nn

from isometry.errors import UserError, first_line, printable
from isometry.files import permit_as_umask, sha256_of
from isometry.models.finite import check_weights_given
from isometry.models.heads import refuse_auxiliary_head
from isometry.models.names import FILE_OPTIONS, check_name, place_of_arguments
from isometry.models.network_folder import replace_folder
from isometry.models.outline import SLACK, SLACK_OF_PRUNED, TooLargeError, outline, shapes_in
from isometry.models.spec import ModelSpec, pretrained_cfg
from isometry.models.weights import WeightSource, cached_from_hub, is_online, read_weights
from isometry.parsing import read_json

OWN_KEY = "isometry"
"""The key that pruned networks add to timm's config.json: see :mod:`isometry.prune.saving`."""


def build_model(spec: ModelSpec, *, flag: str = "--model") -> tuple[nn.Module, WeightSource]:
    """The model that ``spec`` describes, on the CPU, and where its weights came from.

    ``flag`` is the option that named it, for error messages.

    Raises:
        UserError: unknown name (near names are given), arguments that the architecture rejects, weights that
            can't be downloaded, read safely, or loaded into the architecture, or that are not finite.
    """
    check_name(spec, flag)
    model, source = _build(spec, flag)
    refuse_auxiliary_head(model, f"{flag} {spec.name}")
    return model, source


def _build(spec: ModelSpec, flag: str) -> tuple[nn.Module, WeightSource]:
    if spec.folder is not None:
        _check_outline(spec, spec.folder, flag)
    if spec.weights == "none":
        return _create(spec, _arguments(spec, flag), flag), WeightSource("random, from the seed")
    model, source = _with_weights(spec, flag)
    check_weights_given(model, f"{flag} {spec.name}")
    return model, source


def _check_outline(spec: ModelSpec, folder: Path, flag: str) -> None:
    pruned = OWN_KEY in read_json(folder / "config.json", dict[str, Any])
    arguments = _arguments(spec, flag)
    try:
        outline(
            lambda: timm.create_model(spec.name, **{"pretrained": False, **arguments}),
            shapes_in(folder / "model.safetensors"),
            SLACK_OF_PRUNED if pruned else SLACK,
        )
    except TooLargeError as error:
        raise UserError(
            f"{flag} {spec.name}: config.json does not fit model.safetensors ({error}); copy both from one run"
        ) from error


def _with_weights(spec: ModelSpec, flag: str) -> tuple[nn.Module, WeightSource]:
    if spec.weights != "pretrained":
        return _with_file(spec, Path(spec.weights), FILE_OPTIONS[flag])
    if spec.folder is not None:
        return _with_file(spec, spec.folder / "model.safetensors", flag)
    return _with_pretrained(spec, flag)


def check_on_disk(spec: ModelSpec, flag: str) -> None:
    """Raises UserError if the weights of a spec would have to be downloaded."""
    hub_id = spec.hub_id
    if spec.weights == "pretrained" and hub_id and cached_from_hub(hub_id) is None:
        raise UserError(f"{flag} {spec.name}: its pretrained weights are not on this machine")


def save_model(
    model: nn.Module,
    folder: Path,
    class_names: list[str] | None,
    data_config: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> None:
    """Writes the ``config.json`` and ``model.safetensors`` of ``timm.create_model("local-dir:FOLDER")``.

    Files that were written there before are replaced only once the new ones are complete; see
    :mod:`isometry.models.network_folder`. ``extra`` adds keys to ``config.json``, which timm ignores.
    """
    more = {**(extra or {}), **({"label_names": class_names} if class_names else {})}
    with replace_folder(folder) as new:
        save_for_hf(model, new, model_config=more, safe_serialization=True, data_config=data_config)
        permit_as_umask(new / "model.safetensors")


def _arguments(spec: ModelSpec, flag: str) -> dict[str, Any]:
    given = {
        "num_classes": spec.num_classes,
        "in_chans": spec.in_chans,
        "drop_rate": spec.drop_rate or None,
        "drop_path_rate": spec.drop_path_rate or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if spec.kwargs.get(name, value) != value:
            raise UserError(
                f"{place_of_arguments(flag)}{name}={spec.kwargs[name]}: another option, or the data, says {value}"
            )
    arguments = spec.kwargs | given
    if spec.img_size is not None:
        try:
            sized = resolve_model_input_args(spec.name, {"img_size": spec.img_size}, **spec.kwargs)
        except (ValueError, TypeError) as error:
            raise UserError(f"{flag} {spec.name}: {first_line(error)}") from error
        if "img_size" in sized:
            arguments["img_size"] = sized["img_size"]
    return arguments


def _create(spec: ModelSpec, arguments: dict[str, Any], flag: str) -> nn.Module:
    try:
        return timm.create_model(spec.name, **{"pretrained": False, **arguments})
    except TooLargeError:
        raise
    except Exception as error:
        # A constructor with a wrong argument may raise anything.
        shown = printable(", ".join(f"{key}={value}" for key, value in arguments.items()))
        raise UserError(f"{flag} {spec.name}: can't be built with {shown} ({first_line(error)})") from error


def _with_pretrained(spec: ModelSpec, flag: str) -> tuple[nn.Module, WeightSource]:
    by_hand = "save the network in a folder and give local-dir:FOLDER"
    if flag in FILE_OPTIONS:
        by_hand = (
            f"give the file with {FILE_OPTIONS[flag]} FILE (model.safetensors from its Hugging Face page)"
        )
    if flag == "--teacher":
        by_hand += ", or --teacher-weights none for a dry run"
    hub_id = spec.hub_id
    if hub_id and cached_from_hub(hub_id) is None and not is_online():
        raise UserError(
            f"{flag} {spec.name}: there is no network connection to download its pretrained weights; {by_hand}"
        )
    arguments = _arguments(spec, flag)
    try:
        model = timm.create_model(spec.name, pretrained=True, **arguments)
    except Exception as error:
        # timm, huggingface_hub, urllib and their transports share no base class for failed downloads.
        _create(spec, arguments, flag)
        raise UserError(
            f"{flag} {spec.name}: its pretrained weights can't be loaded ({first_line(error)}); {by_hand}"
        ) from error
    if hub_id is None:
        return model, WeightSource(str(pretrained_cfg(model).get("url")))
    path = cached_from_hub(hub_id)
    return model, WeightSource(f"Hugging Face hub {hub_id}", sha256_of(path) if path else None)


def _with_file(spec: ModelSpec, path: Path, flag: str) -> tuple[nn.Module, WeightSource]:
    """The model with a file's weights; all must match, except a classifier for another number of classes."""
    state = read_weights(path, flag=flag)
    arguments = _arguments(spec, flag)
    asked = arguments.pop("num_classes", None)
    rows = _classes_in(state, spec)
    # Without a classifier under timm's name, timm's converter may rename one, or there is none.
    possible = [{"num_classes": rows}] if rows is not None else [{}, {"num_classes": 0}]
    model, reason = None, ""
    for classes in possible:
        try:
            model = _load(spec, arguments | classes, state, classes)
            break
        except Exception as error:
            # timm's checkpoint converters may raise anything.
            reason = reason or first_line(error)
    if model is None:
        _create(spec, arguments, flag)
        # Pruned networks may have other shapes than timm's.
        if spec.folder is not None and OWN_KEY in read_json(spec.folder / "config.json", dict[str, Any]):
            raise UserError(
                f"{flag} {spec.name}: is a pruned network, which only isometry.load and isometry bench can read; "
                "give the network from before pruning"
            )
        raise UserError(f"{flag} {path}: these weights do not fit {_shown(spec)} ({reason})")
    if asked not in (None, model.num_classes):
        # The rest is known to match by now; timm drops a classifier of another number of classes.
        model = _load(spec, {**arguments, "num_classes": asked}, state, {"num_classes": model.num_classes})
    return model, WeightSource(f"file {path}", sha256_of(path))


def _load(
    spec: ModelSpec, arguments: dict[str, Any], state: dict[str, Tensor], origin: dict[str, Any]
) -> nn.Module:
    overlay = {"state_dict": dict(state), **origin}
    model = timm.create_model(spec.name, **arguments, pretrained=True, pretrained_cfg_overlay=overlay)
    pretrained_cfg(model).pop("state_dict", None)
    return model


def _classes_in(state: dict[str, Tensor], spec: ModelSpec) -> int | None:
    """Rows of the classifier in a file of weights, found by the name that timm gives the classifier."""
    if ":" in spec.name:
        return None
    classifier = get_pretrained_cfg_value(spec.name, "classifier")
    weight = state.get(f"{classifier[0] if isinstance(classifier, list | tuple) else classifier}.weight")
    offset = get_pretrained_cfg_value(spec.name, "label_offset") or 0
    return None if weight is None else len(weight) - offset


def _shown(spec: ModelSpec) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in spec.kwargs.items())
    return f"{spec.name} with {arguments}" if arguments else spec.name
