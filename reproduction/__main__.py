"""`python -m reproduction tables`, from the repository's root."""

import sys
from collections.abc import Sequence

from rich.console import Console

from isometry.cli.arguments import leading, parse
from isometry.cli.help import Command, Invocation, help_text
from isometry.cli.main import guarded
from isometry.errors import UserError
from reproduction.command import ReproduceConfig, reproduce

NAME, EXAMPLE = "tables", "python -m reproduction tables"
COMMAND = Command(
    ReproduceConfig,
    "Train a small version of each run of the paper's tables on the digits, and report which orderings hold.",
    lambda call: reproduce(call.config, call.console),
    (EXAMPLE, f"{EXAMPLE} --tables 3 6 --seeds 10 --out runs/terms"),
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code, as :func:`isometry.cli.main.main` does."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(help_text(NAME, COMMAND, program="python -m reproduction"))
        return 0
    return guarded(lambda: _run(list(arguments)))


def _run(arguments: list[str]) -> None:
    names, options = leading(arguments)
    if names != [NAME]:
        raise UserError(f"{' '.join(names) or arguments[0]}: the only command is {NAME}, e.g. {EXAMPLE}")
    COMMAND.action(Invocation(names, parse(ReproduceConfig, options), "", Console()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
