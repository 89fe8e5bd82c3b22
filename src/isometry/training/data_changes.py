"""``data.json`` in a run's folder: its classes and images, which must be the same when it resumes."""

import json
from pathlib import Path

from isometry.data.inventory import (
    DRAWN_ANEW,
    OTHER_DATES,
    Inventory,
    Record,
    data_path,
    other_classes,
    other_dates,
    other_images,
    read_record,
)
from isometry.errors import UserError
from isometry.files import write_atomically

RESTART = "put them back, or start a new run with another --out"


def check_classes(out: str, now: Inventory) -> None:
    """Raises UserError if the run in ``out`` was begun with other classes than those of ``now``."""
    record = read_record(out)
    changes = other_classes(record["inventory"]["classes"], now["classes"]) if record else ""
    if changes:
        raise UserError(f"--resume: the classes are not those of the run in {out}, they {changes}; {RESTART}")


def check_images(
    out: str, now: Inventory, *, begun: bool, ended: bool, allowed: bool
) -> tuple[Record, list[str]]:
    """Compares the images with those that the run in ``out`` had.

    Args:
        out: the run's folder.
        now: the data.
        begun: whether the run stopped inside an epoch, whose order of images depends on all of them.
        ended: whether the run had taken all its steps, so that no epoch is chosen anew.
        allowed: whether such an epoch may go on with other images.

    Returns:
        The record to write, and notes for the user.

    Raises:
        UserError: in an epoch that was begun, the images are others.
    """
    record = read_record(out)
    if record is None:
        note = f"{data_path(out)}: missing, because an older version began the run; the classes and images of now count"
        return {"inventory": now, "notes": []}, [note]
    changes = other_images(record["inventory"]["images"], now["images"])
    dates = other_dates(record["inventory"], now)
    touched = [f"resumed with files of the {OTHER_DATES}: {dates}"] if dates else []
    if not changes:
        notes = [*record["notes"], *touched]
        return {"inventory": now, "notes": notes}, notes
    said = "; ".join(changes.values())
    if begun and not allowed:
        raise UserError(
            f"--resume: the images are not those that the epoch was begun with: {said}; "
            "put them back, or go on with the rest of the new ones by --data-changed"
        )
    note = f"resumed {'inside an epoch ' * begun}with other images: {said}"
    if "validation" in changes:
        note += (
            "; the best epoch is the one that was chosen on those of before"
            if ended
            else "; the best epoch is chosen anew, since earlier scores are of other images"
        )
        if len(changes) > 1:
            note += f". {DRAWN_ANEW}"
    notes = [*record["notes"], note, *touched]
    return {"inventory": now, "notes": notes}, notes


def write_record(out: str | Path, record: Record) -> None:
    """Writes ``data.json``."""
    write_atomically(data_path(out), json.dumps(record, indent=1))
