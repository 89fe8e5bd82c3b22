"""Lines of output, printed as they are."""

from rich.console import Console


def say(console: Console, text: str, style: str = "") -> None:
    """Prints a line without markup, colours for numbers, or line breaks at the terminal's width."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
