"""What `isometry check` says of the images."""

from collections.abc import Mapping

from isometry.errors import printable


def classes_text(counts: Mapping[str, int] | None) -> str:
    """The smallest and the largest class, by their training images; empty where these are not known."""
    if not counts:
        return ""
    smallest, largest = (choose(counts, key=counts.__getitem__) for choose in (min, max))
    return (
        f"smallest {printable(smallest)} ({counts[smallest]:,}), largest {printable(largest)} ({counts[largest]:,}), "
        "by training images"
    )
