"""Boxes in COCO's JSON: ``annotations/instances_train2017.json`` beside the folders of pictures, one file in each
split's folder (Roboflow's ``_annotations.coco.json``), or one file for all.

Format: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", arXiv:1405.0312; https://cocodataset.org.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from isometry.config import DataConfig
from isometry.data.dense.annotations import Boxes
from isometry.data.dense.box_files import Annotated, BoxFiles, checked_boxes
from isometry.data.dense.coco_categories import category_numbers
from isometry.data.dense.coco_records import Coco, boxes_by_path, listed_images
from isometry.data.dense.findings import Findings, shown
from isometry.data.dense.splitting import SPLITS, DenseSplits, is_regular, split_of
from isometry.errors import UserError, printable, reason, some_of
from isometry.parsing import read_json

LOOKED = 50
"""Pictures by which their folder is found."""


def find_coco(root: Path, config: DataConfig) -> dict[str, Path]:
    """The JSON of each split by its name (train, val, test); "" for one file of all. Empty if there is none.

    Raises:
        UserError: several files of a split.
    """
    if root.is_file():
        return {"": root}
    found: dict[str, list[Path]] = defaultdict(list)
    for folder in (root / "annotations", root):
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            if is_regular(path) and (split := _split_in(path.stem, config)) is not None:
                found[split].append(path)
        if found:
            break
    if not set(found) & set(SPLITS):
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            if (split := split_of(folder.name, config)) is not None:
                found[split] += filter(is_regular, sorted(folder.glob("*.json")))
    if any(found[split] for split in SPLITS):
        found.pop("", None)
    return {split: _one(split, paths) for split, paths in found.items() if paths}


def open_coco(files: Mapping[str, Path], root: Path, config: DataConfig) -> DenseSplits:
    """Opens and checks the annotations of all splits: one class space, in the order of COCO's ids.

    Raises:
        UserError: broken JSON, missing pictures (without ``--skip-bad-images``), or nothing that can be used.
    """
    read = {split: _read(path, optional=split == "test") for split, path in files.items()}
    known = {files[split]: coco for split, coco in read.items() if coco is not None}
    folder = root.parent if root.is_file() else root
    about_all = Findings(folder)
    names, classes = category_numbers(
        {path: coco["categories"] for path, coco in known.items()},
        {each["category_id"] for coco in known.values() for each in coco["annotations"]},
        about_all,
    )
    parts: dict[str, BoxFiles] = {}
    if root.is_file():
        _say_what_is_beside(root, config, about_all)
    notes: list[str] = about_all.notes
    for split, coco in read.items():
        alike = [path for path in files.values() if path.name == files[split].name]
        findings = Findings(folder, files[split] if len(alike) > 1 else files[split].name)
        if coco is None:
            findings.say("the test pictures are left out (they have no annotations)")
        else:
            parts[split or "train"] = _part(coco, files[split], root, classes, config, findings)
        notes += findings.notes
    return DenseSplits(f"COCO boxes in {root}", parts, names, notes)


def _split_in(stem: str, config: DataConfig) -> str | None:
    """The split in a file's name, such as instances_train2017; "" for a name that tells of annotations alone."""
    words = re.findall(r"[a-z]+", stem.lower())
    split = next((found for word in words if (found := split_of(word, config)) is not None), None)
    if split is None and {"annotations", "instances", "coco"} & set(words):
        return ""
    return split


def _one(split: str, paths: Sequence[Path]) -> Path:
    """The file of boxes, of several of a split, such as captions_train2017.json."""
    boxes = [path for path in paths if "instances" in path.stem.lower()] or list(paths)
    if len(boxes) > 1:
        names = some_of([printable(path.name) for path in boxes], 3)
        raise UserError(
            f"{boxes[0].parent}: has several files of annotations for {split or 'all images'} ({names}); leave one, or "
            "give --data-dir FILE.json"
        )
    return boxes[0]


def _read(path: Path, optional: bool) -> Coco | None:
    """A file's content; None for pictures without annotations, where that is ``optional``."""
    try:
        if optional and not _has_annotations(path):
            return None
        return read_json(path, Coco)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: is no COCO JSON of boxes ({reason(error)}); it needs images, annotations, categories"
        ) from error


def _has_annotations(path: Path) -> bool:
    content: Any = read_json(path, dict[str, Any])
    return bool(content.get("annotations"))


def _part(
    coco: Coco, path: Path, root: Path, classes: Mapping[int, int], config: DataConfig, findings: Findings
) -> BoxFiles:
    folder = _folder_of([image["file_name"] for image in coco["images"]], path, root)
    images, file_of = listed_images(
        coco["images"], path, folder, root.parent if root.is_file() else root, findings
    )
    gone = [name for name in images if not os.path.exists(name)]
    if gone and len(gone) == len(images):
        raise UserError(
            f"{path}: none of its {len(images):,} pictures can be found, e.g. {printable(gone[0])}; give "
            "--data-dir FOLDER that holds the JSON and the pictures"
        )
    if gone and not config.skip_bad_images:
        raise UserError(
            f"{path}: of {len(images):,} pictures, {len(gone):,} can't be found, e.g. {printable(gone[0])}; add them, "
            "or go on without them with --skip-bad-images"
        )
    for name in gone:
        findings.add("pictures left out (not found)", name)
        del images[name]
    found = boxes_by_path(coco["annotations"], file_of, classes, findings)
    annotated = []
    for name, size in images.items():
        boxes = found.get(name, [])
        annotated.append(
            Annotated(
                name,
                Boxes.of(
                    [box for box, *_ in boxes],
                    [classes[each["category_id"]] for _, each in boxes],
                    [bool(each.get("iscrowd")) for _, each in boxes],
                    [each.get("area") or 0 for _, each in boxes],
                ),
                [f"annotation {shown(each.get('id'))}" for _, each in boxes],
                size=size,
            )
        )
    files = checked_boxes(annotated, config.exif == "upright", findings)
    used = {label for _, boxes in files.files for label in boxes.labels[~boxes.crowd].tolist()}
    if not used:
        findings.add("boxes of crowds (iscrowd, neither trained nor judged)", *_crowds(files))
        why = "; ".join(findings.reasons)
        raise UserError(f"{path}: has no box that can be used{f' ({why})' if why else ''}")
    lacking = [each["name"] for each in coco["categories"] if classes.get(each["id"]) not in {*used, None}]
    findings.add("categories without a box", some_of([*map(shown, lacking)], 5), len(lacking))
    ids: dict[str, set[int]] = defaultdict(set)
    for each in coco["categories"]:
        ids[each["name"]].add(each["id"])
    twice = [name for name, own in ids.items() if len(own) > 1]
    findings.add("names of several categories (kept apart)", some_of([*map(shown, twice)], 5), len(twice))
    return files


def _crowds(files: BoxFiles) -> tuple[str, int]:
    """A picture with crowds, and how many crowds there are."""
    with_crowds = [path for path, boxes in files.files if boxes.crowd.any()]
    return next(iter(with_crowds), ""), sum(int(boxes.crowd.sum()) for _, boxes in files.files)


def _folder_of(names: Sequence[str], path: Path, root: Path) -> Path:
    """The folder of a file's pictures: of the usual ones, the one that has most of the first pictures."""
    stem = path.stem.lower()
    words = [re.sub(r"^(instances|annotations)_", "", stem), *re.findall(r"[a-z]+", stem)]
    usual = [path.parent]
    # A file, or its folder, may be given alone, and lie in annotations/.
    for above in dict.fromkeys((path.parent if root.is_file() else root, path.parent.parent)):
        usual += [above, above / "images"]
        usual += [folder / word for word in dict.fromkeys(words) for folder in (above, above / "images")]
    usual += [path.parent / "images", path.parent.parent]
    some = names[:: max(1, len(names) // LOOKED)]
    return max(
        usual, key=lambda folder: sum(os.path.exists(folder / name) for name in some if "\0" not in name)
    )


def _say_what_is_beside(file: Path, config: DataConfig, findings: Findings) -> None:
    """Notes the files of other splits, which are not read where one file alone is given."""
    for folder in (file.parent.parent, file.parent):
        with suppress(UserError):
            found = list(find_coco(folder, config).values())
            others = [path for path in found if path != file]
            if others and file in found:
                names = some_of([os.path.relpath(path, folder) for path in others], 3)
                findings.say(f"{file.name} alone is read; give --data-dir {folder} to use {names} too")
                return
