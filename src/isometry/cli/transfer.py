"""`isometry transfer`: a finished network learns another task: classes of other images, boxes, or masks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console

from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.training.results import RunResult
from isometry.training.transfer.classify import fine_tune
from isometry.training.transfer.options import named_network, transfer_config


@dataclass
class TransferConfig:
    """Task, data, training; what is not given has the task's own default."""

    task: Literal["classify", "detect", "segment"] | None = None
    """Classes of images, boxes of objects, or the class of each pixel."""
    data_dir: str | None = None
    """Folder of the data: boxes in COCO's JSON or YOLO's text files, images/ and masks/, or a folder for each class."""
    dataset: str = ""
    """`digit-scenes` (digits on a canvas, with boxes and masks), or for classes as in training."""
    out: str = ""
    """Output folder."""
    freeze: bool = False
    """Train the head alone: the weights of the backbone stay as they are, to the last bit."""
    random_weights: bool = False
    """Start from random weights of the same architecture, for comparison."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of timm.create_model for a timm name, e.g. `depth=6 embed_dim=192`."""
    img_size: int | None = None
    """Input image size, pixels; the network's own if not given."""
    epochs: int | None = None
    """Epochs, warm-up included."""
    batch_size: int | None = None
    """Batch size."""
    lr: float | None = None
    """Learning rate at its peak."""
    weight_decay: float | None = None
    """Weight decay; not applied to biases and norms."""
    warmup_epochs: int | None = None
    """Warm-up epochs, part of --epochs."""
    hflip: float | None = None
    """Horizontal flip probability; 0.5, and 0 for digits, if not given."""
    scale: list[float] | None = None
    """Random crop: range of the area."""
    val_fraction: float | None = None
    """Fraction of the images used for validation if the data has no such part."""
    skip_bad_images: bool = False
    """Replace unreadable training images by their neighbours, leave others out, and name them, instead of stopping."""
    exif: Literal["upright", "ignore"] | None = None
    """Turn photographs upright by their EXIF orientation, or read them as they are stored."""
    pixel_range: str | None = None
    """Black and white of grey images of more than 8 bits, e.g. 0,4095, or `auto`."""
    workers: int | None = None
    """Data loading worker processes of training, and as many of validation (0: the process itself loads)."""
    seed: int | None = None
    """Random seed."""
    device: str = ""
    """cpu, cuda, cuda:1, ...; a GPU if available if not given."""
    log: list[Literal["tensorboard", "wandb"]] = field(default_factory=list)
    """Log scalars to tensorboard, wandb (Weights & Biases), or both."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Any other option of a run, e.g. `--overrides opt=sgd momentum=0.9`."""
    allow_commands: bool = False
    """Allow an address as --data-dir (pipe:, https:, ...), which starts a program."""
    resume: bool = False
    """Resume the run in --out."""


OWN = frozenset({"overrides", "random_weights"})
"""Options that a run does not have."""


def transfer(name: str, options: TransferConfig, console: Console) -> RunResult:
    """Trains the network in a folder, or of a timm name, for a task, and returns the finished run.

    Raises:
        UserError: no task given, no such network; or as :func:`isometry.training.transfer.options.transfer_config` and
            the run.
    """
    if options.task is None:
        raise UserError("--task: not given; give classify, detect or segment")
    given = {key: value for key, value in vars(options).items() if key not in OWN and value is not None}
    config = planned_transfer(name, given, options.overrides, random_weights=options.random_weights)
    return run_transfer(config, console)


def planned_transfer(
    name: str, given: Mapping[str, Any], overrides: Mapping[str, Any], *, random_weights: bool = False
) -> RunConfig:
    """The run that trains the network in a folder, or of a timm name, for ``given["task"]``; what is not ``given`` has
    the task's own default.

    Raises:
        UserError: as :func:`transfer`.
    """
    network = named_network(name, random_weights=random_weights)
    arguments = network.get("model_kwargs", {}) | given.get("model_kwargs", {})
    return transfer_config(network, {**given, "model_kwargs": arguments}, overrides)


def run_transfer(config: RunConfig, console: Console, label: str = "") -> RunResult:
    """Runs a config of any task to its end; ``label`` and errors as :func:`isometry.training.run.execute`."""
    if config.task == "classify":
        return fine_tune(config, console, label)
    # torchvision's detectors take a while to load.
    from isometry.training.transfer.run import execute_dense

    return execute_dense(config, console, label)
