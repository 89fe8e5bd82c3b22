"""The standard streams: open, able to show every character, and given up where nothing more can be written."""

import errno
import os
import sys
from typing import TextIO

OPEN_FOR = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
"""By number."""
GONE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE, errno.EBADF, errno.ENXIO}
"""Errors of a stream that takes nothing more: a full disk, a terminal that was closed."""


def ready() -> None:
    """Opens the streams that were closed before the start, and lets the others show any name in any encoding.

    The numbers of closed streams would go to files of the run, into which libraries would print.
    """
    for number, (name, mode) in enumerate(OPEN_FOR):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.open(os.devnull, os.O_RDWR)
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def lost(error: OSError) -> bool:
    """Whether an error is that of a stream: those of files name the file, or are UserErrors."""
    return error.filename is None and error.errno in GONE


def give_up(stream: TextIO) -> None:
    """Lets what is left in the stream's buffer, which can't be written, and all that follows go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
