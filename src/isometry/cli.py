"""The command line: `isometry distill | train | check | compare`."""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence

from rich.console import Console

from isometry import __version__
from isometry.check import check
from isometry.compare import CompareConfig, compare
from isometry.engine import execute
from isometry.errors import UserError
from isometry.outcome import Outcome
from isometry.parsing import parse, parse_run
from isometry.report import models_table
from isometry.signals import Interrupted

USAGE = """usage: isometry COMMAND [OPTIONS]

  distill   teach a small model what a large one sees
  train     train or fine-tune a model without a teacher
  check     say what a run would do, and what would go wrong; trains nothing
  compare   run variants with the same seeds and compare them

isometry COMMAND --help lists the options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, 2 for bad input (said in one line), 128 + signal when stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    console = Console()
    complaints = Console(stderr=True)
    _quiet_libraries()
    try:
        if not words or words[0] in ("-h", "--help"):
            print(USAGE)
            return 0
        if words[0] == "--version":
            print(f"isometry {__version__}")
            return 0
        if words[0] not in COMMANDS:
            raise UserError(f"{words[0]}: no such command; there are {', '.join(COMMANDS)}")
        COMMANDS[words[0]](words[1:], console)
    except UserError as error:
        complaints.print(f"[bold red]isometry:[/] {_plain(error)}", highlight=False, soft_wrap=True)
        return 2
    except Interrupted as stop:
        complaints.print(f"isometry: {_plain(stop)}", highlight=False, soft_wrap=True)
        return 128 + stop.signal_number
    except KeyboardInterrupt:
        complaints.print("isometry: stopped at once; the last save is kept, go on with --resume", soft_wrap=True)
        return 130
    return 0


def _distill(words: list[str], console: Console) -> None:
    config = parse_run(words, "distill", "Distil a teacher into a student.")
    if not config.teacher:
        raise UserError("--teacher: no teacher named; give a timm name or local-dir:PATH (or use isometry train)")
    _show(execute(config, console), console)


def _train(words: list[str], console: Console) -> None:
    config = parse_run(words, "train", "Train a model without a teacher.")
    if config.teacher:
        raise UserError("--teacher: isometry train has no teacher; use isometry distill")
    _show(execute(config, console), console)


def _check(words: list[str], console: Console) -> None:
    check(parse_run(words, "check", "Say what a run would do; trains nothing."), console)


def _compare(words: list[str], console: Console) -> None:
    config = parse(CompareConfig, words, "compare", "Run variants with the same seeds and compare them.")
    recipe = words[words.index("--config") + 1] if "--config" in words else ""
    compare(config, recipe, console)


def _show(outcome: Outcome | None, console: Console) -> None:
    if outcome is None:
        return
    console.print(models_table(outcome.rows))
    console.print(f"Folder   {outcome.folder}", highlight=False, soft_wrap=True)
    console.print(f"Student  local-dir:{outcome.folder / 'student'}", highlight=False, soft_wrap=True)
    console.print(f"Report   {outcome.report}", highlight=False, soft_wrap=True)


def _plain(error: Exception) -> str:
    # Square brackets in a path or a message are no markup.
    return " ".join(str(error).split()).replace("[", "\\[")


def _quiet_libraries() -> None:
    """Libraries' own notes would break the one-line errors and the progress bar."""
    for name in ("timm", "huggingface_hub", "torch.distributed", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"timm\..*")


COMMANDS: dict[str, Callable[[list[str], Console], None]] = {
    "distill": _distill,
    "train": _train,
    "check": _check,
    "compare": _compare,
}

if __name__ == "__main__":
    sys.exit(main())
