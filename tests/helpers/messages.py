"""Messages by what they must name, not by how they say it."""

import re


def mentions(text: str, essentials: str) -> bool:
    """Whether a text has the pieces of ``essentials``, separated by " … ", in that order."""
    pieces = map(re.escape, essentials.split(" … "))
    return re.search(".*".join(pieces), text, re.DOTALL) is not None
