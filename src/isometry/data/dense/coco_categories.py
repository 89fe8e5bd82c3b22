"""COCO's categories as classes."""

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


def category_names(
    files: Mapping[Path, Sequence[Category]], annotated: Collection[int], findings: Findings
) -> dict[int, str]:
    """COCO's id -> name, in the order of ids, over all files.

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
    parents = {
        each["supercategory"]
        for categories in files.values()
        for each in categories
        if isinstance(each.get("supercategory"), str) and each["supercategory"] != each["name"]
    }
    groups = [number for number, name in names.items() if name in parents and number not in annotated]
    findings.add(
        "categories left out (they group others, and have no annotation)",
        some_of([shown(names[number]) for number in groups], 5),
        len(groups),
    )
    return {number: name for number, name in sorted(names.items()) if number not in groups}
