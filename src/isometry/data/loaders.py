"""Builds the loaders of a run from its sources and the model's ImageSpec."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from isometry.config import DataConfig
from isometry.data.batch_reader import BatchReader
from isometry.data.decoding import Reading
from isometry.data.image_spec import ImageSpec
from isometry.data.map_loader import EvalLoader, TrainLoader
from isometry.data.sampler import EvalRequests, TrainRequests
from isometry.data.sources import Sources
from isometry.data.splits import Part, StreamPart
from isometry.data.stream_loader import EvalStream, StreamReader, TrainStream
from isometry.data.transforms import eval_transform, image_mode, train_transform


@dataclass(frozen=True)
class Loaders:
    """A run's loaders; None for a split that the data set lacks."""

    train: TrainLoader | TrainStream
    val: EvalLoader | EvalStream | None
    test: EvalLoader | EvalStream | None

    @property
    def evaluation(self) -> tuple[EvalLoader | EvalStream | None, str]:
        """The split on which a finished network is evaluated, and its name: ``test`` if present, else ``val``."""
        return (self.test, "test") if self.test is not None else (self.val, "val")

    def prefetch_validation(self, steps_left: int) -> None:
        """Lets workers read the first validation batches, so that they are there when the epoch ends.

        Not before the last steps, whose batches the training workers have begun: two a worker.
        """
        if self.val is not None and steps_left <= 2 * max(1, self.train.workers):
            self.val.prefetch()

    def close(self) -> None:
        """Ends the worker processes."""
        for loader in (self.train, self.val, self.test):
            if loader is not None:
                loader.close()


def make_loaders(
    sources: Sources,
    config: DataConfig,
    spec: ImageSpec,
    training_spec: ImageSpec | None = None,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    epochs: int = 0,
) -> Loaders:
    """Builds this rank's loaders; ``config.batch_size`` is per rank. Decodes nothing and starts no process.

    Training images are those of ``training_spec``, where it is given. With ``epochs``, the number of a run's epochs,
    workers go on to the next epoch before it is asked for.

    Raises:
        UserError: fewer images than ranks, an unknown ``--aa`` policy, an unsupported number of channels.
    """
    share = {"rank": rank, "world_size": world_size}
    options: dict[str, Any] = {"workers": config.workers, "pin_mem": config.pin_mem}
    reading = Reading.of(config, image_mode(spec))
    read = partial(BatchReader, reading=reading, seed=seed, skip_bad_images=config.skip_bad_images)
    stream = partial(
        StreamReader, reading=reading, seed=seed, rank=rank, ranks=world_size, workers=max(1, config.workers)
    )

    def training(part: Part) -> TrainLoader | TrainStream:
        transform = train_transform(config, training_spec or spec)
        if isinstance(part, StreamPart):
            return TrainStream(stream(part, transform, batch_size=config.batch_size), pin_mem=config.pin_mem)
        requests = TrainRequests(
            len(part), config.batch_size, seed=seed, repeats=config.aug_repeats, epochs=epochs, **share
        )
        return TrainLoader(read(part, transform), requests, **options)

    def evaluation(part: Part | None) -> EvalLoader | EvalStream | None:
        if part is None:
            return None
        transform = eval_transform(config, spec)
        batch_size = config.validation_batch_size or config.batch_size
        if isinstance(part, StreamPart):
            return EvalStream(stream(part, transform, batch_size=batch_size), pin_mem=config.pin_mem)
        reader = read(part, transform, substitutes=False)
        return EvalLoader(reader, EvalRequests(len(part), batch_size, **share), **options)

    return Loaders(training(sources.train), evaluation(sources.val), evaluation(sources.test))
