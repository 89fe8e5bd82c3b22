"""Lines and tables on the terminal. What is printed is text, whatever markup or escapes the names in it hold."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from isometry.errors import NamesAll, printable


def say(console: Console, text: str, style: str = "") -> None:
    """Prints a line without markup, colours for numbers, or line breaks at the terminal's width."""
    console.print(plain(text, style), soft_wrap=True)


def say_under(console: Console, head: str, text: str) -> None:
    """Prints a line that begins with a word in bold."""
    console.print(Text.assemble((head, "bold"), "  ", plain(text)), soft_wrap=True)


def print_notes(console: Console, notes: Iterable[str]) -> None:
    """Prints notes on a run, one a line."""
    for note in notes:
        say(console, shortened(note), "yellow")


def shortened(note: str) -> str:
    """A note as a terminal has it, where it may name but the first of many things."""
    return note.short if isinstance(note, NamesAll) else note


def plain(text: str, style: str = "") -> Text:
    """Text for :mod:`rich`, such as a cell of a table, that is shown as it is."""
    return Text(printable(text), style)
