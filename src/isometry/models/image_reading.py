"""How image files were read for a saved network: ``exif`` and ``pixel_range`` of its run, in its ``config.json``."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator
from typing_extensions import TypedDict

from isometry.config import DataConfig
from isometry.data.image_modes import grey_range
from isometry.errors import UserError
from isometry.models.spec import ModelSpec
from isometry.models.weights import cached_from_hub
from isometry.parsing import read_json, validate

KEY = "isometry_images"
"""A key of ours beside timm's, which timm ignores."""


def _checked(text: str) -> str:
    try:
        grey_range(text)
    except ValueError:
        raise ValueError(f"{text!r:.60} is not LOW,HIGH, two numbers, the smaller first") from None
    return text


class Reading(TypedDict):
    """The options of :class:`isometry.config.DataConfig` with these names."""

    exif: Literal["upright", "ignore"]
    pixel_range: Annotated[str, AfterValidator(_checked)] | None


def reading_of(config: DataConfig) -> Reading:
    """That of a run."""
    return {"exif": config.exif, "pixel_range": config.pixel_range}


def saved_reading(spec: ModelSpec) -> Reading | None:
    """That of the network in a folder or from a hub; None where its ``config.json`` does not say.

    Raises:
        UserError: the values there are invalid.
    """
    folder = spec.folder
    # Not timm's own names, which no run of ours saved.
    if spec.name.startswith("hf-hub:") and spec.hub_id:
        weights = cached_from_hub(spec.hub_id)
        folder = weights and weights.parent
    if folder is None or not (folder / "config.json").is_file():
        return None
    told = read_json(folder / "config.json", dict[str, Any]).get(KEY)
    try:
        return None if told is None else validate(told, Reading)
    except ValueError as error:
        raise UserError(
            f'{folder / "config.json"}: "{KEY}" is invalid ({error}); correct it there'
        ) from error
