"""A folder of teacher outputs: computed once for every batch of every epoch, read from then on.

Batches are a function of (seed, epoch, position), augmentation included, so a later run with the same seed and data
finds the outputs that it needs, whatever its student, losses or length. ``identity.json`` has all that the outputs
depend on and is checked first; each entry has a fingerprint of its images, which is checked when it is read.
"""

import json
import os
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from isometry.config import FORMER_DEFAULTS
from isometry.distributed import World
from isometry.errors import UserError, reason
from isometry.files import format_bytes, free_bytes, nearest, open_own, random_path, refuse_link
from isometry.models.taps import Grid
from isometry.models.teacher import BatchPosition, TeacherOutput
from isometry.parsing import read_json
from isometry.training.teacher_cache.entry import (
    LOGITS,
    UNREADABLE,
    Entry,
    fingerprint,
    pack,
    read_entry,
    token_name,
    unpack,
    write_entry,
)
from isometry.training.teacher_cache.estimate import Estimate

IDENTITY = "identity.json"

LEFT_FREE = 2**30
"""Bytes of the disk that a cache leaves free, above all for checkpoints."""

STALE = 3600
"""Seconds after which a partial file has no writer any more."""


class TeacherCache:
    """Outputs of a teacher in a folder, one file for each batch and process.

    What :meth:`output` returns does not depend on the contents of the folder. Disk errors don't end a run: an output
    that can't be read, or could not be stored, is computed again.

    Args:
        folder: of the cache alone; it may not exist yet, and nothing is written before the first output.
        identity: all that the outputs depend on, by a readable name; values that JSON can hold.
        limit_bytes: most that the entries of all processes may take together.
        world: the processes; each has its own entries, and an equal part of the limit.
        together: whether all processes must run the teacher together, because it is sharded.

    Attributes:
        notes: messages for the user, each kind of error once.
        hits, misses: outputs so far, read from the folder and computed by the teacher.

    Raises:
        UserError: the cache is of another teacher, data, seed, ..., which the message names; the folder holds something
            else; it can't be read or created.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict[str, Any],
        *,
        limit_bytes: int,
        world: World,
        together: bool = False,
    ) -> None:
        # As it comes back from JSON, with lists for tuples.
        self.folder, self._identity = folder, json.loads(json.dumps(identity))
        self._key = zlib.crc32(json.dumps(self._identity, sort_keys=True).encode())
        self._limit, self._world, self._together = limit_bytes, world, together
        self.hits = self.misses = 0
        self.notes: list[str] = []
        self._noted: set[str] = set()
        self._claimed, self._writing = False, True
        try:
            self._check_folder()
            sizes = [(path.name, _size(path)) for path in folder.glob("epoch-*/*")]
        except OSError as error:
            raise self._refusal(f"can't be used ({reason(error)}); give another folder") from error
        self._held = sum(size for _, size in sizes)
        self._used = sum(size for name, size in sizes if f"-rank-{world.rank}." in name)

    def output(
        self,
        position: BatchPosition,
        input_BCHW: Tensor,
        grids: dict[int, Grid],
        compute: Callable[[], TeacherOutput],
    ) -> TeacherOutput:
        """Teacher outputs for a training batch: read, or else computed, and stored if they fit.

        Tokens are the teacher's, bit for bit; logits as in :func:`isometry.training.teacher_cache.entry.unpack`.

        Args:
            position: of the batch.
            input_BCHW: the images as the student gets them; outputs are on their device.
            grids: rows and columns of the tokens that are needed, by block.
            compute: runs the teacher on these images, with the tokens of at least those blocks.
        """
        images, path = fingerprint(input_BCHW), self._path(position)
        names = frozenset(token_name(block, grid) for block, grid in grids.items())
        entry = self._read(path, images, LOGITS | names, input_BCHW)
        missing = entry is None or not names <= entry.keys()
        if self._together:
            missing = self._world.any(missing)
        if entry is not None and not missing:
            self.hits += 1
            return unpack(entry, grids)
        self.misses += 1
        fresh = pack(compute(), grids)
        self._write(path, images, fresh)
        # Packed and unpacked, so that it equals what is read the next time.
        return unpack(fresh, grids)

    def forecast(self, size: Estimate) -> str:
        """One line on the disk space that the run takes, and how much of it fits; before anything is written."""
        free = free_bytes(self.folder)
        limit = f"the limit of {format_bytes(self._limit)} (--teacher-cache-size)"
        room = {
            limit: self._share,
            f"the disk ({format_bytes(free)} free)": self._used + (free - LEFT_FREE) // self._world.size,
        }
        held = f"; {format_bytes(self._held)} exist already" if self._held else ""
        return f"teacher cache {self.folder}: {size.describe(room, self._world.size)}{held}"

    def take_notes(self) -> list[str]:
        """The notes since the last call."""
        notes, self.notes = self.notes, []
        return notes

    @property
    def _share(self) -> int:
        return self._limit // self._world.size

    def _path(self, position: BatchPosition) -> Path:
        name = f"from-{position.seen:09d}-rank-{self._world.rank}.safetensors"
        return self.folder / f"epoch-{position.epoch:05d}" / name

    def _read(self, path: Path, images: str, names: frozenset[str] | None, like: Tensor) -> Entry | None:
        """Tensors of an entry, those of ``names`` that it has; None if there is none, or not of these images."""
        try:
            found, entry = read_entry(path, names, self._key, like.device)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            self._note("damaged", f"{path} is damaged ({reason(error)}), and is computed again")
            return None
        if found != images:
            changed = "the image files have changed, or the libraries that augment them"
            self._note("images", f"{path} is of other images, and is computed again: {changed}")
            return None
        return entry

    def _write(self, path: Path, images: str, entry: Entry) -> None:
        """Writes an entry if it fits, with tensors of other blocks from the previous one."""
        if not self._writing:
            return
        entry = (self._read(path, images, None, entry["logits"]) or {}) | entry
        before, size = _size(path), sum(tensor.nbytes for tensor in entry.values())
        if self._used - before + size > self._share or free_bytes(self.folder) - size < LEFT_FREE:
            return
        try:
            self._claim_folder()
            write_entry(path, entry, images, self._key)
        except (OSError, SafetensorError) as error:
            self._writing = False
            self._note(
                "disk", f"can't be written ({reason(error)}); missing outputs are computed by the teacher"
            )
        self._used += _size(path) - before

    def _check_folder(self) -> None:
        for path in (self.folder / IDENTITY, *self.folder.glob("epoch-*")):
            refuse_link(path)
        if self._is_own():
            return
        others = sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []
        if others and not others[0].startswith(IDENTITY):
            raise self._refusal(f"holds {others[0]} and no {IDENTITY}; give a folder of its own")
        if not os.access(nearest(self.folder), os.W_OK):
            raise self._refusal("can't be written; give another folder")

    def _is_own(self) -> bool:
        """Whether the folder has this identity; False if it has none, UserError if it has another one."""
        try:
            found = read_json(self.folder / IDENTITY, dict[str, Any])
        except FileNotFoundError:
            return False
        except ValueError as error:
            raise self._refusal(
                f"{IDENTITY} is damaged ({error}); delete the folder, or give another"
            ) from error
        own = self._identity
        if changed := [name for name in {**found, **own} if found.get(name) != own.get(name)]:
            differences = ", ".join(
                f"{name} was {_shown(name, found)} and is {_shown(name, own)}" for name in changed
            )
            raise self._refusal(f"is of another run: {differences}; give another --teacher-cache DIR")
        return True

    def _refusal(self, cause: str) -> UserError:
        return UserError(f"--teacher-cache {self.folder}: {cause}")

    def _claim_folder(self) -> None:
        """Before the first entry: writes the identity, and deletes partial files of killed runs."""
        if self._claimed:
            return
        # Another run may have claimed it since it was opened.
        if not self._is_own():
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = random_path(self.folder / IDENTITY)
            with open_own(fresh, "x") as file:
                json.dump(self._identity, file, indent=1)
            fresh.replace(refuse_link(self.folder / IDENTITY))
        for path in self.folder.glob("epoch-*/from-*.new"):
            # Another process may delete it at the same time.
            with suppress(FileNotFoundError):
                if not path.parent.is_symlink() and time.time() - path.stat().st_mtime > STALE:
                    path.unlink()
        self._claimed = True

    def _note(self, kind: str, text: str) -> None:
        if kind not in self._noted:
            self._noted.add(kind)
            self.notes.append(f"teacher cache {self.folder}: {text}")


ABSENT = {
    "--exif": FORMER_DEFAULTS["exif"],
    "--pixel-range": None,
    "--teacher-pixels": "student",
    "--channels-last": False,
}
"""What an identity means that lacks an option: as was done before there was one."""


def _shown(name: str, identity: dict[str, Any]) -> str:
    value = identity.get(name, ABSENT.get(name))
    # Hashes are shortened.
    text = "not given" if value is None else str(value)
    return f"{text[:12]}…" if isinstance(value, str) and len(text) == 64 else text


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
