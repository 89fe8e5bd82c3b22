"""A finished network by name (a run's folder, a saved network's folder, or a timm name), and images to evaluate it
on."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import nn

from isometry.config import DataConfig, RunConfig
from isometry.config.paths import ADDRESS, absolute_paths, expand_path
from isometry.data import ImageSpec, Preprocess, Sources, find_sources, make_loaders, without_labels
from isometry.data.addresses import is_remote
from isometry.data.inventory import other_classes
from isometry.data.option_checks import AUTO
from isometry.distributed import World
from isometry.errors import UserError, counted
from isometry.evaluation.variants import EvaluationImages
from isometry.losses import find_loss
from isometry.losses.base import parse_terms
from isometry.models.build import build_model
from isometry.models.image_reading import saved_reading
from isometry.models.spec import ModelSpec, label_names
from isometry.prune.saving import load_network
from isometry.recipes import read_saved


@dataclass
class ImagesConfig:
    """The images; those of the run by default."""

    data_dir: str | None = None
    """Image folder; the run's own images if neither this nor --dataset is given."""
    dataset: str = ""
    """`digits`, or a scheme of timm, as in training."""
    class_map: str | None = None
    """File that numbers the classes; that of the run if not given."""
    decode: Literal["scaled", "full"] | None = None
    """Decode large JPEGs at a reduced scale, or in full; as the run did if not given."""
    exif: Literal["upright", "ignore"] | None = None
    """Turn photographs upright by their EXIF orientation, or not; as the run did if not given."""
    pixel_range: str | None = None
    """Black and white of grey images of more than 8 bits, e.g. 0,4095; those of the run if not given."""
    device: str = ""
    """cpu, cuda, cuda:1, ...; a GPU if there is one."""
    allow_commands: bool = False
    """Allow an address as --data-dir (pipe:, https:, ...), which starts a program."""


@dataclass(frozen=True)
class SavedNetwork:
    """A network and its origin."""

    name: str
    """As given on the command line."""
    network: nn.Module
    """In eval mode, on the CPU; a pruned one with multiplying gates or without its cut channels."""
    folder: Path | None = None
    """Of its config.json and weights; None for a timm name."""
    run: Path | None = None
    """Of the run that made it, if its config.yaml is there."""
    config: RunConfig | None = None
    notes: list[str] = field(default_factory=list)
    """For the output, such as that the weights are random."""

    @property
    def place(self) -> Path:
        """The folder for results about it.

        Raises:
            UserError: it has no folder.
        """
        if self.run is None and self.folder is None:
            raise UserError(
                f"{self.name}: is a timm name and has no folder to write to; give a file with --out"
            )
        return self.run or self.folder  # type: ignore[return-value]


def open_folder(name: str, *, command: str) -> SavedNetwork:
    """The network in a folder: of a run, or of a saved network (a run's ``student``); ``local-dir:`` may stand before.

    Raises:
        UserError: no such folder, or no whole network in it.
    """
    folder = Path(name.removeprefix("local-dir:"))
    if not folder.is_dir():
        raise UserError(f"{command} {folder}: no such folder; give that of a run, or of a saved network")
    student = folder / "student" if (folder / "student").is_dir() else folder
    run = student.absolute().parent if student.absolute().name == "student" else folder
    network, config = load_network(student, flag=command), run / "config.yaml"
    if not config.is_file():
        return SavedNetwork(name, network, student)
    saved = read_saved(config)[0]
    return SavedNetwork(name, network, student, run, saved, _relative_images(saved, config))


def _relative_images(saved: RunConfig, config: Path) -> list[str]:
    """A note that an older version saved a relative path of the images, if it did."""
    if Path(expand_path(saved.data_dir or "/")).is_absolute():
        return []
    now = absolute_paths(saved).data_dir
    return [f"{config}: data_dir {saved.data_dir} is relative, and taken from the present folder: {now}"]


def names_folder(name: str) -> bool:
    """Whether a name means a folder, and none of timm's models: one with a slash does, even if there is none."""
    return (
        name.startswith("local-dir:")
        or Path(name).is_dir()
        or ("/" in name and not name.startswith("hf-hub:"))
    )


def open_named(name: str, *, command: str) -> SavedNetwork:
    """:func:`open_folder` for a folder, else timm's model of that name, with timm's weights if they are available.

    Raises:
        UserError: neither a folder nor a timm name.
    """
    if names_folder(name):
        return open_folder(name, command=command)
    notes = []
    try:
        network, _ = build_model(ModelSpec(name, weights="pretrained"), flag=command)
    except UserError as error:
        network, _ = build_model(ModelSpec(name), flag=command)
        notes.append(f"{name}: random weights, so accuracy is not measured ({error})")
    return SavedNetwork(name, network.eval(), notes=notes)


def reading_config(saved: SavedNetwork, options: ImagesConfig) -> RunConfig:
    """The run's config, or what the network's ``config.json`` says of it, with the options on how files are read if
    they are given.

    What a folder says is only read: it may have been downloaded, so its images are never fetched.

    Raises:
        UserError: a range of pixels that only a run can find, or an invalid one in ``config.json``.
    """
    config = saved.config or _config_of_files(saved)
    if options.pixel_range == AUTO:
        raise UserError(
            "--pixel-range auto: is for training, which keeps the range that it finds; give LOW,HIGH"
        )
    return replace(
        config,
        decode=options.decode or config.decode,
        exif=options.exif or config.exif,
        pixel_range=options.pixel_range or config.pixel_range,
        class_map=options.class_map or config.class_map,
        dataset_download=False,
    )


def _config_of_files(saved: SavedNetwork) -> RunConfig:
    name = saved.name if saved.folder is None else f"local-dir:{saved.folder}"
    told = saved_reading(ModelSpec(name))
    return replace(RunConfig(), **told) if told else RunConfig()


def images_named(saved: SavedNetwork, options: ImagesConfig, *, command: str) -> RunConfig:
    """:func:`reading_config`, with the options' images if they are given.

    Raises:
        UserError: neither the options nor a run name images, or the run's are gone or come from elsewhere, or its
            class map is gone.
    """
    config = reading_config(saved, options)
    if config.class_map and Path(config.class_map).is_absolute() and not Path(config.class_map).exists():
        raise UserError(
            f"{command} {saved.name}: the class map is gone ({config.class_map}); give another with --class-map"
        )
    if options.data_dir is not None or options.dataset:
        allowed = options.allow_commands
        return replace(config, data_dir=options.data_dir, dataset=options.dataset, allow_commands=allowed)
    if saved.config is None:
        raise UserError(
            f"{command} {saved.name}: has no config.yaml that names its training images; "
            "give images with --data-dir or --dataset"
        )
    if is_remote(config.dataset):
        raise UserError(
            f"{command} {saved.name}: its config.yaml names images that a library may fetch; if you trust it, "
            f"name them here: --dataset {config.dataset}"
        )
    config = absolute_paths(config)
    if config.data_dir and not ADDRESS.match(config.data_dir) and not Path(config.data_dir).exists():
        raise UserError(
            f"{command} {saved.name}: the run's images are gone ({config.data_dir}); give them with --data-dir"
        )
    return config


def sources_for(saved: SavedNetwork, config: DataConfig, *, command: str) -> Sources:
    """The images that ``config`` names; a test or validation split is required.

    Raises:
        UserError: they have other classes than the network, or no test or validation split.
    """
    sources = find_sources(config) if saved.network.num_classes else without_labels(find_sources(config))
    check_sources(saved, sources, command=command)
    return sources


def check_sources(saved: SavedNetwork, sources: Sources, *, command: str) -> None:
    """Raises UserError for images as in :func:`sources_for`."""
    if why := other_classes_than(saved.network, sources):
        raise UserError(f"{command} {saved.name}: {why}; give matching images with --data-dir or --dataset")
    if sources.test is None and sources.val is None:
        raise UserError(
            f"{command} {saved.name}: the data has no test or validation split; give other images with --data-dir"
        )


def other_classes_than(network: nn.Module, sources: Sources) -> str:
    """How the data's classes differ from those of a network, by name where both have names; empty if they don't."""
    classes = int(network.num_classes)  # type: ignore[arg-type]
    theirs, ours = label_names(network) or [], sources.class_names or []
    if sources.num_classes not in (None, classes):
        changes = f", which {other_classes(theirs, ours)}" if theirs and ours else ""
        return f"the network has {counted(classes, 'class', 'classes')} and the data {sources.num_classes}{changes}"
    # As many classes in another order would make every figure wrong.
    if len(theirs) == len(ours):
        for index, (their, our) in enumerate(zip(theirs, ours, strict=True)):
            if their != our:
                return f"the network's class {index} is {their!r} and the data's is {our!r}"
    return ""


@contextmanager
def evaluation_images(
    network: nn.Module, sources: Sources, spec: ImageSpec, config: DataConfig, world: World
) -> Iterator[EvaluationImages]:
    """The images of the evaluation split (test, else validation), for the network."""
    classes = int(network.num_classes) if sources.labelled else None  # type: ignore[arg-type]
    with closing(make_loaders(sources, config, spec, seed=0)) as loaders:
        part, name = loaders.evaluation
        assert part is not None
        preprocess = Preprocess(config, spec, classes, world.device)
        yield EvaluationImages(lambda: part, preprocess, spec, name, sources.labelled)


def head_was_trained(saved: SavedNetwork) -> bool:
    """Whether the network's classifier was trained, according to its run's config."""
    config = saved.config
    if config is None or config.pretrained or config.initial_checkpoint:
        return True
    if config.model.startswith(("local-dir:", "hf-hub:")):
        return True
    asked = {name for term in parse_terms(config.losses) for name in find_loss(term.name).inputs}
    return bool(asked & {"student_logits", "student_distilled_logits"})
