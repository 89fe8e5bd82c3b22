"""`python -m reproduction tables`, from the repository's root."""

import sys

from rich.console import Console

from isometry.cli.arguments import leading, parse
from isometry.cli.help import Command, Invocation, help_text
from isometry.cli.main import guarded
from reproduction.command import ReproduceConfig, reproduce

COMMAND = Command(
    ReproduceConfig,
    "Run the paper's tables on the digits, and report which of its orderings hold there.",
    lambda call: reproduce(call.names, call.config, call.console),
    (
        "python -m reproduction tables",
        "python -m reproduction tables --tables 3 6 --seeds 10 --out runs/terms",
    ),
)


def main(words: list[str]) -> int:
    """Runs the command; exit codes are those of `isometry`."""
    if not words or {"-h", "--help"} & set(words):
        print(help_text("tables", COMMAND, program="python -m reproduction"))
        return 0
    names, options = leading(words)
    return guarded(lambda: _run(names, options))


def _run(names: list[str], options: list[str]) -> None:
    COMMAND.action(Invocation(names, parse(ReproduceConfig, options), "", Console()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
