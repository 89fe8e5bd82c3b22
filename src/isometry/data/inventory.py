"""The classes and image files of a run, to tell whether they have changed when it resumes; opens no image."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from isometry.config.paths import expand_path
from isometry.data.sources import Sources
from isometry.data.splits import Part, StreamPart
from isometry.errors import UserError, counted, printable, reason, some_of
from isometry.parsing import closed, read_json

Folders = dict[str, tuple[int, str]]
"""Images of each folder: their number, and a fingerprint of their names, sizes, labels and order."""

DRAWN_ANEW = "If validation is split off one folder, it now has images that were trained on"
"""What other images in training and in validation may mean: the split is drawn from all of them."""

OTHER_DATES = (
    "same names and sizes as before, but other times of change (copied, or replaced by files of equal size)"
)
"""What is said of the folders of :func:`other_dates`: whether the pixels are others, only reading all would tell."""

MOST_FOLDERS, MOST_NAMED = 10_000, 3
"""Of more folders only the sum is kept; of those that have changed, so many are named."""


class Inventory(TypedDict):
    """Classes by index (None: not labelled or not named), and the images of each split.

    ``dates`` are fingerprints of the files' times of change, by split and folder; older versions kept none. They
    differ in a copy, so :func:`fingerprint` and :func:`other_images` don't look at them.
    """

    classes: list[str] | None
    images: dict[str, Folders]
    dates: NotRequired[dict[str, dict[str, str]]]


@closed
class Record(TypedDict):
    """Content of ``data.json``: what the run has, and a note for each time that its images had changed."""

    inventory: Inventory
    notes: list[str]


def data_path(run: str | Path) -> Path:
    """The record of a run's data, in its folder."""
    return Path(run) / "data.json"


def read_record(run: str | Path) -> Record | None:
    """The record of a run's data; None where there is none, since an older version made the run.

    Raises:
        UserError: it can't be read.
    """
    path = data_path(run)
    try:
        record: Record = read_json(path, Record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: can't be read ({reason(error)}); put back a copy, or delete it to take the data as it is now"
        ) from error
    return record


def take_inventory(sources: Sources, data_dir: str | None) -> Inventory:
    """The inventory of a run's data, from names and sizes of the files alone; seconds for a million files."""
    parts = {"training": sources.train, "validation": sources.val, "test": sources.test}
    place = Path(expand_path(data_dir or ""))
    # A list of images names them from its own folder.
    root = str(place.parent if place.is_file() else place) if data_dir else ""
    images: dict[str, Folders] = {}
    dates: dict[str, dict[str, str]] = {}
    for name, part in parts.items():
        if part is not None:
            images[name], dates[name] = _folders(part, root)
    return {"classes": sources.class_names, "images": images, "dates": dates}


def fingerprint(listed: Inventory | Folders | None) -> int:
    """63 bits that differ for another list; of an inventory, without its dates."""
    compared: Any = listed
    # The images of a folder may be in one called dates; its value is no dictionary.
    if compared and isinstance(compared.get("dates"), dict):
        compared = {name: value for name, value in compared.items() if name != "dates"}
    text = repr(compared).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def other_classes(before: Sequence[str] | None, now: Sequence[str] | None) -> str:
    """How the classes differ, with names; empty if they don't."""
    before, now = before or [], now or []
    gone, new = (
        [name for name in before if name not in set(now)],
        [name for name in now if name not in set(before)],
    )
    if gone or new:
        return " and ".join(
            f"{what} {some_of([*map(_quoted, names)], MOST_NAMED)}"
            for what, names in (("lack", gone), ("have the new", new))
            if names
        )
    for number, (one, other) in enumerate(zip(before, now, strict=True)):
        if one != other:
            return f"are in another order: class {number} was {_quoted(one)} and is {_quoted(other)}"
    return ""


def other_images(before: Mapping[str, Folders], now: Mapping[str, Folders]) -> dict[str, str]:
    """How the images of each split differ, with numbers; without splits that don't."""
    found = {}
    for split in {**before, **now}:
        old, new = before.get(split, {}), now.get(split, {})
        changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if changed:
            counts = some_of([_change(name, old, new) for name in changed], MOST_NAMED)
            found[split] = f"{split} {counted(_count(old), 'image')}, {_count(new):,} now ({counts})"
    return found


def other_dates(before: Inventory, now: Inventory) -> str:
    """Folders whose files have the same names and sizes but other times of change, with numbers; empty without."""
    found = []
    for split, folders in now["images"].items():
        old, new = (listed.get("dates", {}).get(split, {}) for listed in (before, now))
        same = [name for name in folders if before["images"].get(split, {}).get(name) == folders[name]]
        changed = [name for name in same if name in old and old[name] != new[name]]
        if changed:
            places = some_of([f"{printable(name)}/ {folders[name][0]:,}" for name in changed], MOST_NAMED)
            found.append(f"{split} ({places})")
    return ", ".join(found)


def _change(name: str, old: Folders, new: Folders) -> str:
    (before, _), (after, _) = old.get(name, (0, "")), new.get(name, (0, ""))
    change = (
        f"{before:,}, {after:,} now"
        if before != after
        else f"{before:,}, but of other names, sizes or labels"
    )
    return f"{printable(name)}/ {change}" if name else change


def _count(folders: Folders) -> int:
    return sum(count for count, _ in folders.values())


def _quoted(name: str) -> str:
    return f"'{printable(name)}'"


def _folders(part: Part, root: str) -> tuple[Folders, dict[str, str]]:
    """The images of each folder, and fingerprints of their times of change."""
    digests: dict[str, Any] = {}
    dates: dict[str, Any] = {}
    counts: dict[str, int] = {}
    labels = part.labels() if not isinstance(part, StreamPart) else None
    for number, name in enumerate(_names(part, root)):
        path, size, date = _sized(name)
        folder = os.path.dirname(path.removeprefix(root).lstrip("/")) if size is not None else ""
        if folder not in digests:
            if len(digests) >= MOST_FOLDERS:
                folder = "..."
            digests.setdefault(folder, hashlib.blake2b(digest_size=16))
            dates.setdefault(folder, hashlib.blake2b(digest_size=8))
        counts[folder] = counts.get(folder, 0) + 1
        dates[folder].update(f"{date}\n".encode())
        label = labels[number] if labels else None
        digests[folder].update(
            f"{path.removeprefix(root)} {size} {label}\n".encode("utf-8", "surrogateescape")
        )
    found = {folder: (counts[folder], digest.hexdigest()) for folder, digest in digests.items()}
    times = {folder: digest.hexdigest() for folder, digest in dates.items()}
    if isinstance(part, StreamPart):
        # Its files are not its images.
        sums = (hashlib.blake2b(repr(each).encode(), digest_size=16).hexdigest() for each in (found, times))
        return {"": (len(part), next(sums))}, {"": next(sums)}
    return found, times


def _names(part: Part, root: str) -> Iterator[str]:
    """The images, by their paths where they have such; of a stream, the files of its folder."""
    if isinstance(part, StreamPart):
        paths = sorted(Path(root).rglob("*")) if root else []
        yield from (str(path) for path in paths if path.is_file())
        return
    reader = getattr(part.images, "reader", None)
    if (dataset := getattr(reader, "dataset", None)) is not None:
        # Hugging Face: the name of an image is read with the image.
        size = getattr(getattr(dataset, "info", None), "dataset_size", None)
        yield from (f"{size} {index}" for index in range(len(part)))
        return
    yield from (part.where(index) for index in range(len(part)))


def _sized(name: str) -> tuple[str, int | None, int]:
    """A path with the size of its file and its time of change in ns; None and 0 for a name that is no file's."""
    try:
        status = os.stat(name)
    except (OSError, ValueError):
        return name, None, 0
    return name, status.st_size, status.st_mtime_ns
