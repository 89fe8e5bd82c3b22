"""RunConfig -> the parts of a run for boxes or masks: data, network, and the config with all values filled in."""

from dataclasses import dataclass, replace
from typing import Any, cast

from isometry.config import DataConfig, RunConfig, out_of_range
from isometry.config.paths import absolute_paths
from isometry.data import ImageSpec
from isometry.data.dense.annotations import Task
from isometry.data.dense.sources import DenseSources, find_dense_sources
from isometry.data.dense.transforms import AREAS
from isometry.data.option_checks import AUTO
from isometry.data.splits import MapPart
from isometry.data.survey import Survey, survey
from isometry.distributed import World
from isometry.errors import UserError
from isometry.evaluation.dense.detection import check_installed
from isometry.models.build import build_model
from isometry.models.dense.build import build_dense
from isometry.models.dense.network import DenseNetwork
from isometry.models.names import check_name
from isometry.models.spec import image_spec, student_spec
from isometry.models.weights import WeightSource
from isometry.seeding import derive_seed, seed_global_generators
from isometry.training.checkpoint.run_folder import begun_as
from isometry.training.image_trial import pixels_in_no_patch, try_images

SHRUNK = 2
"""How many times larger than the network's input pictures may be without a word."""


@dataclass
class DenseRun:
    """The parts of a run, built but not started.

    Attributes:
        config: with all values filled in.
        sources: the data.
        spec: the images that the network takes.
        network: on the CPU.
        weights: where the backbone's came from.
        sample: a look at some of the training images.
        notes: for the user and the report.
    """

    config: RunConfig
    sources: DenseSources
    spec: ImageSpec
    network: DenseNetwork
    weights: WeightSource
    sample: Survey
    notes: list[str]


def assemble_dense(config: RunConfig, world: World) -> DenseRun:
    """Builds the parts of a run on the CPU; writes nothing and trains nothing.

    Raises:
        UserError: anything that can't work, before any step is taken.
    """
    if world.size > 1:
        raise UserError("isometry transfer runs in one process; give it without torchrun")
    if fault := out_of_range(config):
        raise UserError(fault)
    task: Task = "detect" if config.task == "detect" else "segment"
    if task == "detect":
        check_installed()
    if (begun := begun_as(config)) is not None and config.pixel_range == AUTO:
        # What it found then, also if other images were added.
        config = replace(config, pixel_range=begun.pixel_range)
    notes: list[str] = []
    config = absolute_paths(replace(config, scale=_scale(config, begun, notes)))
    model = replace(student_spec(config, config.prune), num_classes=0)
    check_name(model, "transfer")
    sources = find_dense_sources(config, task)
    notes += sources.notes
    sample = survey(MapPart(cast(Any, sources.train)))
    notes += sample.notes(config.pixel_range)
    seed_global_generators(derive_seed(config.seed, "model"))
    backbone, weights = build_model(model, flag="transfer")
    spec = image_spec(backbone, config.img_size)
    try_images(backbone, spec, "--model", model)
    notes += pixels_in_no_patch(backbone, spec, "--model") + _shrunk(config, spec, sample)
    seed_global_generators(derive_seed(config.seed, "head"))
    network = build_dense(task, backbone, sources.class_names, spec)
    if config.freeze:
        network.freeze_backbone()
    if sources.val is None:
        notes.append("the data has no validation part, so the last epoch is delivered")
    channels, _, side = spec.input_size
    config = replace(
        config,
        img_size=side,
        in_chans=channels,
        pixel_range=sample.resolved(config.pixel_range),
        lr=config.lr if config.lr is not None else config.lr_base * config.batch_size / config.lr_base_size,
        warmup_epochs=_warmup_epochs(config, notes),
        validation_batch_size=config.validation_batch_size or config.batch_size,
        device=str(world.device),
    )
    return DenseRun(config, sources, spec, network, weights, sample, notes)


def _shrunk(config: RunConfig, spec: ImageSpec, sample: Survey) -> list[str]:
    """A note on pictures that are much larger than the input size, where nobody chose that."""
    side, (width, height) = max(spec.input_size[1:]), sample.size
    if config.img_size is not None or max(width, height) <= SHRUNK * side:
        return []
    return [
        f"--img-size: not given, so images are seen at the network's own {side} pixels; the pictures are "
        f"{width}×{height} (the median of {sample.looked}), so objects shrink to {side / max(width, height):.2g} of "
        "their size; a larger --img-size shows small ones, and costs more"
    ]


def _scale(config: RunConfig, begun: RunConfig | None, notes: list[str]) -> list[float]:
    """``--scale`` as it is used; folders of older versions have the default of classification, which meant AREAS."""
    of_classes = DataConfig().scale
    if begun is not None and begun.scale == of_classes and config.scale == list(AREAS):
        return of_classes
    if config.scale == of_classes and begun is None:
        low, high = AREAS
        notes.append(
            f"--scale {of_classes[0]:g} {of_classes[1]:g} is for images of one object: {low:g} {high:g} is used"
        )
        return list(AREAS)
    return config.scale


def _warmup_epochs(config: RunConfig, notes: list[str]) -> int:
    if config.warmup_epochs < config.epochs:
        return config.warmup_epochs
    warmup = config.epochs // 10
    notes.append(f"warm-up shortened from {config.warmup_epochs} to {warmup} of {config.epochs} epochs")
    return warmup
