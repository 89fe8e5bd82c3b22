"""How processes share a batch: the same images a step, however many they are, also when a run goes on with others."""

from dataclasses import replace

from isometry.config import RunConfig
from isometry.distributed import World
from isometry.errors import UserError
from isometry.recipes import read_saved
from isometry.training.assemble import Run, assemble
from isometry.training.checkpoint.run_folder import config_path


def assemble_shared(config: RunConfig, world: World) -> Run:
    """:func:`isometry.training.assemble.assemble`, with the batch shared and notes on how.

    Raises:
        UserError: bad input, or a batch that can't be shared by so many processes.
    """
    settled, notes = share_batch(config, world)
    run = assemble(settled, world)
    run.notes[:0] = notes
    return run


def share_batch(config: RunConfig, world: World) -> tuple[RunConfig, list[str]]:
    """The config with this run's global batch and each process's share of it, and notes for the person.

    A run that goes on keeps the global batch that it was begun with, and with it the order of images, the steps of an
    epoch and the learning rate.

    Raises:
        UserError: the batch can't be shared by so many processes.
    """
    saved = _saved(config)
    whole = config.global_batch_size
    if whole is None and saved is not None and config.batch_size == saved.batch_size:
        whole = saved.global_batch_size
    if whole is None:
        whole = config.batch_size * world.size
    if whole < 1:
        # The rest of the options is checked elsewhere, and so are these two.
        return config, []
    share, left = divmod(whole, world.size)
    if share < 1 or (left and saved is None):
        raise UserError(
            f"--global-batch-size {whole}: can't be shared by {world.size} processes; give a multiple of {world.size}"
        )
    settled = replace(config, batch_size=share, global_batch_size=whole)
    if saved is None:
        return settled, []
    settled.validation_batch_size = config.validation_batch_size or saved.validation_batch_size
    if share == saved.batch_size:
        return settled, []
    begun = whole // saved.batch_size
    uneven = f"; {left} images a batch fewer than before, since {whole} can't be shared" if left else ""
    note = (
        f"begun with {_processes(begun)}, goes on with {_processes(world.size)}: each takes {share} images a batch "
        f"instead of {saved.batch_size}, in the same order{uneven}"
    )
    return settled, [note]


def _saved(config: RunConfig) -> RunConfig | None:
    path = config_path(config.out)
    return read_saved(path)[0] if config.resume and path.is_file() else None


def _processes(number: int) -> str:
    return f"{number} process{'es' if number > 1 else ''}"
