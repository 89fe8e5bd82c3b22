"""The classes of masks: those of a file of names, or the values that occur.

``classes.txt`` or ``labels.txt`` beside the folders of masks has a class a line: the name of the value 0, of 1, and so
on; or, where every line begins with a number, as ``7 road``, the value and its name.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from isometry.data.dense.annotations import IGNORED
from isometry.data.dense.findings import Findings
from isometry.data.dense.mask_reading import ranges
from isometry.data.dense.splitting import is_regular
from isometry.data.dense.yolo import read_names
from isometry.errors import UserError, printable

NAMES = ("classes.txt", "labels.txt")
RARE = 0.01
"""Share of the masks, at least one; a value that no more of them have, and that has no neighbour, may be damage."""
ENOUGH = 10
"""Masks from which on a value can be called rare."""
BINARY = "from PIL import Image; Image.open(path).point(lambda value: value // 255).save(path)"
"""Writes 1 for 255 in a grey mask."""

Values = Mapping[str, set[int]]
"""The values in each mask, by its path."""


def mask_classes(root: Path, seen: Values, training: Collection[str], findings: Findings) -> dict[int, str]:
    """Value -> name of each class, in the order of values.

    Args:
        root: the folder of the data set.
        seen: what was found in masks of all parts.
        training: the masks of the training part; where none was looked at, all count.
        findings: take what is worth a note.

    Raises:
        UserError: values that the names lack, names that can't be used, or fewer than two values in training.
    """
    trained = set[int]().union(*(seen[path] for path in {*training} & {*seen} or seen))
    named = next((path for name in NAMES if is_regular(path := root / name)), None)
    if len(trained - {IGNORED}) < 2:
        raise UserError(_too_few(named or root, trained))
    if named is None:
        values = sorted(set[int]().union(*seen.values()) - {IGNORED})
        findings.say(f"no {NAMES[0]}: the classes are named by the values that occur, {ranges(values)}")
        _note_rare(seen, values, findings)
        return {value: str(value) for value in values}
    names = read_value_names(named)
    unnamed = {path: own - {IGNORED, *names} for path, own in seen.items()}
    wrong = [path for path, values in unnamed.items() if values]
    if wrong:
        raise UserError(
            f"{named}: names the values {ranges(list(names))}, and {len(wrong):,} masks have others, e.g. "
            f"{printable(wrong[0])} ({max(unnamed[wrong[0]])}); name all classes, a line each from 0 on, or in lines "
            "such as 7 road"
        )
    lacking = [name for value, name in names.items() if value not in trained]
    findings.add("classes without a pixel in the training masks", ", ".join(lacking[:5]), len(lacking))
    return names


def read_value_names(path: Path) -> dict[int, str]:
    """Value -> name, in the order of values, of a file with a class a line.

    Raises:
        UserError: as :func:`read_names`; a value twice, or none that a class can have.
    """
    lines = read_names(path)
    numbered = [re.fullmatch(r"([0-9]{1,9})[:,\s]\s*(\S.*)", line) for line in lines]
    found = [(int(each[1]), each[2]) for each in numbered if each and int(each[1]) != IGNORED]
    if not all(numbered):
        found = list(enumerate(lines))
    value, count = Counter(value for value, _ in found).most_common(1)[0] if found else (0, 1)
    if count > 1:
        raise UserError(f"{path}: names the value {value} twice; give each class a value of its own")
    names = dict(sorted(found))
    if not names or max(names) >= IGNORED:
        raise UserError(
            f"{path}: names the values {ranges([*names]) if names else IGNORED}; classes are 0 to 254, 255 is ignored"
        )
    return names


def _too_few(place: Path, trained: set[int]) -> str:
    which = f"value{'s' if len(trained) > 1 else ''} {ranges(sorted(trained))}"
    text = f"{place}: the masks have the {which} alone, and 255 is ignored; "
    if trained == {0, IGNORED}:
        return f"{text}if 255 is a class, write 1 for it, for each path: {BINARY}"
    return f"{text}write 0, 1, ... for the classes"


def _note_rare(seen: Values, values: Collection[int], findings: Findings) -> None:
    if len(seen) < ENOUGH:
        return
    counts = Counter(value for own in seen.values() for value in own)
    for value in values:
        if counts[value] <= max(1, RARE * len(seen)) and not {value - 1, value + 1} & {*values}:
            path = next(path for path, own in seen.items() if value in own)
            findings.add(
                "values in few masks, far from others (each is a class; mend the masks if that is wrong)",
                f"{value} (in {counts[value]:,} of {len(seen):,} masks, {path})",
            )
