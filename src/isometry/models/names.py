"""Names of networks: whether timm or a folder has what a name says, and near names where it has not."""

import os
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NotRequired

import timm
from timm.models import get_arch_pretrained_cfgs, is_model, split_model_name_tag
from typing_extensions import TypedDict

import isometry.models.cifar_resnet  # noqa: F401 - registers its networks with timm before any name is looked up
from isometry.errors import UserError, printable, reason
from isometry.models.arguments import check_arguments
from isometry.models.spec import ModelSpec
from isometry.parsing import read_json, validate

DENSE_KEY = "isometry_dense"
"""The key by which the config.json of a detector or segmentation network is known: see
:mod:`isometry.models.dense.saving`."""

LONGEST_SHOWN = 100
"""Most characters of an unknown name in a message; timm's names have fewer."""

FILE_OPTIONS = {"--teacher": "--teacher-weights", "--model": "--initial-checkpoint"}
"""The option for a file of weights, by the option that names the model."""


class TimmConfig(TypedDict):
    """timm's ``config.json``, as far as its types matter here."""

    architecture: str
    pretrained_cfg: NotRequired[dict[str, Any]]
    model_args: NotRequired[dict[str, Any]]


def check_name(spec: ModelSpec, flag: str) -> None:
    """Raises UserError unless timm can build ``spec.name``."""
    if not spec.name:
        raise UserError(f"{flag} (or --student): not given; give a timm name or the folder of a run")
    check_arguments(spec.kwargs, place_of_arguments(flag))
    if spec.folder is not None:
        return _check_folder(spec.folder, f"{flag} {spec.name}")
    if spec.name.startswith("hf-hub:"):
        return None
    architecture, tag = split_model_name_tag(spec.name)
    if not is_model(architecture):
        # Where Path.is_dir raises for a name that is too long for a file, this is False.
        if os.path.isdir(spec.name):
            raise UserError(f"{flag} {spec.name}: there is no saved network in this folder (no config.json)")
        near = ", ".join(_near(architecture[:LONGEST_SHOWN], timm.list_models()))
        raise UserError(f"{flag} {spec.name:.{LONGEST_SHOWN}}: timm has no such model; did you mean {near}?")
    tags = [name.partition(".")[2] for name in get_arch_pretrained_cfgs(architecture)]
    if tag and tag not in tags:
        near = ", ".join(f"{architecture}.{known}" for known in _near(tag[:LONGEST_SHOWN], tags))
        raise UserError(
            f"{flag} {spec.name:.{LONGEST_SHOWN}}: timm has no such weights for it; did you mean {near}?"
        )


def place_of_arguments(flag: str) -> str:
    """Where a network's arguments are given: an option, or the folder that ``flag`` names."""
    return f"{flag}-kwargs " if flag in FILE_OPTIONS else f"{flag}: config.json, model_args."


def _check_folder(folder: Path, option: str) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(f"{option}: there is no config.json in {folder}")
    if not (folder / "model.safetensors").is_file():
        pickled = [p.name for p in sorted(folder.glob("*")) if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
        beside = f"; {pickled[0]} is a pickle and is not opened" if pickled else ""
        raise UserError(f"{option}: there is no model.safetensors in {folder}{beside}")
    try:
        found = read_json(folder / "config.json", dict[str, Any])
        if DENSE_KEY in found:
            raise UserError(
                f"{option}: is a detector or segmentation network, and a classifier is needed here; give the folder "
                "`student` of its run, which has its backbone"
            )
        config: TimmConfig = validate(found, TimmConfig)
    except (OSError, ValueError) as error:
        raise UserError(f"{option}: config.json is not timm's ({reason(error)})") from error
    architecture = config["architecture"]
    check_arguments(config.get("model_args", {}), f"{option}: config.json, model_args.")
    if not is_model(architecture):
        raise UserError(
            f"{option}: config.json names {printable(architecture[:80])}, which timm does not have"
        )


def _near(name: str, known: list[str]) -> list[str]:
    """The names whose beginnings are most similar to ``name``, because timm's names are long and often abbreviated."""

    def likeness(candidate: str) -> float:
        return SequenceMatcher(None, name, candidate[: len(name)]).ratio()

    return sorted(known, key=likeness, reverse=True)[:3]
