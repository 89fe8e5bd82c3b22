"""Folders of detectors and segmentation networks: ``config.json`` and ``model.safetensors``.

``config.json`` has how to build the network again (:class:`DenseConfig`); nothing in it names a file or an address.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, StringConstraints
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import TypedDict

from isometry.data import ImageSpec
from isometry.data.dense.annotations import Task
from isometry.errors import UserError, first_line, reason
from isometry.files import permit_as_umask
from isometry.models.build import build_model
from isometry.models.dense.build import backbone_arguments, build_dense
from isometry.models.dense.network import DenseNetwork
from isometry.models.finite import check_weights_given
from isometry.models.image_reading import KEY as READING
from isometry.models.image_reading import Reading
from isometry.models.names import DENSE_KEY
from isometry.models.network_folder import MANIFEST, replace_folder
from isometry.models.outline import TooLargeError, misfit, outline, shapes_of
from isometry.models.spec import ModelSpec, architecture
from isometry.models.weights import read_weights
from isometry.parsing import closed, read_json, validate

CONFIG, WEIGHTS = "config.json", "model.safetensors"
NETWORK = "model"
"""Folder of the network in that of a run."""


@closed
class Backbone(TypedDict):
    """timm's name and constructor arguments; a plain name, so that nothing is fetched."""

    architecture: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")]
    model_args: dict[str, Any]


@closed
class Images(TypedDict):
    """:class:`isometry.data.ImageSpec`."""

    input_size: tuple[
        Annotated[int, Field(gt=0, le=64)],
        Annotated[int, Field(gt=0, le=8192)],
        Annotated[int, Field(gt=0, le=8192)],
    ]
    mean: list[float]
    std: list[float]
    interpolation: str
    crop_pct: float
    crop_mode: str


@closed
class DenseConfig(TypedDict):
    """Content of ``config.json``; ``convs`` of detectors alone, ``isometry_images`` as in a student's folder.

    ``isometry_dense`` is the version of the format.
    """

    isometry_dense: Literal[1]
    task: Task
    backbone: Backbone
    class_names: Annotated[list[str], Field(min_length=1)]
    images: Images
    channels: Annotated[int, Field(gt=0, le=4096, multiple_of=32)]
    convs: NotRequired[Annotated[int, Field(ge=0, le=64)]]
    isometry_images: NotRequired[Reading]


def save_dense(network: DenseNetwork, folder: Path, reading: Reading | None = None) -> None:
    """Writes the folder that :func:`load_dense` reads, once both files are complete.

    Args:
        network: on any device.
        folder: as in :func:`isometry.models.network_folder.replace_folder`, whose errors are raised.
        reading: how the image files were read in training.
    """
    config: dict[str, Any] = {
        DENSE_KEY: 1,
        "task": network.task,
        "backbone": {
            "architecture": architecture(network.backbone),
            "model_args": backbone_arguments(network.backbone),
        },
        "class_names": network.class_names,
        "images": asdict(network.spec),
        "channels": network.channels,
    }
    if network.task == "detect":
        config["convs"] = network.convs
    if reading is not None:
        config[READING] = reading
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with replace_folder(folder) as new:
        save_file(state, new / WEIGHTS, {"format": "pt"})
        permit_as_umask(new / WEIGHTS)
        (new / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")


def dense_folder(folder: str | Path) -> Path | None:
    """The folder of a detector or segmentation network: this one, or ``model`` in a run's; None for any other."""
    folder = Path(folder)
    network = folder / NETWORK
    # Of one that was written there, but can't be read, load_dense says what is wrong.
    if _is_dense(network, damaged=(network / MANIFEST).is_file()):
        return network
    return folder if _is_dense(folder, damaged=False) else None


def _is_dense(folder: Path, *, damaged: bool) -> bool:
    """Whether ``config.json`` is that of a detector or segmentation network; ``damaged`` if it can't be read."""
    try:
        return DENSE_KEY in read_json(folder / CONFIG, dict[str, Any])
    except (OSError, ValueError):
        return damaged


def load_dense(folder: str | Path, *, flag: str = "isometry.load") -> DenseNetwork:
    """A saved detector or segmentation network in eval mode, on the CPU; :func:`isometry.load` says how it is called.

    Args:
        folder: of :func:`save_dense`, or of a run that has it in ``model``.
        flag: the option that named it, for error messages.

    Raises:
        UserError: no such folder, or a file of it is missing, damaged, of another kind, or does not fit the other.
    """
    folder = dense_folder(folder) or Path(folder)
    where = f"{flag} {folder}"
    if not folder.is_dir():
        raise UserError(f"{where}: no such folder")
    config = _read_config(folder, where)
    state = read_weights(folder / WEIGHTS, flag=flag)
    try:
        _check_outline(config, state, where)
        network = _build(config, where)
        network.load_state_dict(state)
    except (TooLargeError, RuntimeError) as error:
        raise UserError(
            f"{where}: {WEIGHTS} does not fit {CONFIG} ({first_line(error)}); copy both files from one run"
        ) from error
    check_weights_given(network, where)
    network.reading = config.get("isometry_images", network.reading)
    return network.eval()


def saved_reading(folder: Path) -> Reading | None:
    """How image files were read for the network in a folder of :func:`load_dense`; None where it does not say."""
    return _read_config(folder, str(folder)).get("isometry_images")


def _read_config(folder: Path, where: str) -> DenseConfig:
    try:
        config = read_json(folder / CONFIG, dict[str, Any])
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {CONFIG} can't be read ({reason(error)})") from error
    if DENSE_KEY not in config:
        raise UserError(
            f"{where}: {CONFIG} is not that of a detector or segmentation network (no {DENSE_KEY}); "
            "give the folder `model` of a run of isometry transfer"
        )
    try:
        return validate(config, DenseConfig)
    except ValueError as error:
        raise UserError(f"{where}: {CONFIG} is invalid ({error}); copy it again from its run") from error


def _check_outline(config: DenseConfig, state: dict[str, Tensor], where: str) -> None:
    """Raises TooLargeError or RuntimeError, before the network is built, if its shapes are not those of its weights."""
    weights = shapes_of(state)
    network = outline(lambda: _build(config, where), weights)
    if network is not None and (fault := misfit(network, weights)):
        raise RuntimeError(fault)


def _build(config: DenseConfig, where: str) -> DenseNetwork:
    images, backbone = config["images"], config["backbone"]
    spec = ImageSpec.from_pretrained_cfg({**images})
    built, _ = build_model(ModelSpec(backbone["architecture"], backbone["model_args"]), flag=where)
    convs = {"convs": config["convs"]} if "convs" in config else {}
    try:
        return build_dense(
            config["task"], built, config["class_names"], spec, channels=config["channels"], **convs
        )
    except (UserError, RuntimeError, ValueError, AssertionError) as error:
        if isinstance(error, TooLargeError):
            raise
        # How timm refuses images of another size or channels than the backbone was built for.
        raise UserError(f"{where}: {CONFIG} can't be built ({first_line(error)})") from error
