"""Errors that invalid input causes; the command line prints them on one line and exits with code 2."""

import errno
import os
from collections.abc import Iterable
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


NO_HANDLES = "there are too few file handles; raise their number with ulimit -n 4096"
"""What to say where :func:`lacks_handles`."""


def lacks_handles(error: BaseException) -> bool:
    """Whether the process, or the system, had no file handle left."""
    # torch turns some of these errors into a RuntimeError with the system's text.
    told = os.strerror(errno.EMFILE).lower() in str(error).lower()
    return told or getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)


def printable(text: str) -> str:
    """The text with escapes for control characters, and for bytes of file names that are not UTF-8."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
