"""Pictures that a dense task has twice: in several splits, or as several files of equal content."""

import os
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from isometry.data.dense.annotations import DenseImages
from isometry.data.dense.findings import Findings
from isometry.data.dense.splitting import COUNTED
from isometry.data.file_survey import FileFacts, FileSurvey, duplicates
from isometry.data.splits import UNLABELLED


def shared_pictures(parts: Mapping[str, DenseImages], root: Path) -> list[str]:
    """A note, with a count, for each two splits that have pictures of one path; opens no file.

    ``root`` is the folder of the data, see :class:`isometry.data.dense.findings.Findings`.
    """
    findings = Findings(root)
    places = {split: dict.fromkeys(_places(images)) for split, images in parts.items()}
    for one, other in combinations(places, 2):
        shared = [place for place in places[one] if place in places[other]]
        if shared:
            both = f"pictures in {COUNTED[one]} and in {COUNTED[other]}"
            findings.add(
                f"{both} (which scores too high by them; leave them out of one)", shared[0], len(shared)
            )
    return findings.notes


def equal_pictures(parts: Mapping[str, DenseImages]) -> FileSurvey:
    """The picture files of all splits that may be read, and those of equal content.

    A path that several splits have counts once, for the first. Reads the ends of files of equal size, and all of those
    with equal ends.
    """
    split_of: dict[str, str] = {}
    for split, images in parts.items():
        for place in _places(images):
            split_of.setdefault(place, split)
    files = [
        FileFacts(place, split, UNLABELLED, os.path.getsize(place))
        for place, split in split_of.items()
        if os.path.isfile(place) and os.access(place, os.R_OK)
    ]
    return FileSurvey(files, 0, list(duplicates(files)))


def _places(images: DenseImages) -> Iterator[str]:
    return (images.where(number) for number in range(len(images)))
