"""Help and completion scripts, written as they are."""

from rich.console import Console


def write(console: Console, text: str) -> None:
    """Writes text to standard output as it is; a closed pipe ends the process as it does after other output."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        console.on_broken_pipe()
