"""Reads one batch: decode, augment each sample under its own seed, stack.

Shapes: B images a batch, C channels, H×W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from isometry.data.decoding import DecodeError, Reading, decode_errors, read_pixels
from isometry.data.splits import MapPart
from isometry.data.transforms import Transform
from isometry.errors import UserError
from isometry.seeding import derive_seed, seed_cpu_generators, seeded


@dataclass
class Batch:
    """Images uint8 (B,C,H,W), targets int64 (B,) (-1: no label), indices int64 (B,) in the part.

    ``indices`` are -1 for streams. ``unreadable`` names the images that were replaced by another one or left out.
    """

    images: torch.Tensor
    targets: torch.Tensor
    indices: torch.Tensor
    unreadable: list[str]

    def __len__(self) -> int:
        return len(self.targets)

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory; DataLoader calls this."""
        return type(self)(
            self.images.pin_memory(), self.targets.pin_memory(), self.indices.pin_memory(), self.unreadable
        )


class Request(NamedTuple):
    """Images ``indices`` of a part, at ``position``, position+1, ... of the global order of ``epoch``."""

    epoch: int
    position: int
    indices: list[int]


class BatchReader(Dataset[Batch | UserError]):
    """Maps a request to its batch. The batch depends on the request and ``seed`` alone, not on the process.

    With ``skip_bad_images`` an unreadable image is replaced by the next readable one or, without ``substitutes``, left
    out: in a split that is evaluated, an image that stands in for another would count twice.

    Errors are returned, not raised: DataLoader rewrites the messages of exceptions raised in workers.
    """

    def __init__(
        self,
        part: MapPart,
        transform: Transform,
        reading: Reading,
        *,
        seed: int,
        skip_bad_images: bool,
        substitutes: bool = True,
    ) -> None:
        self.part, self.transform, self.reading = part, transform, reading
        self.seed, self.skip_bad_images, self.substitutes = seed, skip_bad_images, substitutes

    def __getitem__(self, request: Request) -> Batch | UserError:
        examples, indices = [], []
        unreadable: list[str] = []
        try:
            # once a batch, not once a sample: saving and restoring costs as much as a small image
            with seeded(self.seed):
                for position, index in enumerate(request.indices, start=request.position):
                    sample_seed = derive_seed(self.seed, "augment", request.epoch, position)
                    example, used = self._readable(index, sample_seed, unreadable)
                    if used == index or self.substitutes:
                        examples.append(example)
                        indices.append(used)
        except UserError as error:
            return error
        return self.batch(examples, indices, unreadable, like=example)

    def example(self, image: Image.Image, target: Any) -> Any:
        """An image as it is read, and its target -> one example of a batch."""
        return self.transform(image), target

    def batch(self, examples: list[Any], indices: list[int], unreadable: list[str], like: Any) -> Batch:
        """Examples as one batch; of the shape of ``like`` if there are none."""
        pixels = stack([image for image, _ in examples], like[0].shape)
        targets = torch.tensor([target for _, target in examples]).long()
        return Batch(pixels, targets, torch.tensor(indices).long(), unreadable)

    def _readable(self, index: int, seed: int, unreadable: list[str]) -> tuple[Any, int]:
        """(example, index) of the first readable image at or after ``index``, wrapping around at the end."""
        for candidate in range(index, index + len(self.part)):
            candidate %= len(self.part)
            try:
                with decode_errors():
                    image, target = self.part.load(candidate)
                image = read_pixels(image, self.reading)
                seed_cpu_generators(seed)
                return self.example(image, target), candidate
            except DecodeError as error:
                where = self.part.where(candidate)
                if not self.skip_bad_images:
                    raise UserError(
                        f"cannot read {error.subject or f'the image {where}'} ({error}): "
                        "repair or remove it, or continue without it with --skip-bad-images"
                    ) from error
                unreadable.append(f"{where} ({error.subject})" if error.subject else where)
        raise UserError(
            f"none of the {len(self.part)} images can be read, e.g. {unreadable[0]}: check the files"
        )


def stack(images: list[torch.Tensor], shape: Sequence[int] | None = None) -> torch.Tensor:
    """Images uint8 (C,H,W) -> one batch (B,C,H,W); B may be 0 where ``shape`` (C,H,W) is given."""
    batch = torch.empty((len(images), *(shape or images[0].shape)), dtype=torch.uint8)
    if images:
        # on one thread, by NumPy: torch.stack's threads are 60 times slower when other processes use the cores
        np.stack([image.numpy() for image in images], out=batch.numpy())
    return batch
