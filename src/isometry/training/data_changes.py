"""``data.json`` in a run's folder: its classes and images, which must be the same when it resumes."""

import json
from pathlib import Path

from typing_extensions import TypedDict

from isometry.data.inventory import Inventory, other_classes, other_images
from isometry.errors import UserError, reason
from isometry.files import write_atomically
from isometry.parsing import closed, read_json

RESTART = "put them back, or start a new run with another --out"


@closed
class Record(TypedDict):
    """Content of ``data.json``: what the run has, and a note for each time that its images had changed."""

    inventory: Inventory
    notes: list[str]


def data_path(out: str | Path) -> Path:
    """The record of a run's data."""
    return Path(out) / "data.json"


def check_classes(out: str, now: Inventory) -> None:
    """Raises UserError if the run in ``out`` was begun with other classes than those of ``now``."""
    record = _read(out)
    changes = other_classes(record["inventory"]["classes"], now["classes"]) if record else ""
    if changes:
        raise UserError(f"--resume: the classes are not those of the run in {out}, they {changes}; {RESTART}")


def check_images(out: str, now: Inventory, *, begun: bool, allowed: bool) -> tuple[Record, list[str]]:
    """Compares the images with those that the run in ``out`` had.

    Args:
        out: the run's folder.
        now: the data.
        begun: whether the run stopped inside an epoch, whose order of images depends on all of them.
        allowed: whether such an epoch may go on with other images.

    Returns:
        The record to write, and notes for the user.

    Raises:
        UserError: in an epoch that was begun, the images are others.
    """
    record = _read(out)
    if record is None:
        note = f"{data_path(out)}: missing, because an older version began the run; the classes and images of now count"
        return {"inventory": now, "notes": []}, [note]
    changes = other_images(record["inventory"]["images"], now["images"])
    if not changes:
        return record, record["notes"]
    said = "; ".join(changes.values())
    if begun and not allowed:
        raise UserError(
            f"--resume: the images are not those that the epoch was begun with: {said}; "
            "put them back, or go on with the rest of the new ones by --data-changed"
        )
    note = f"resumed {'inside an epoch ' * begun}with other images: {said}"
    if "validation" in changes:
        note += "; the best epoch is chosen anew, since earlier scores are of other images"
        if len(changes) > 1:
            note += ". If validation is split off one folder, it now has images that were trained on"
    notes = [*record["notes"], note]
    return {"inventory": now, "notes": notes}, notes


def write_record(out: str | Path, record: Record) -> None:
    """Writes ``data.json``."""
    write_atomically(data_path(out), json.dumps(record, indent=1))


def _read(out: str) -> Record | None:
    path = data_path(out)
    try:
        record: Record = read_json(path, Record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: can't be read ({reason(error)}); put back a copy, or delete it to take the data as it is now"
        ) from error
    return record
