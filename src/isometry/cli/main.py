"""The command line: `isometry COMMAND ...`; errors in one line, exit codes, signals."""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from rich.console import Console
from rich.markup import escape

from isometry import __version__
from isometry.cli.commands import COMMANDS
from isometry.cli.help import help_text
from isometry.data.image_modes import quiet_decoders
from isometry.data.worker_failures import end_workers, worker_deaths
from isometry.errors import UserError, printable
from isometry.training.signals import Interrupted, sigterm_interrupts


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the exit code is 0, 2 for bad input (said in one line), 128 + signal when stopped.

    A run that a scheduler's SIGTERM stopped, and that has saved where it stood, leaves 0 as well.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _run(words, Console()))


def guarded(action: Callable[[], None]) -> int:
    """Runs an action; its errors become one line on stderr, and the exit code is returned (see :func:`main`)."""
    complaints = Console(stderr=True)
    _quiet_libraries()
    try:
        with sigterm_interrupts(), worker_deaths(lambda: "give the command again"):
            action()
    except UserError as error:
        complaints.print(f"[bold red]isometry:[/] {_plain(error)}", highlight=False, soft_wrap=True)
        return 2
    except Interrupted as stop:
        complaints.print(f"isometry: {_plain(stop)}", highlight=False, soft_wrap=True)
        return stop.exit_code
    except KeyboardInterrupt:
        complaints.print(
            "isometry: stopped at once; the last save is kept, go on with --resume", soft_wrap=True
        )
        return 130
    finally:
        end_workers()
    return 0


def _run(words: list[str], console: Console) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return
    if words[0] == "--version":
        print(f"isometry {__version__}")
        return
    command = words[0]
    if command not in COMMANDS:
        near = get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UserError(f"{command}: no such command; {hint}")
    chosen = COMMANDS[command]
    if {"-h", "--help"} & set(words[1:]):
        print(help_text(chosen.kind, f"{command} {chosen.names}".rstrip(), chosen.about, chosen.examples))
        return
    chosen.action(words[1:], console)


def usage() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: isometry COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "isometry COMMAND --help has examples and options.",
        ]
    )


def _plain(error: Exception) -> str:
    # Square brackets in a path or a message are no markup.
    return escape(printable(" ".join(str(error).split())))


def _quiet_libraries() -> None:
    """Libraries' own notes would break the one-line errors and the progress bar."""
    for name in ("timm", "huggingface_hub", "torch.distributed", "torch.utils.cpp_extension", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"timm\..*")
    quiet_decoders()
