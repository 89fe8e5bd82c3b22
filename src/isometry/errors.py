"""What a person reads: errors that invalid input causes, on one line, and names as text.

Names are those of classes, files, runs and variants: the console, Markdown, XML and CSV obey none of them.
"""

import errno
import html
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(Exception):
    """An error that the user can fix; the message is one line that says what is wrong, where, and what to do."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Hint for an unknown name: the known ones that are near, or ``otherwise``."""
    near = get_close_matches(name, known, n=2)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def first_line(error: BaseException) -> str:
    """First non-empty line of an error's message, at most 160 characters; the error's type if it has no message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The first line of PyTorch's load_state_dict names the class only.
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):
        del lines[0]
    return lines[0][:160] if lines else type(error).__name__


def reason(error: BaseException) -> str:
    """Cause of an error in a few words: the system's message, or the type and first line of any other error."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    line, name = first_line(error), type(error).__name__
    return line if line == name or isinstance(error, ValueError | UserError) else f"{name}: {line}"


MOST_NAMED = 5
"""Most things that a line on a terminal names."""


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things: ``1 file``, ``1,200 files``; ``many`` where it is not ``one`` with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def some_of(items: Sequence[str], most: int) -> str:
    """The first of some items, and how many more there are: ``cat, dog and 3 more``."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


class NamesAll(str):
    """A note on many things, whose text names them all, for reports and files; ``short`` names the first, for a
    terminal."""

    short: str

    @classmethod
    def of(cls, head: str, names: Sequence[str], tail: str = "", *, most: int = MOST_NAMED) -> "NamesAll":
        """``head: name, name``, and ``tail``."""
        note = cls(f"{head}: {', '.join(names)}{tail}")
        where = " (isometry check --data names all)" if len(names) > most else ""
        note.short = f"{head}: {some_of(names, most)}{where}{tail}"
        return note


NO_HANDLES = "there are too few file handles; raise their number with ulimit -n 4096"
"""What to say where :func:`lacks_handles`."""


def lacks_handles(error: BaseException) -> bool:
    """Whether the process, or the system, had no file handle left."""
    # torch turns some of these errors into a RuntimeError with the system's text.
    told = os.strerror(errno.EMFILE).lower() in str(error).lower()
    return told or getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)


# --- names as text

JOINERS = "\u200c\u200d"
"""Invisible, and parts of words (Persian) and of emoji."""
MARKDOWN = re.compile(r"[\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown and GitHub's dialect read as markup; an underscore inside a word is none."""
FORMULA = ("=", "+", "-", "@")
"""How a formula begins in spreadsheets, which run those of a CSV file."""


def printable(text: str) -> str:
    """The text for the console: with escapes for control characters, for those that change the direction of writing,
    and for bytes of file names that are not UTF-8."""
    if text.isprintable():
        return text
    return "".join(c if _shown(c) else c.encode("unicode_escape").decode() for c in text)


def markdown(text: str) -> str:
    """The text for Markdown, on one line: neither markup nor HTML."""
    line = html.escape(printable(" ".join(text.split())), quote=False)
    return MARKDOWN.sub(r"\\\g<0>", line)


def markdown_code(text: str) -> str:
    """The text for Markdown, as code: `` `name` ``, or an element of HTML around a name with characters of its own."""
    line = printable(text)
    return f"<code>{markdown(line)}</code>" if set(line) & set("`|<>&") else f"`{line}`"


def xml(text: str) -> str:
    """The text for XML and SVG, also inside an attribute's quotes."""
    return html.escape(printable(text))


def csv_cell(text: str) -> str:
    """The text for a cell of a CSV file; an apostrophe before what a spreadsheet would compute."""
    line = printable(text)
    return f"'{line}" if line.startswith(FORMULA) else line


def is_utf8(name: str) -> bool:
    """Whether a file's name is text in UTF-8, which the libraries that are written in other languages need."""
    return not any(unicodedata.category(character) == "Cs" for character in name)


def _shown(character: str) -> bool:
    return character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs"
