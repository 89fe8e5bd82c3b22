"""What was left out of a data set or changed in it, counted by reason, with the first of each."""

import os
import re
from pathlib import Path

from isometry.errors import printable

LONGEST = 60
"""Characters of an id or a number of somebody's file in a message."""


def shown(value: object) -> str:
    """A value of a file, such as an id, for a message: printable, and not too long."""
    text = printable(str(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


class Findings:
    """Counts by reason, of the data set in the folder ``root``.

    ``part`` is what they are about, such as ``train``: a note begins with it. Paths inside ``root`` are named as they
    lie there.
    """

    def __init__(self, root: Path, part: object = "") -> None:
        # As it is written, and as os.path.normpath writes it.
        folders = "|".join(re.escape(each) for each in {str(root), os.path.normpath(root)} - {os.sep, "."})
        self._inside = re.compile(rf"(?<![^\s(])(?:{folders}){re.escape(os.sep)}") if folders else None
        self._part = self._relative(str(part))
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, reason: str, example: object, count: int = 1) -> None:
        """``count`` more of a reason, such as "boxes left out (of no area)"; nothing if it is 0."""
        if count:
            self._first.setdefault(reason, self._relative(str(example)))
            self._counts[reason] = self._counts.get(reason, 0) + count

    def say(self, text: str) -> None:
        """A note without a count."""
        self._counts.setdefault(text, 0)

    def count(self, reason: str) -> int:
        """How many there are of a reason."""
        return self._counts.get(reason, 0)

    @property
    def reasons(self) -> list[str]:
        """Each reason: ``boxes left out (of no area): 3, e.g. annotation 17``."""
        return [
            printable(f"{reason}: {count:,}, e.g. {self._first[reason]}" if count else reason)
            for reason, count in self._counts.items()
        ]

    @property
    def notes(self) -> list[str]:
        """The reasons, each on a line that begins with the part: ``train: boxes left out ...``."""
        head = printable(f"{self._part}: ") if self._part else ""
        return [head + reason for reason in self.reasons]

    def _relative(self, text: str) -> str:
        return self._inside.sub("", text) if self._inside else text
