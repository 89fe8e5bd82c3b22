"""A run's folder: claimed by one process at a time, with the resolved config and the metrics in it."""

import csv
import fcntl
import io
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from isometry.checkpoint import write_atomically
from isometry.config import RunConfig, changed_options, config_to_yaml, read_saved
from isometry.errors import UserError

Row = dict[str, Any]


class RunFolder:
    """``with RunFolder(config) as folder``: the folder of the run, locked against other runs until the block ends.

    Raises:
        UserError: another process is using the folder, it holds another run, or it can't be written.
    """

    def __init__(self, config: RunConfig) -> None:
        if not config.out:
            raise UserError("--out: no folder given for the run, e.g. --out runs/first")
        self.resume = config.resume
        self.path = Path(config.out)
        self.metrics = Metrics(self.path)

    @property
    def last(self) -> Path:
        """Checkpoint of the latest save."""
        return self.path / "last"

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch on the validation part."""
        return self.path / "best"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    def __enter__(self) -> "RunFolder":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise UserError(f"--out {self.path}: can't be written ({error.strerror})") from error
        try:
            # The kernel lets go of this lock when the process ends, however it ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise UserError(f"--out {self.path}: another run is writing here; choose another folder") from error
        try:
            self._refuse_other_contents()
        except UserError:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def begin(self, config: RunConfig) -> None:
        """Writes ``config.yaml``; when resuming, checks that the run is the one that was begun.

        Raises:
            UserError: an option that matters has changed; the message names it.
        """
        if self.resume:
            changed = changed_options(RunConfig(**read_saved(self.config)), config)
            if changed:
                name, old, new = changed[0]
                raise UserError(
                    f"--resume: {name} was {old!r} in {self.path} and is {new!r} now; take it back, or start a new --out"
                )
            return
        write_atomically(self.config, config_to_yaml(config))

    def _refuse_other_contents(self) -> None:
        if self.resume:
            if not self.config.is_file():
                raise UserError(f"--resume: there is no run in {self.path} (no config.yaml)")
            return
        holds = sorted(p.name for p in self.path.iterdir() if p.name != ".lock")
        if self.config.is_file():
            raise UserError(f"--out {self.path}: holds another run; add --resume to go on with it, or choose another")
        if holds:
            raise UserError(f"--out {self.path}: is not empty (it holds {holds[0]}); choose another folder")

    def _leave(self) -> None:
        """Lets go of the folder; one in which nothing was begun is left as it was found."""
        lock = self.path / ".lock"
        if not self.config.is_file():
            lock.unlink(missing_ok=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()
        self._lock.close()


class Metrics:
    """``metrics.csv`` and ``metrics.jsonl``: one row an epoch, every term by name; the same bytes for the same run."""

    def __init__(self, folder: Path) -> None:
        self.csv = folder / "metrics.csv"
        self.jsonl = folder / "metrics.jsonl"

    def append(self, row: Row) -> None:
        """Adds a row; every row has the same keys."""
        line = io.StringIO()
        writer = csv.DictWriter(line, fieldnames=list(row), lineterminator="\n")
        if not self.csv.exists() or self.csv.stat().st_size == 0:
            writer.writeheader()
        writer.writerow(row)
        try:
            with self.csv.open("a", encoding="utf-8", newline="") as file:
                file.write(line.getvalue())
            with self.jsonl.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise UserError(f"{self.csv.parent}: could not write metrics ({error.strerror})") from error

    def rows(self) -> list[Row]:
        """All rows so far."""
        if not self.jsonl.exists():
            return []
        return [json.loads(line) for line in self.jsonl.read_text(encoding="utf-8").splitlines()]

    def sizes(self) -> dict[str, int]:
        """Bytes of both files, for :meth:`rewind`."""
        return {path.name: path.stat().st_size if path.exists() else 0 for path in (self.csv, self.jsonl)}

    def rewind(self, sizes: dict[str, int]) -> None:
        """Cuts both files back to where they were when a checkpoint was saved."""
        for path in (self.csv, self.jsonl):
            if path.exists():
                with path.open("rb+") as file:
                    file.truncate(sizes.get(path.name, 0))
