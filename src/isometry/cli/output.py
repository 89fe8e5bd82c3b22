"""Output that is printed as it is."""

from rich.console import Console


def say(console: Console, text: str, style: str = "") -> None:
    """Prints a line without markup, colours for numbers, or line breaks at the terminal's width."""
    console.print(text, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)


def write(console: Console, text: str) -> None:
    """Writes text to standard output as it is; a closed pipe ends the process as it does after other output."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        console.on_broken_pipe()
