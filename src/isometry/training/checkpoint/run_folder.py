"""A run's folder, locked by one process at a time: the resolved config, and what is refused there."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from isometry.config import RunConfig
from isometry.config.paths import has_moved, same_place
from isometry.data.worker_failures import WorkerDied
from isometry.errors import UserError, is_utf8, reason
from isometry.files import (
    NEW,
    OUTPUTS,
    check_replaceable,
    inside,
    nearest,
    new_path,
    open_own,
    write_atomically,
)
from isometry.models.network_folder import check_unchanged
from isometry.recipes import as_resumed, changed_options, config_to_yaml, read_saved
from isometry.training.checkpoint.files import has_checkpoint, remove_checkpoint
from isometry.training.checkpoint.metrics import Metrics
from isometry.training.signals import Interrupted

NAMES = (
    *("config.yaml", ".lock", "metrics.csv", "metrics.jsonl", "times.csv", "times.jsonl", "not_finite.json"),
    *("data.json", "last", "best", "student", "model", "summary.json", "stages.json"),
    *("report.html", "report.json", "report.safetensors", "tensorboard", "wandb", "wandb-id", OUTPUTS),
)
"""What training writes into a run's folder: a link there is refused before it begins."""


def last_checkpoint(out: str | Path) -> Path:
    """Checkpoint of the latest save of the run in ``out``."""
    return Path(out) / "last"


def config_path(out: str | Path) -> Path:
    """The resolved config of the run in ``out``."""
    return Path(out) / "config.yaml"


def begun_as(config: RunConfig) -> RunConfig | None:
    """The configuration that a run which resumes was begun with; None of one that begins.

    Raises:
        UserError: it can't be read.
    """
    path = config_path(config.out)
    return read_saved(path)[0] if config.resume and path.is_file() else None


def folder_to_resume(config: RunConfig) -> "RunFolder | None":
    """The folder of the run that ``config`` would go on with; None for one that would begin. Creates nothing.

    Raises:
        UserError: the run can't use its folder.
    """
    if not config.out:
        return None
    folder = RunFolder(config)
    existing = nearest(folder.path)
    if not existing.is_dir():
        raise UserError(f"--out {folder.path}: can't be written ({existing} is not a folder)")
    if not os.access(existing, os.W_OK):
        raise UserError(f"--out {folder.path}: can't be written (no permission to write to {existing})")
    if existing == folder.path:
        folder.refuse_other_contents()
        return folder if folder.config.is_file() else None
    if config.resume:
        raise UserError(f"--resume: there is no run in {folder.path} (no such folder)")
    return None


class RunFolder:
    """``with RunFolder(config) as folder``: the run's folder, locked against other runs inside the block.

    A new run that fails before its first save leaves the folder as it was, so that the corrected command needs no
    other folder.

    Raises:
        UserError: another process is using the folder, it holds another run, or it can't be written.
    """

    def __init__(self, config: RunConfig) -> None:
        if not config.out:
            raise UserError("--out: no folder given for the run, e.g. --out runs/first")
        if not is_utf8(config.out):
            raise UserError(
                f"--out {config.out}: its name is not UTF-8, and no weights can be read from it; give another --out"
            )
        self.path = Path(config.out)
        self.metrics, self.times = Metrics(self.path), Metrics(self.path, "times")
        self._resume, self._made, self._new = config.resume, False, False
        self._begun: RunConfig | None = None

    @property
    def last(self) -> Path:
        """Checkpoint of the latest save."""
        return last_checkpoint(self.path)

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch on the validation part."""
        return self.path / "best"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return config_path(self.path)

    def __enter__(self) -> "RunFolder":
        try:
            if self._resume and not self.path.is_dir():
                raise UserError(f"--resume: there is no run in {self.path} (no such folder)")
            self._made = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            for name in NAMES:
                inside(self.path, name)
            self._lock = open_own(self._lock_file, "a")
        except OSError as error:
            raise UserError(f"--out {self.path}: can't be written ({reason(error)})") from error
        try:
            # The kernel lets go of this lock when the process ends, however it ends. (One by flock would be
            # shared with the loading processes, which outlive a killed run by seconds.)
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            taken = isinstance(error, BlockingIOError | PermissionError)
            why = "another run is writing here" if taken else f"can't be locked ({reason(error)})"
            raise UserError(f"--out {self.path}: {why}; give another --out") from error
        try:
            self.refuse_other_contents()
        except UserError:
            self._leave(failed=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(failed=kind is not None and issubclass(kind, Exception | WorkerDied | Interrupted))

    def begin(self, config: RunConfig) -> list[str]:
        """Writes ``config.yaml``; if there is one, checks that it is of this run.

        Returns:
            Notes on options that ``config.yaml`` lacks because they were added since, and on paths that have moved.

        Raises:
            UserError: options that affect the results have changed; the message names them.
        """
        if not self.config.is_file():
            self._new = True
            write_atomically(self.config, config_to_yaml(config))
            return []
        return self.refuse_other_options(config)

    def refuse_other_options(self, config: RunConfig) -> list[str]:
        """Compares a config with the folder's ``config.yaml``; returns the notes, and raises the errors, of
        :meth:`begin`."""
        self._begun, notes = read_saved(self.config)
        changed = [each for each in changed_options(self._begun, config) if not same_place(*each)]
        moved = [each for each in changed if has_moved(*each)]
        notes += [f"--{name.replace('_', '-')}: {old} is gone, {new} is used" for name, old, new in moved]
        if changed := [each for each in changed if each not in moved]:
            differences = ", ".join(
                f"--{name.replace('_', '-')} was {old!r} and is {new!r} now" for name, old, new in changed
            )
            raise UserError(
                f"--resume: not the run in {self.path}: {differences}; "
                "give the same value again, or start a new run with another --out"
            )
        return notes

    def keep_options(self, config: RunConfig) -> list[str]:
        """Writes ``config.yaml`` again if what may differ on resume does; returns a note that names it, if any.

        Not in :meth:`begin`, where the images at another place are not known yet to be the run's.
        """
        kept, changed = as_resumed(self._begun, config) if self._begun else (config, [])
        if changed:
            write_atomically(self.config, config_to_yaml(kept))
        said = ", ".join(changed)
        return [f"{self.config}: written again, with the options of now that may differ: {said}"] * bool(said)

    @property
    def _lock_file(self) -> Path:
        return self.path / ".lock"

    def refuse_other_contents(self) -> None:
        """Raises UserError if the folder, which exists, holds anything but the run that ``resume`` continues, or a file
        that the run would replace and that was changed."""
        # Left by a run that was killed before it began.
        traces = {self._lock_file.name, f"{self.config.name}{NEW}"}
        holds = sorted({path.name for path in self.path.iterdir()} - traces)
        if self.config.is_file():
            if not self._resume:
                raise UserError(
                    f"--out {self.path}: already holds a run; add --resume to continue that run, or give another --out"
                )
        elif holds and self._resume:
            raise UserError(f"--resume: there is no run in {self.path} (no config.yaml)")
        elif holds:
            raise UserError(f"--out {self.path}: is not empty (it holds {holds[0]}); give another --out")
        for name in ("student", "model"):
            check_unchanged(self.path / name)
        check_replaceable(self.path / "report.html")

    def _leave(self, failed: bool) -> None:
        if failed and self._new and not has_checkpoint(self.last):
            for folder in (self.last, self.best):
                remove_checkpoint(folder)
            for file in (self.config, self.path / "data.json", *self.metrics.files, *self.times.files):
                file.unlink(missing_ok=True)
        if not self.config.is_file():
            new_path(self.config).unlink(missing_ok=True)
            self._lock_file.unlink(missing_ok=True)
            if self._made:
                # Not if another program has added files since.
                with suppress(OSError):
                    self.path.rmdir()
        self._lock.close()
