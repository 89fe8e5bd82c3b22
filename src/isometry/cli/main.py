"""The command line `isometry COMMAND ...`: dispatch, errors on one line, exit codes, signals."""

import errno
import logging
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from isometry import __version__
from isometry.cli.arguments import as_typed, leading, parse_given, recipe_named
from isometry.cli.commands import COMMANDS
from isometry.cli.help import Invocation, help_text
from isometry.cli.output import write
from isometry.cli.streams import give_up, lost
from isometry.config.paths import expand_path
from isometry.data.image_modes import quiet_decoders
from isometry.data.worker_failures import end_workers, worker_deaths
from isometry.errors import NO_HANDLES, UserError, did_you_mean, lacks_handles, reason
from isometry.report.terminal import plain
from isometry.training.out_of_memory import is_out_of_memory
from isometry.training.signals import Interrupted, sigterm_interrupts


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0, also after a SIGTERM once the run is saved; 2 for bad input, which is reported in one line; 128 + signal for a
    run that was stopped. If the reader of the output closes its pipe, the process exits with 1 and no message.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _run(words, Console()))


def guarded(action: Callable[[], None]) -> int:
    """Runs an action, reports its errors in one line on stderr, and returns the exit code (see :func:`main`)."""
    errors, again = Console(stderr=True), lambda: "give the command again"
    _quiet_libraries()
    try:
        with sigterm_interrupts(again), worker_deaths(again):
            action()
    except UserError as error:
        _tell(errors, error, "bold red")
        return 2
    except OSError as error:
        if lacks_handles(error):
            _tell(errors, NO_HANDLES)
            return 2
        if not lost(error):
            raise
        give_up(sys.stdout)
        why = "the disk is full; make room" if error.errno == errno.ENOSPC else reason(error)
        _tell(errors, f"the output can't be written: {why}")
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        _tell(errors, "out of memory; give a smaller batch, or another --device")
        return 2
    except Interrupted as stop:
        _tell(errors, stop)
        return stop.exit_code
    except KeyboardInterrupt:
        _tell(errors, "stopped at once; the last save is kept, go on with --resume")
        return 130
    finally:
        end_workers()
    return 0


def _run(words: list[str], console: Console) -> None:
    if not words or words[0] in ("-h", "--help"):
        write(console, usage())
        return
    if words[0] == "--version":
        write(console, f"isometry {__version__}\n")
        return
    name, *rest = words
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS, f"there are {', '.join(COMMANDS)}")
        raise UserError(f"{name}: no such command; {hint}")
    command = COMMANDS[name]
    if {"-h", "--help"} & set(rest):
        write(console, help_text(name, command))
        return
    if sys.flags.optimize:
        raise UserError(
            f"{name}: Python runs with -O or PYTHONOPTIMIZE, which leaves out the checks that timm and torch make of "
            "options; run it without"
        )
    names, options = leading(rest) if command.names else ([], rest)
    names = [*map(expand_path, names)]
    if not _as_many(names, command.names.split()):
        raise UserError(f"{name}: expected {command.names} first, e.g. {command.examples[0]}")
    try:
        kind: Any = command.kind
        config, given = parse_given(kind, options)
        command.action(Invocation(names, config, recipe_named(options), console, given))
    except UserError as error:
        raise UserError(as_typed(str(error), options)) from error


def _as_many(names: list[str], expected: list[str]) -> bool:
    required = [word for word in expected if word[0].isalnum()]
    most = math.inf if any("..." in word for word in expected) else len(expected)
    return len(required) <= len(names) <= most


def usage() -> str:
    """The commands, one on a line."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{command.about}" for name, command in COMMANDS.items()]
    closing = "isometry COMMAND --help shows examples and options."
    return "\n".join(["usage: isometry COMMAND [OPTIONS]", "", *lines, "", closing, ""])


def _tell(errors: Console, message: object, style: str = "") -> None:
    """Prints a message in one line; the exit code says it too where nobody can read it."""
    line = Text.assemble(("isometry:", style), " ", plain(" ".join(str(message).split())))
    try:
        errors.print(line, soft_wrap=True)
    except OSError:
        give_up(sys.stderr)


def _quiet_libraries() -> None:
    """Silences notes of libraries, which would break the one-line errors and the progress bar."""
    for name in ("timm", "huggingface_hub", "torch.distributed", "torch.utils.cpp_extension", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"timm\..*")
    # A name in a picture that its font can't write.
    warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
    quiet_decoders()
