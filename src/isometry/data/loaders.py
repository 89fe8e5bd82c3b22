"""Builds the loaders of a run from its sources and the model's ImageSpec."""

from dataclasses import dataclass

from isometry.config import DataConfig
from isometry.data.batch_reader import BatchReader
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

    def close(self) -> None:
        """Ends the worker processes."""
        for loader in (self.train, self.val, self.test):
            if loader is not None:
                loader.close()


def make_loaders(
    sources: Sources, config: DataConfig, spec: ImageSpec, *, seed: int, rank: int = 0, world_size: int = 1
) -> Loaders:
    """Builds this rank's loaders; ``config.batch_size`` is per rank. Decodes nothing and starts no process.

    Raises:
        UserError: fewer images than ranks, an unknown ``--aa`` policy, an unsupported number of channels.
    """
    return Loaders(
        train=_train_loader(sources.train, config, spec, seed, rank, world_size),
        val=_eval_loader(sources.val, config, spec, seed, rank, world_size),
        test=_eval_loader(sources.test, config, spec, seed, rank, world_size),
    )


def _train_loader(
    part: Part, config: DataConfig, spec: ImageSpec, seed: int, rank: int, world_size: int
) -> TrainLoader | TrainStream:
    transform, mode = train_transform(config, spec), image_mode(spec)
    if isinstance(part, StreamPart):
        workers = max(1, config.workers)
        stream = StreamReader(
            part, transform, mode, config.batch_size, seed=seed, rank=rank, ranks=world_size, workers=workers
        )
        return TrainStream(stream, workers=workers, pin_mem=config.pin_mem)
    requests = TrainRequests(
        len(part),
        config.batch_size,
        seed=seed,
        repeats=config.aug_repeats,
        rank=rank,
        world_size=world_size,
    )
    reader = BatchReader(part, transform, mode, seed=seed, skip_bad_images=config.skip_bad_images)
    return TrainLoader(reader, requests, workers=config.workers, pin_mem=config.pin_mem)


def _eval_loader(
    part: Part | None, config: DataConfig, spec: ImageSpec, seed: int, rank: int, world_size: int
) -> EvalLoader | EvalStream | None:
    if part is None:
        return None
    transform, mode = eval_transform(config, spec), image_mode(spec)
    batch_size = config.validation_batch_size or config.batch_size
    if isinstance(part, StreamPart):
        workers = max(1, config.workers)
        stream = StreamReader(
            part, transform, mode, batch_size, seed=seed, rank=rank, ranks=world_size, workers=workers
        )
        return EvalStream(stream, workers=workers, pin_mem=config.pin_mem)
    requests = EvalRequests(len(part), batch_size, rank=rank, world_size=world_size)
    reader = BatchReader(part, transform, mode, seed=seed, skip_bad_images=config.skip_bad_images)
    return EvalLoader(reader, requests, workers=config.workers, pin_mem=config.pin_mem)
