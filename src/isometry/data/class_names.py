"""What is said of class names that may not be meant: of deeper folders, of several folders, or told apart by case."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from isometry.data.folder_listing import in_order, named
from isometry.errors import NamesAll, counted, printable


def folder_notes(root: Path, images: Iterable[tuple[str, str]]) -> list[str]:
    """Notes on images under ``root``, (path, class) as in :class:`isometry.data.folder_listing.Listing`.

    A class has the name of the innermost folder, as in timm: lo/2019 and hi/2019 are one class, 2019. The first note
    names such classes, with their folders; the next, other classes that are not directly inside ``root``; each with its
    number of images.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for path, name in images:
        counts[name][os.path.relpath(os.path.dirname(path), root)] += 1
    merged = {name: folders for name, folders in counts.items() if len(folders) > 1}
    deeper = [
        f"{folder} ({count:,})"
        for name in counts.keys() - merged.keys()
        for folder, count in counts[name].items()
        if os.sep in folder
    ]
    notes: list[str] = []
    if merged:
        texts = [
            f"{printable(name)} ({counted(folders.total(), 'image')} of {named([*folders])})"
            for name, folders in merged.items()
        ]
        notes.append(
            NamesAll.of(
                f"{root}: folders of one name are ONE class, wherever they lie",
                sorted(texts),
                "; if the folders above them are the classes, move the images up into these, or give a list with "
                "--data-dir list.csv",
            )
        )
    if deeper:
        notes.append(
            NamesAll.of(
                f"{root}: deeper folders are classes of their own, named by the innermost folder",
                in_order(deeper),
            )
        )
    return notes + case_notes(root, [*counts])


def case_notes(place: Path, names: Sequence[str]) -> list[str]:
    """A note on classes whose names differ only in upper and lower case, if there are any."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        alike[name.casefold()].append(printable(name))
    texts = [" and ".join(group) for group in alike.values() if len(group) > 1]
    if not texts:
        return []
    return [NamesAll.of(f"{place}: classes of their own, though their names differ in case only", texts)]
