"""Batches of annotated images and their loaders; the order and every augmentation are functions of (seed, epoch,
position), as in classification.

Shapes: B images a batch, C channels, H×W pixels, M boxes of an image.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, cast

import numpy as np
import torch

from isometry.config import DataConfig
from isometry.data.batch_reader import Batch, BatchReader, stack
from isometry.data.decoding import Reading
from isometry.data.dense.annotations import Annotation, Boxes, DenseImages
from isometry.data.dense.placement import Placement
from isometry.data.dense.sources import DenseSources, dense_survey
from isometry.data.dense.transforms import DenseExample, EvalTransform, TrainTransform
from isometry.data.image_spec import ImageSpec
from isometry.data.map_loader import EvalLoader, TrainLoader
from isometry.data.option_checks import AUTO
from isometry.data.sampler import EvalRequests, TrainRequests
from isometry.data.splits import UNLABELLED
from isometry.data.transforms import image_mode


@dataclass
class DenseBatch(Batch):
    """Images uint8 (B,C,H,W) of the network's input size; ``indices`` int64 (B,) in the part.

    ``targets`` are the masks uint8 (B,H,W), or UNLABELLED (B,) where there are boxes; both are read as
    :attr:`annotations`. ``placements`` say where each image lies in its input; ``truths`` are the annotations in pixels
    of the images themselves, empty in training.
    """

    boxes: list[Boxes] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    truths: list[Annotation] = field(default_factory=list)

    @property
    def annotations(self) -> list[dict[str, torch.Tensor]] | torch.Tensor:
        """In pixels of the input, on the host: masks int64 (B,H,W), IGNORED where there is no class; or of each image
        ``boxes`` float32 (M,4), ``labels`` int64 (M,), ``crowd`` bool (M,) and ``area`` float32 (M,)."""
        if self.targets.ndim == 3:
            return self.targets.long()
        return [box_tensors(each) for each in self.boxes]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of each image, upright, before it was resized."""
        return [placement.size for placement in self.placements]

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory; DataLoader calls this."""
        names = ("images", "targets", "indices")
        return replace(self, **{name: getattr(self, name).pin_memory() for name in names})


def box_tensors(boxes: Boxes) -> dict[str, torch.Tensor]:
    """Boxes of an image as tensors: ``boxes``, ``labels``, ``crowd`` and ``area``."""
    return {
        "boxes": torch.from_numpy(boxes.xyxy),
        "labels": torch.from_numpy(boxes.labels),
        "crowd": torch.from_numpy(boxes.crowd),
        "area": torch.from_numpy(boxes.areas),
    }


class DenseReader(BatchReader):
    """Maps a request to its :class:`DenseBatch`, see :class:`isometry.data.batch_reader.BatchReader`."""

    def example(self, image: Any, target: Any) -> DenseExample:
        """An image as it is read, and its annotation -> what the network gets."""
        transform: Any = self.transform
        return transform(image, target)

    def batch(
        self, examples: list[DenseExample], indices: list[int], unreadable: list[str], like: DenseExample
    ) -> DenseBatch:
        """Examples as one batch; of the shape of ``like`` if there are none."""
        boxes = [each.annotation for each in examples if isinstance(each.annotation, Boxes)]
        masks = [each.annotation for each in examples if isinstance(each.annotation, np.ndarray)]
        if isinstance(like.annotation, Boxes):
            targets = torch.full((len(examples),), UNLABELLED)
        else:
            targets = torch.from_numpy(np.stack(masks or [like.annotation])[: len(masks)])
        return DenseBatch(
            stack([each.pixels for each in examples], like.pixels.shape),
            targets,
            torch.tensor(indices).long(),
            unreadable,
            boxes,
            [each.placement for each in examples],
            [each.truth for each in examples if each.truth is not None],
        )


class DenseTraining(Protocol):
    """Epochs of augmented batches, a :class:`isometry.data.map_loader.TrainLoader`."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[DenseBatch]:
        """The batches of an epoch, from image ``start`` of its order on."""

    def close(self) -> None:
        """Ends the worker processes."""


class DenseEvaluation(Protocol):
    """All images once, in order, a :class:`isometry.data.map_loader.EvalLoader`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[DenseBatch]: ...

    def read(self, indices: list[int]) -> DenseBatch:
        """Some images of the part, read by this process."""

    def prefetch(self) -> None:
        """Lets the workers read the first batches now."""

    def close(self) -> None:
        """Ends the worker processes."""


@dataclass(frozen=True)
class DenseLoaders:
    """The loaders of a dense task; None for a split that the data set lacks."""

    train: DenseTraining
    val: DenseEvaluation | None
    test: DenseEvaluation | None

    @property
    def evaluation(self) -> tuple[DenseEvaluation | None, str]:
        """The split on which a finished network is evaluated, and its name: ``test`` if present, else ``val``."""
        return (self.test, "test") if self.test is not None else (self.val, "val")

    def close(self) -> None:
        """Ends the worker processes."""
        for loader in (self.train, self.val, self.test):
            if loader is not None:
                loader.close()


def dense_loaders(
    sources: DenseSources,
    config: DataConfig,
    spec: ImageSpec,
    seed: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    epochs: int = 0,
) -> DenseLoaders:
    """Builds the loaders; ``config.batch_size`` is per process. Starts no process; decodes no image, but for a sample
    with ``--pixel-range auto``.

    With ``epochs``, the number of a run's epochs, workers go on to the next epoch before it is asked for.

    Raises:
        UserError: fewer images than ranks, an unsupported number of channels, ``--pixel-range auto`` without a range.
    """
    share = {"rank": rank, "world_size": world_size}
    options: dict[str, Any] = {"workers": config.workers, "pin_mem": config.pin_mem}
    if config.pixel_range == AUTO:
        config = replace(config, pixel_range=dense_survey(sources).resolved(AUTO))
    reading = Reading.of(config, image_mode(spec))

    def reader(images: DenseImages, transform: EvalTransform, substitutes: bool) -> DenseReader:
        return DenseReader(
            cast(Any, images),
            cast(Any, transform),
            reading,
            seed=seed,
            skip_bad_images=config.skip_bad_images,
            substitutes=substitutes,
        )

    def evaluation(images: DenseImages | None) -> DenseEvaluation | None:
        if images is None:
            return None
        batch_size = config.validation_batch_size or config.batch_size
        requests = EvalRequests(len(images), batch_size, **share)
        return cast(
            DenseEvaluation, EvalLoader(reader(images, EvalTransform(spec), False), requests, **options)
        )

    requests = TrainRequests(
        len(sources.train), config.batch_size, seed=seed, repeats=config.aug_repeats, epochs=epochs, **share
    )
    train = TrainLoader(reader(sources.train, TrainTransform(config, spec), True), requests, **options)
    return DenseLoaders(cast(DenseTraining, train), evaluation(sources.val), evaluation(sources.test))
