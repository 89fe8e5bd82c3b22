"""The records of COCO's JSON: pictures by their ids, and boxes by the path of their picture."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from isometry.data.dense.bounds import leads_out
from isometry.data.dense.coco_categories import Category
from isometry.data.dense.findings import Findings, shown
from isometry.errors import UserError, printable

Number = int | str
"""COCO's ids are whole numbers; some programs write text."""


class Image(TypedDict):
    """A picture as COCO's JSON lists it."""

    id: Number
    file_name: str
    width: NotRequired[int | None]
    height: NotRequired[int | None]


class Annotation(TypedDict):
    """An annotation as COCO's JSON lists it."""

    id: NotRequired[Number | None]
    image_id: Number
    category_id: int
    bbox: NotRequired[list[float] | None]
    area: NotRequired[float | None]
    iscrowd: NotRequired[bool | None]


class Coco(TypedDict):
    """The parts of COCO's JSON that boxes need."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


def listed_images(
    listed: Sequence[Image], path: Path, folder: Path, root: Path, findings: Findings
) -> tuple[dict[str, tuple[int, int] | None], dict[Number, str]]:
    """Path -> size of each picture, and its path by id; a picture under several ids has the annotations of all.

    Args:
        listed: the pictures.
        path: of the JSON.
        folder: of the pictures.
        root: the folder that the user named.
        findings: take what is worth a note.

    Raises:
        UserError: an id of two pictures, or a picture outside of both folders.
    """
    images: dict[str, tuple[int, int] | None] = {}
    file_of: dict[Number, str] = {}
    by_text: dict[str, str] = {}
    for image in listed:
        name = os.path.normpath(folder / image["file_name"])
        if "\0" in name:
            raise UserError(f"{path}: the image {shown(image['id'])} has a control character in its name")
        # Most names are plain, and there may be a hundred thousand.
        may_lead_out = os.path.isabs(image["file_name"]) or ".." in image["file_name"]
        if may_lead_out and leads_out(name, (root, folder)):
            raise UserError(
                f"{path}: the file_name of image {shown(image['id'])}, {printable(image['file_name'])}, leads out of "
                f"{root}; correct it, or give --data-dir a folder that holds the JSON and the pictures"
            )
        file_of[image["id"]] = name
        before = by_text.setdefault(str(image["id"]), name)
        if before != name:
            raise UserError(
                f"{path}: the image id {shown(image['id'])} is that of {printable(before)} and of {printable(name)}; "
                "give each image an id of its own"
            )
        if name in images:
            findings.add("pictures that are listed again (their annotations are joined)", name)
        width, height = image.get("width"), image.get("height")
        images[name] = (width, height) if width and height else None
    return images, file_of


def boxes_by_path(
    annotations: Sequence[Annotation],
    file_of: Mapping[Number, str],
    classes: Mapping[int, int],
    findings: Findings,
) -> dict[str, list[tuple[list[float], Annotation]]]:
    """Path -> the corners of each box, and its annotation."""
    found: dict[str, list[tuple[list[float], Annotation]]] = defaultdict(list)
    seen: dict[Number, Annotation] = {}
    boxes = set[tuple[object, ...]]()
    by_text = {str(number): path for number, path in file_of.items()}
    for each in annotations:
        number, box, image = each.get("id"), each.get("bbox"), str(each["image_id"])
        before = seen.setdefault(number, each) if number is not None else each
        if before is not each and before == each:
            findings.add("annotations left out (listed twice)", f"annotation {shown(number)}")
        elif image not in by_text:
            findings.add(
                "annotations left out (of images that are not listed)", f"image id {shown(each['image_id'])}"
            )
        elif each["category_id"] not in classes:
            findings.add(
                "annotations left out (of categories that are not listed)",
                f"category {shown(each['category_id'])}",
            )
        elif box is None or len(box) != 4:
            findings.add(
                "annotations left out (without a box of four numbers)", f"annotation {shown(number)}"
            )
        else:
            if before is not each:
                findings.add("annotations with the id of another one (kept)", f"annotation {shown(number)}")
            if each["image_id"] not in file_of:
                findings.add(
                    "image ids that are a number in one place and text in another (taken as one)", image
                )
            left, top, width, height = box
            same = (by_text[image], each["category_id"], bool(each.get("iscrowd")), *box)
            if same in boxes and before is each:
                findings.add("boxes that another annotation repeats (kept)", f"annotation {shown(number)}")
            boxes.add(same)
            found[by_text[image]].append(([left, top, left + width, top + height], each))
    return found
