"""The folder of a teacher's answers: asked once for every batch of every epoch, read after that.

Batches are a function of (seed, epoch, position), augmentation included, so that a later run of the same seed and data,
whatever its student, losses or length, finds the answers that it needs. ``identity.json`` says what they depend on, and
is checked first; each entry says by a fingerprint which images it is about, and is checked again.
"""

import json
import os
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from safetensors import SafetensorError
from torch import Tensor

from isometry.distributed import World
from isometry.errors import UserError, first_line
from isometry.files import format_bytes, free_bytes, nearest
from isometry.models.taps import Grid
from isometry.models.teacher import TeacherOutput
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
"""Bytes of the disk that a cache leaves to everything else, the run's checkpoints first."""

STALE = 3600
"""Seconds after which nobody is writing a half-written file any more."""


class Place(NamedTuple):
    """Where a run stands: the epoch, from 0, and how many of its images all processes together have seen before."""

    epoch: int
    seen: int


class TeacherCache:
    """The answers of a teacher in a folder, one file a batch and process; :meth:`open` makes one.

    What :meth:`taught` gives does not depend on what the folder holds. No trouble with the disk ends a run: an answer
    that can't be read is asked for, and one that can't be stored is asked for the next time.

    Attributes:
        notes: what the person should be told, each kind of trouble once.
        read, asked: answers so far, from the folder and from the teacher.
    """

    def __init__(
        self, folder: Path, identity: dict[str, Any], limit_bytes: int, world: World, together: bool
    ) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self.read = self.asked = 0
        self._identity = identity
        self._key = zlib.crc32(json.dumps(identity, sort_keys=True).encode())
        self._limit = limit_bytes
        self._world = world
        self._together = together
        self._begun = False
        self._writing = True
        self._troubles: set[str] = set()
        sizes = [(path.name, _size(path)) for path in folder.glob("epoch-*/*")]
        self._held = sum(size for _, size in sizes)
        self._used = sum(size for name, size in sizes if f"-rank-{world.rank}." in name)

    @classmethod
    def open(
        cls,
        folder: Path,
        identity: dict[str, Any],
        *,
        limit_bytes: int,
        world: World,
        together: bool = False,
    ) -> Self:
        """The cache in a folder, which need not be there yet; writes nothing.

        Args:
            folder: where it is; a folder of its own.
            identity: all that the answers depend on, by name in words, as JSON.
            limit_bytes: what the entries of all processes may take together.
            world: the processes; each has entries of its own, and its share of the limit.
            together: the teacher is asked by all processes at once (it is sharded): where one has to, all do.

        Raises:
            UserError: it is a cache of another teacher, data, seed, ..., which the message names; something else is
                in the folder; it can't be read or made.
        """
        told = f"--teacher-cache {folder}"
        # As it comes back from a file: lists for tuples.
        identity = json.loads(json.dumps(identity))
        try:
            if not _is_cache_of(identity, folder):
                others = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
                if others and not others[0].startswith(IDENTITY):
                    raise UserError(f"{told}: holds {others[0]} and no {IDENTITY}; give a folder of its own")
                if not os.access(nearest(folder), os.W_OK):
                    raise UserError(f"{told}: can't be written; give another folder")
            return cls(folder, identity, limit_bytes, world, together)
        except OSError as error:
            raise UserError(f"{told}: can't be used ({_why(error)}); give another folder") from error

    def taught(
        self, place: Place, input_BCHW: Tensor, grids: dict[int, Grid], ask: Callable[[], TeacherOutput]
    ) -> TeacherOutput:
        """What the teacher says about the images at a place: read, or else asked, and stored where it fits.

        Args:
            place: where the run stands.
            input_BCHW: the images as the student gets them; the answer comes on their device.
            grids: the rows and columns of the tokens that are needed, by block.
            ask: asks the teacher about these images, with the tokens of those blocks at least.

        Returns:
            Tokens as the teacher gave them, bit by bit; logits as :func:`isometry.training.teacher_cache.entry.unpack` says.
        """
        seen, path = fingerprint(input_BCHW), self._path(place)
        names = frozenset(token_name(block, grid) for block, grid in grids.items())
        entry = self._find(path, seen, LOGITS | names, input_BCHW)
        missing = entry is None or not names <= entry.keys()
        if self._together:
            missing = self._world.any(missing)
        if entry is not None and not missing:
            self.read += 1
            return unpack(entry, grids)
        self.asked += 1
        answer = pack(ask(), grids)
        self._store(path, seen, answer)
        # Packed and unpacked, so that the answer is the one that is read the next time.
        return unpack(answer, grids)

    def forecast(self, size: Estimate) -> str:
        """A line for the person, before anything is written: what the run takes, and how much of it fits."""
        free = free_bytes(self.folder)
        limit = f"the limit of {format_bytes(self._limit)} (--teacher-cache-size)"
        room = {
            limit: self._share,
            f"the disk ({format_bytes(free)} free)": self._used + (free - LEFT_FREE) // self._world.size,
        }
        held = f"; {format_bytes(self._held)} are there already" if self._held else ""
        return f"teacher cache {self.folder}: {size.words(room, self._world.size)}{held}"

    @property
    def _share(self) -> int:
        return self._limit // self._world.size

    def _path(self, place: Place) -> Path:
        name = f"from-{place.seen:09d}-rank-{self._world.rank}.safetensors"
        return self.folder / f"epoch-{place.epoch:05d}" / name

    def _find(self, path: Path, seen: str, names: frozenset[str] | None, like: Tensor) -> Entry | None:
        """The tensors of an entry about these images, as far as it has them; None without a sound one."""
        try:
            about, entry = read_entry(path, names, self._key, like.device)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            self._note("damaged", f"{path} is damaged ({_why(error)}), and is computed anew")
            return None
        if about != seen:
            changed = "the files of the images have changed, or the libraries that augment them"
            self._note("images", f"{path} is about other images, and is computed anew: {changed}")
            return None
        return entry

    def _store(self, path: Path, seen: str, entry: Entry) -> None:
        """Writes an entry where it fits, with what the one before it has of other blocks."""
        if not self._writing:
            return
        entry = (self._find(path, seen, None, entry["logits"]) or {}) | entry
        before, size = _size(path), sum(tensor.nbytes for tensor in entry.values())
        if self._used - before + size > self._share or free_bytes(self.folder) - size < LEFT_FREE:
            return
        try:
            self._begin()
            write_entry(path, entry, seen, self._key)
        except (OSError, SafetensorError) as error:
            self._writing = False
            self._note("disk", f"can't be written ({_why(error)}); the teacher is asked for what it lacks")
        self._used += _size(path) - before

    def _begin(self) -> None:
        """Before the first entry: claims the folder, and clears away what killed runs left half written."""
        if self._begun:
            return
        # Another run may have claimed it since it was opened.
        if not _is_cache_of(self._identity, self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = self.folder / f"{IDENTITY}.{self._world.rank}.new"
            fresh.write_text(json.dumps(self._identity, indent=1), encoding="utf-8")
            fresh.replace(self.folder / IDENTITY)
        for path in self.folder.glob("epoch-*/*.new"):
            # Another process may be clearing too.
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > STALE:
                    path.unlink()
        self._begun = True

    def _note(self, kind: str, words: str) -> None:
        if kind not in self._troubles:
            self._troubles.add(kind)
            self.notes.append(f"teacher cache {self.folder}: {words}")


def _is_cache_of(identity: dict[str, Any], folder: Path) -> bool:
    """Whether the folder is a cache of ``identity``; False where it is none; UserError where it is another's."""
    told = f"--teacher-cache {folder}"
    try:
        found = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise UserError(f"{told}: {IDENTITY} is damaged; delete the folder, or give another") from error
    if not isinstance(found, dict):
        raise UserError(f"{told}: {IDENTITY} is none of a cache; give another folder")
    changed = [name for name in {**found, **identity} if found.get(name) != identity.get(name)]
    if changed:
        differs = ", ".join(
            f"{name} was {_shown(found.get(name))} and is {_shown(identity.get(name))}" for name in changed
        )
        raise UserError(f"{told}: is of another run: {differs}; give another --teacher-cache DIR")
    return True


def _shown(value: Any) -> str:
    # A hash is told by its beginning.
    text = str(value)
    return f"{text[:12]}…" if isinstance(value, str) and len(text) == 64 else text


def _why(error: BaseException) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or first_line(error)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
