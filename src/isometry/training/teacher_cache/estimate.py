"""Expected size of a teacher cache, before anything is written."""

import math
from dataclasses import dataclass

from safetensors.torch import save

from isometry.errors import counted
from isometry.files import format_bytes
from isometry.models.taps import Grid
from isometry.models.teacher import TeacherOutput
from isometry.training.teacher_cache.entry import LOGITS, pack


@dataclass(frozen=True)
class Estimate:
    """Bytes of an entry's logits, tokens and header; batches of an epoch and process; epochs of the run."""

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
        """Files of a process in the run."""
        return self.batches * self.epochs

    def describe(self, room: dict[str, int], processes: int) -> str:
        """The size of the run's entries, and how much fits in ``room``: bytes that each process may fill, by limit."""
        files = self.entries * processes
        size = f"logits {format_bytes(files * (self.logits + self.header))}"
        if self.tokens:
            size += f", tokens {format_bytes(files * self.tokens)}"
        size += f" for {counted(self.epochs, 'epoch')}"
        bound = min(room, key=lambda name: room[name])
        fitting = max(0, room[bound]) // self.entry
        if fitting >= self.entries:
            return f"{size}; fits {' and '.join(room)}"
        whole = fitting // self.batches
        first = (
            f"the first {whole} of {self.epochs} epochs fit"
            if whole
            else f"the first {fitting} of {self.batches} batches of an epoch fit"
        )
        return f"{size}; {first} {bound}, and after that the teacher runs"


def estimate(
    probe: TeacherOutput, grids: dict[int, Grid], *, batch_size: int, batches: int, epochs: int
) -> Estimate:
    """The size of a run's entries, from teacher outputs for any images in the run's precision.

    ``grids`` are rows and columns of each block's tokens, ``batches`` those of an epoch and process.
    """
    entry = {name: tensor.detach().cpu() for name, tensor in pack(probe, grids).items()}
    sizes = {name: tensor.nbytes for name, tensor in entry.items()}
    logits = sum(size for name, size in sizes.items() if name in LOGITS)
    header = len(save(entry, metadata=dict.fromkeys((*entry, "seen"), "0" * 8))) - sum(sizes.values())
    scale = batch_size / len(probe.logits)
    return Estimate(
        math.ceil(scale * logits), math.ceil(scale * (sum(sizes.values()) - logits)), header, batches, epochs
    )
