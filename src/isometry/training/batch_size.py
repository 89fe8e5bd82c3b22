"""How processes share a batch: the same images in a step for any number of processes, also when a run resumes."""

from dataclasses import replace

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from isometry.config import RunConfig
from isometry.distributed import World
from isometry.errors import UserError


def share_batch(
    config: RunConfig, world: World, saved: RunConfig | None = None
) -> tuple[RunConfig, list[str]]:
    """The config with the global batch size and that of each process, and notes for the user.

    A run that resumes, and was begun as ``saved``, keeps its global batch size, and with it the order of images, the
    steps of an epoch and the learning rate.

    Raises:
        UserError: the batch can't be shared by so many processes.
    """
    total = config.global_batch_size
    if total is None and saved is not None and config.batch_size == saved.batch_size:
        total = saved.global_batch_size
    if total is None:
        total = config.batch_size * world.size
    if total < 1:
        # Refused with the other options of data.
        return config, []
    share, rest = divmod(total, world.size)
    if share < 1 or (rest and saved is None):
        raise UserError(
            f"--global-batch-size {total}: can't be shared by {world.size} processes; give a multiple of {world.size}"
        )
    shared = replace(config, batch_size=share, global_batch_size=total)
    if saved is None:
        return shared, []
    shared.validation_batch_size = config.validation_batch_size or saved.validation_batch_size
    if share == saved.batch_size:
        return shared, []
    before = total // saved.batch_size
    uneven = f"; {rest} images of a batch are left out, since {total} can't be shared equally" if rest else ""
    note = (
        f"begun with {_processes(before)}, resumed with {_processes(world.size)}: the batch size of each is {share} "
        f"instead of {saved.batch_size}, in the same order{uneven}"
    )
    return shared, [note]


def check_batch_norms(student: nn.Module, input_size: tuple[int, int, int], batch_size: int) -> list[str]:
    """Whether norms can take statistics of a batch of one image; notes for the user.

    Raises:
        UserError: they can't, where an image has one value a channel.
    """
    if batch_size > 1 or not any(isinstance(module, _BatchNorm) for module in student.modules()):
        return []
    was_training = student.training
    state = {
        name: torch.empty_like(x, device="meta") for name, x in student.state_dict(keep_vars=True).items()
    }
    try:
        with torch.no_grad():
            functional_call(student.train(), state, (torch.empty(1, *input_size, device="meta"),))
    except ValueError as error:
        raise UserError(
            "--batch-size 1: the student has norms over the batch, and one image has one value a channel there; "
            "give at least 2"
        ) from error
    except (RuntimeError, TypeError):
        # Architectures that need real tensors; they get the note.
        pass
    finally:
        student.train(was_training)
    return [
        "--batch-size 1: the student's batch norms take statistics of one image, also with --grad-accum-steps"
    ]


def _processes(number: int) -> str:
    return f"{number} process{'es' if number > 1 else ''}"
