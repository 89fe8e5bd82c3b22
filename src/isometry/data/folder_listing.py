"""Lists the images under a folder, without what is no class: folders that programs make, and results of runs."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isometry.data.image_formats import needed_for, readable_endings
from isometry.errors import MOST_NAMED, NamesAll, printable, reason, some_of

JUNK_FOLDERS = frozenset(
    {
        *("__macosx", "__pycache__", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
        *("$recycle.bin", "recycler", "system volume information", "lost+found", "thumbs.db"),
    }
)
"""Folders that archivers, network drives and systems make, in lower case; also every folder that begins with a dot."""

JUNK_ENDINGS = (".lrdata", ".lrcat-data")
"""Endings of folders that Lightroom keeps its previews and catalogues in, in lower case."""

JUNK_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", ".gitkeep", ".gitignore"))
"""Files that are not worth a word, in lower case."""

RESOURCE_FORK = "._"
"""macOS's companions of files on other systems' drives begin so; ``._1.jpg`` is no JPEG."""

RESULTS = (("config.yaml", ".lock"), ("plan.yaml", "comparison.json"))
"""Files by which the folder of a run, or of a comparison of runs, is known."""

BEGUN = [".lock"]
"""Files of the folder of a run that is just beginning, perhaps the one that looks at the images."""

NO_CLASS = ""
"""The class name of images that are directly inside the folder."""

NO_ENDING = "without an ending"


@dataclass
class Listing:
    """The images under ``root``: (path, class), where a class is the name of the innermost folder, "" for ``root``.

    ``programs``, ``results``, ``begun``, ``empty`` and ``unreadable`` are the folders that were left out, as they lie
    in ``root``; ``begun`` are those of runs that have written nothing yet, which are not worth a word. ``endings``
    counts files that are not read, by their endings.
    """

    root: Path
    images: list[tuple[str, str]] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)

    def take_loose(self) -> list[str]:
        """Takes the images directly inside ``root`` out, if there are class folders too; their names."""
        loose = [path for path, name in self.images if name == NO_CLASS]
        if len(loose) == len(self.images):
            return []
        self.images = [(path, name) for path, name in self.images if name != NO_CLASS]
        return [os.path.basename(path) for path in loose]

    @property
    def notes(self) -> list[str]:
        """What was left out, a line for each reason."""
        reasons = {
            "programs make them, so they are no classes": self.programs,
            "they hold results of isometry": self.results,
            "without images": self.empty,
            "they can't be read": self.unreadable,
        }
        notes: list[str] = [
            NamesAll.of(f"{self.root}: folders left out ({why})", in_order(names))
            for why, names in reasons.items()
            if names
        ]
        if self.endings:
            notes.append(NamesAll.of(f"{self.root}: files left out", endings_texts(self.endings)))
        return notes


def endings_texts(endings: Mapping[str, int]) -> list[str]:
    """``3 .heic (pip install ...)``, ``1 .pdf``, the most frequent first."""
    counted = sorted(endings.items(), key=lambda pair: (-pair[1], pair[0]))
    return [
        f"{count:,} {printable(ending)}" + (f" ({needed})" if (needed := needed_for(ending)) else "")
        for ending, count in counted
    ]


def list_images(root: Path) -> Listing:
    """Lists all images under ``root`` (through links, but not in circles), in no order; opens none."""
    listing = Listing(root)
    with_images: set[str] = set()
    folders: list[str] = []
    for folder, files in walk(root, listing):
        name = os.path.basename(folder)
        # Joined once a folder, not once a file.
        place = os.path.join(root, folder, "")
        folders.append(folder)
        for file in files:
            if _is_image(file):
                listing.images.append((place + file, name))
                with_images.add(folder)
            elif file.lower() not in JUNK_FILES:
                listing.endings[_kind(file)] += 1
    used = {
        parent
        for folder in (*with_images, *listing.results, *listing.begun)
        for parent in _and_parents(folder)
    }
    listing.empty = [folder for folder in folders if folder not in used and os.path.dirname(folder) in used]
    return listing


def holds_images(root: Path) -> bool:
    """Whether there is any image under a folder; stops at the first."""
    return any(_is_image(file) for _, files in walk(root, Listing(root)) for file in files)


def image_folders(root: Path) -> set[Path]:
    """The folders directly inside ``root`` that hold images and are none of those that are left out."""
    return {
        path
        for path in root.iterdir()
        if path.is_dir() and not is_junk(path.name) and not _holds_results(path) and holds_images(path)
    }


def walk(root: Path, listing: Listing) -> Iterator[tuple[str, list[str]]]:
    """Each folder, as it lies in ``root`` ("" for ``root``), and the names of its files; notes in ``listing`` what is
    left out."""
    waiting: list[tuple[str, tuple[str, ...]]] = [("", ())]
    while waiting:
        folder, above = waiting.pop()
        real = os.path.realpath(root / folder)
        if real in above:
            continue
        try:
            with os.scandir(root / folder) as entries:
                found = [(entry.name, _is_folder(entry)) for entry in entries]
        except OSError as error:
            listing.unreadable.append(f"{folder or root} ({reason(error)})")
            continue
        files = [name for name, is_folder in found if not is_folder]
        if folder and _holds_results(root / folder):
            listing.results.append(folder)
            continue
        if folder and [name for name, _ in found] == BEGUN:
            listing.begun.append(folder)
            continue
        for name, is_folder in found:
            inner = os.path.join(folder, name)
            if is_folder and is_junk(name):
                listing.programs.append(inner)
            elif is_folder:
                waiting.append((inner, (*above, real)))
        yield folder, files


def is_junk(folder: str) -> bool:
    """Whether programs make folders of this name for themselves."""
    name = folder.lower()
    return name.startswith(".") or name in JUNK_FOLDERS or name.endswith(JUNK_ENDINGS)


def ending_of(path: str) -> str:
    """``.png``, in lower case; empty without one."""
    return os.path.splitext(path)[1].lower()


def named(names: list[str]) -> str:
    """The first names in order, and how many more there are."""
    return some_of(in_order(names), MOST_NAMED)


def in_order(names: Iterable[str]) -> list[str]:
    """Names in order, printable."""
    return [*map(printable, sorted(names))]


def _holds_results(folder: Path) -> bool:
    return any(all((folder / mark).is_file() for mark in marks) for marks in RESULTS)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(file: str) -> bool:
    return ending_of(file) in readable_endings() and not file.startswith(RESOURCE_FORK)


def _kind(file: str) -> str:
    if file.startswith(RESOURCE_FORK):
        return f"{RESOURCE_FORK}*"
    return ending_of(file) or NO_ENDING


def _and_parents(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = os.path.dirname(folder)
    yield ""
