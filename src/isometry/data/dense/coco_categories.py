"""COCO's categories as classes."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from isometry.data.dense.findings import Findings, shown
from isometry.errors import UserError, some_of


class Category(TypedDict):
    """A category as COCO's JSON lists it."""

    id: int
    name: str
    supercategory: NotRequired[Any]


def category_numbers(
    files: Mapping[Path, Sequence[Category]], annotated: Collection[int], findings: Findings
) -> tuple[list[str], dict[int, int]]:
    """The names of the classes, in the order of COCO's ids over all files, and the class of each id.

    A category that is the supercategory of others, and of which no file has an annotation, groups them: Roboflow's
    ``objects`` is none of the classes of its other formats. Any other category without an annotation keeps its place,
    since the number of a class must not depend on what was annotated so far.

    Raises:
        UserError: an id of two names, or no categories.
    """
    names: dict[int, str] = {}
    for path, categories in files.items():
        for category in categories:
            name = names.setdefault(category["id"], category["name"])
            if name != category["name"]:
                raise UserError(
                    f"{path}: category {shown(category['id'])} is {shown(category['name'])!r}, and {shown(name)!r} "
                    "before; give each category one id, the same in all files"
                )
    if not names:
        raise UserError(f"{next(iter(files))}: names no categories")
    one = _of_one_name(files, findings)
    used = {one.get(number, number) for number in annotated}
    parents = {
        each["supercategory"]
        for categories in files.values()
        for each in categories
        if isinstance(each.get("supercategory"), str) and each["supercategory"] != each["name"]
    }
    own = sorted(names.keys() - one.keys())
    groups = [number for number in own if names[number] in parents and number not in used]
    findings.add(
        "categories left out (they group others, and have no annotation)",
        some_of([shown(names[number]) for number in groups], 5),
        len(groups),
    )
    kept = [number for number in own if number not in groups]
    classes = {number: index for index, number in enumerate(kept)}
    classes |= {number: classes[first] for number, first in one.items() if first in classes}
    return [names[number] for number in kept], classes


def _of_one_name(files: Mapping[Path, Sequence[Category]], findings: Findings) -> dict[int, int]:
    """The ids of a name that has another one in another file, and the lowest of its ids.

    Not of a name that has several in one file, which are kept apart.
    """
    ids: dict[str, set[int]] = defaultdict(set)
    apart = set[str]()
    for categories in files.values():
        here: dict[str, set[int]] = defaultdict(set)
        for each in categories:
            here[each["name"]].add(each["id"])
            ids[each["name"]].add(each["id"])
        apart |= {name for name, own in here.items() if len(own) > 1}
    several = {name: sorted(own) for name, own in ids.items() if len(own) > 1 and name not in apart}
    findings.add(
        "categories that have another id in another file (matched by name)",
        some_of([f"{shown(name)} ({', '.join(map(shown, own))})" for name, own in several.items()], 5),
        len(several),
    )
    return {number: own[0] for own in several.values() for number in own[1:]}
