"""The one exception that a person's input can cause; the command line prints it as one line and exits with 2."""


class UserError(Exception):
    """Something the person at the keyboard can mend: what was wrong, where, and what to do, in one line."""


def reason(error: BaseException) -> str:
    """Why something failed, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def printable(text: str) -> str:
    """The same text with escapes for what a terminal would obey, and for bytes of a file name that are no UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
