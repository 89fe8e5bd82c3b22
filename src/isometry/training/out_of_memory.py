"""A device that runs out of memory: one line with what a step needs and what would save how much of it."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from isometry.errors import UserError
from isometry.files import format_bytes
from isometry.training.loop import Trainer
from isometry.training.parallelize import uncompiled
from isometry.training.run_memory import memory, savings

SIGNS = ("out of memory", "can't allocate memory", "alloc_failed")
"""What messages of torch's allocators and of its libraries contain, in lower case, where they are RuntimeErrors."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that a device, or the process, could not get the memory that it asked for."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


@contextmanager
def memory_advice(trainer: Trainer, advice: Callable[[], str]) -> Iterator[None]:
    """Turns a lack of memory while ``trainer`` works into a UserError that says what would help, and ``advice()``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # The tensors of the step that failed, which the estimate needs the room of.
        traceback.clear_frames(error.__traceback__)
        raise UserError(f"out of memory on {trainer.world.device} {_place(trainer)}; {advice()}") from error


def _place(trainer: Trainer) -> str:
    # Whatever is measured, in an epoch or at the end, is measured in eval mode.
    if not trainer.run.student.training:
        return "while networks were measured: a smaller --validation-batch-size takes less"
    return f"in step {trainer.position + 1} of {trainer.total_steps}{_estimate(trainer)}"


def _estimate(trainer: Trainer) -> str:
    """What a step needs, and what would save memory."""
    what = ": a smaller -b with more --grad-accum-steps, --grad-checkpointing and --teacher-dtype bfloat16 save memory"
    if trainer.world.size > 1:
        # The others wait for this process, and can't take part in a step of its own.
        return f"{what} (isometry check says how much)"
    trainer.objective.zero_grad(set_to_none=True)
    if trainer.world.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        with uncompiled():
            needed = memory(trainer.run, trainer.world)
            found = [
                (name, saved) for name, saved in savings(trainer.run, trainer.world, needed) if saved > 0
            ]
    except (RuntimeError, MemoryError):
        # Not even a few images fit.
        return what
    helps = ", ".join(
        f"{name} {'would save ' if first else ''}{format_bytes(saved)}"
        for first, (name, saved) in zip([True, *[False] * len(found)], found, strict=False)
    )
    return f", which takes about {format_bytes(needed.total)}: {helps}"
