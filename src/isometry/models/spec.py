"""What a network is: its name and constructor arguments, the images it expects, its label names."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timm.models import get_model_input_config, get_pretrained_cfg_value
from torch import nn

import isometry.models.cifar_resnet  # noqa: F401 - registers its networks with timm before any name is looked up
from isometry.config import ModelConfig, PruneConfig
from isometry.data import ImageSpec


def label_names(model: nn.Module) -> list[str] | None:
    """The names of a model's classes, where its config gives them."""
    names = pretrained_cfg(model).get("label_names")
    return [str(name) for name in names] if isinstance(names, list | tuple) else None


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to build a model again: timm name, constructor arguments, and where its weights are.

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

    @property
    def hub_id(self) -> str | None:
        """Where the Hugging Face hub keeps its weights; None where they are elsewhere, or there are none."""
        if self.folder is not None:
            return None
        if self.name.startswith("hf-hub:"):
            return self.name.removeprefix("hf-hub:")
        return get_pretrained_cfg_value(self.name, "hf_hub_id")


def image_spec(model: nn.Module, img_size: int | None = None) -> ImageSpec:
    """The images that a model wants: at its own size where that is fixed, else at ``img_size`` if given."""
    config = get_model_input_config(model)
    height = config["input_size"][1] if config["fixed_input_size"] or img_size is None else img_size
    cfg = {**pretrained_cfg(model), "input_size": config["input_size"]}
    return ImageSpec.from_pretrained_cfg(cfg, height)


def pretrained_cfg(model: nn.Module) -> dict[str, Any]:
    """What timm knows of a model's weights: input size, normalisation, classes, where they are."""
    return getattr(model, "pretrained_cfg", None) or {}


def architecture(model: nn.Module) -> str:
    """timm's name of a model, also of one that came from a folder."""
    return str(pretrained_cfg(model)["architecture"])


def student_spec(config: ModelConfig, prune: PruneConfig) -> ModelSpec:
    """The spec of the model that trains, at full size."""
    from_folder = config.model.startswith(("local-dir:", "hf-hub:"))
    # A network to be pruned is a trained one.
    trained = config.pretrained or from_folder or (prune.wanted and not prune.from_scratch)
    weights = config.initial_checkpoint or ("pretrained" if trained else "none")
    return ModelSpec(
        config.model,
        config.model_kwargs,
        weights,
        num_classes=config.num_classes,
        in_chans=config.in_chans,
        img_size=config.img_size,
        drop_rate=config.drop,
        drop_path_rate=config.drop_path,
    )
