"""Notes on images that can't be read, where a run goes on without them (``--skip-bad-images``)."""

from collections.abc import Iterable

MOST_NAMED = 20


def skipped(names: Iterable[str]) -> list[str]:
    """A note that counts and names the images that a run went on without, if there were any."""
    return _note(names, "was skipped", "were skipped")


def left_out_of_figures(names: Iterable[str]) -> list[str]:
    """A note that counts and names the images that figures are not of, if there were any."""
    return _note(names, "is left out of the figures", "are left out of the figures")


def _note(names: Iterable[str], one: str, many: str) -> list[str]:
    found = sorted(set(names))
    if not found:
        return []
    what = f"image {one}" if len(found) == 1 else f"images {many}"
    more = ", ..." if len(found) > MOST_NAMED else ""
    return [f"{len(found)} unreadable {what}: {', '.join(found[:MOST_NAMED])}{more}"]
