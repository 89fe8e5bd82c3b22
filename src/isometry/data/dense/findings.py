"""What was left out of a data set or changed in it, counted by reason, with the first of each."""

from isometry.errors import printable

LONGEST = 60
"""Characters of an id or a number of somebody's file in a message."""


def shown(value: object) -> str:
    """A value of a file, such as an id, for a message: printable, and not too long."""
    text = printable(str(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


class Findings:
    """Counts by reason; ``place`` is the file or folder that they are about."""

    def __init__(self, place: object) -> None:
        self._place = place
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, reason: str, example: object, count: int = 1) -> None:
        """``count`` more of a reason, such as "boxes left out (of no area)"; nothing if it is 0."""
        if count:
            self._first.setdefault(reason, str(example))
            self._counts[reason] = self._counts.get(reason, 0) + count

    def count(self, reason: str) -> int:
        """How many there are of a reason."""
        return self._counts.get(reason, 0)

    @property
    def notes(self) -> list[str]:
        """A line for each reason: ``train.json: boxes left out (of no area): 3, e.g. annotation 17``."""
        return [
            printable(f"{self._place}: {reason}: {count:,}, e.g. {self._first[reason]}")
            for reason, count in self._counts.items()
        ]
