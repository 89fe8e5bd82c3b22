"""How much a teacher's answers take on disk, before any is written."""

import math
from dataclasses import dataclass

from safetensors.torch import save

from isometry.files import format_bytes
from isometry.models.taps import Grid
from isometry.models.teacher import TeacherOutput
from isometry.training.teacher_cache.entry import LOGITS, pack


@dataclass(frozen=True)
class Estimate:
    """Bytes of an entry's logits, tokens and header; batches an epoch and process; epochs of the whole run."""

    logits: int
    tokens: int
    header: int
    batches: int
    epochs: int

    @property
    def entry(self) -> int:
        """Bytes of one file."""
        return self.logits + self.tokens + self.header

    @property
    def entries(self) -> int:
        """Files of a process in the whole run."""
        return self.batches * self.epochs

    def words(self, room: dict[str, int], processes: int) -> str:
        """What the whole run takes, and how much of it fits.

        Args:
            room: bytes that a process may fill, by what sets the bound, in words.
            processes: how many fill as much.
        """
        files = self.entries * processes
        takes = f"logits {format_bytes(files * (self.logits + self.header))}"
        if self.tokens:
            takes += f", tokens {format_bytes(files * self.tokens)}"
        takes += f" for {self.epochs} epochs"
        bound = min(room, key=lambda name: room[name])
        fitting = max(0, room[bound]) // self.entry
        if fitting >= self.entries:
            return f"{takes}; fits {' and '.join(room)}"
        whole = fitting // self.batches
        first = (
            f"the first {whole} of {self.epochs} epochs fit"
            if whole
            else f"the first {fitting} of {self.batches} batches of an epoch fit"
        )
        return f"{takes}; {first} {bound}, and after that the teacher is asked"


def estimate(
    probe: TeacherOutput, grids: dict[int, Grid], *, batch_size: int, batches: int, epochs: int
) -> Estimate:
    """What a run stores, from what the teacher says about an image or two.

    Args:
        probe: the teacher's answer to any images, in the run's precision.
        grids: rows and columns of each block's tokens.
        batch_size: images a batch and process.
        batches: batches an epoch and process.
        epochs: of the whole run.
    """
    entry = {name: tensor.detach().cpu() for name, tensor in pack(probe, grids).items()}
    sizes = {name: tensor.nbytes for name, tensor in entry.items()}
    logits = sum(size for name, size in sizes.items() if name in LOGITS)
    header = len(save(entry, metadata=dict.fromkeys((*entry, "seen"), "0" * 8))) - sum(sizes.values())
    scale = batch_size / len(probe.logits)
    return Estimate(
        math.ceil(scale * logits), math.ceil(scale * (sum(sizes.values()) - logits)), header, batches, epochs
    )
