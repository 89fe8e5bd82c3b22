"""Runs side by side, in long-lived processes with one thread each: how a few cores train small networks fastest."""

import json
import multiprocessing
import os
import platform
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console

from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.evaluation.environment import environment
from isometry.files import write_atomically
from isometry.training.checkpoint.run_folder import config_path
from isometry.training.run import execute
from isometry.training.signals import Interrupted

MEASURED = "measured.json"
"""In a run's folder, once the run is finished: when, where and for how long it ran."""


@dataclass(frozen=True)
class Task:
    """A run, and what a person calls it."""

    label: str
    config: RunConfig

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.config.out)

    @property
    def finished(self) -> bool:
        """Whether it need not be run again."""
        return (self.folder / MEASURED).is_file()


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection


class Pool:
    """``with Pool(2) as pool``: processes that import everything once and run one config after the other.

    A run ends with the bits that it has alone with one thread (``OMP_NUM_THREADS=1``). When the block is left early,
    by Ctrl-C say, runs on the way save where they stand.

    Args:
        processes: runs at a time.
    """

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            # Theirs alone keeps the pipe open, so that its end is theirs.
            theirs.close()
            self._workers.append(_Worker(process, ours))

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:
            if kind is not None and worker.process.is_alive():
                worker.process.terminate()
        for worker in self._workers:
            worker.connection.close()
            worker.process.join()

    def each(self, tasks: Sequence[Task]) -> Iterator[Task]:
        """Runs all tasks, and gives each back when it has ended.

        Raises:
            UserError: a run failed, or its process was killed; runs that ended before are finished.
        """
        waiting, idle = deque(tasks), list(self._workers)
        busy: dict[Any, tuple[_Worker, Task]] = {}
        while waiting or busy:
            while waiting and idle:
                worker, task = idle.pop(), waiting.popleft()
                with _deaths(task):
                    worker.connection.send(task.config)
                busy[worker.connection] = worker, task
            for connection in wait(list(busy)):
                worker, task = busy.pop(connection)
                with _deaths(task):
                    failure = worker.connection.recv()
                if failure:
                    raise UserError(f"{task.label}: {failure}")
                idle.append(worker)
                yield task


@contextmanager
def _deaths(task: Task) -> Iterator[None]:
    """A process that is not there any more, in words."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise UserError(
            f"{task.label}: its process was killed, most often because memory ran out; what is finished is kept: "
            "give the same command again, perhaps with --processes 1"
        ) from error


def _serve(connection: Connection) -> None:
    """Runs each config that comes, and answers with what went wrong; until nobody is there any more."""
    # Ctrl-C goes to all processes of a terminal; who started this one tells it what to do. A run that is in its loop
    # has a handler of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    while True:
        try:
            connection.send(_run(connection.recv()))
        except (EOFError, ConnectionError):
            return


def _run(config: RunConfig) -> str:
    """What went wrong, in words; empty if nothing did."""
    load, started, spent = os.getloadavg()[0], time.monotonic(), time.process_time()
    try:
        execute(replace(config, resume=config_path(config.out).is_file()), Console(quiet=True))
    except (Interrupted, KeyboardInterrupt):
        return "was asked to stop; it is saved: give the same command again to go on"
    except UserError as error:
        return str(error)
    measured = {
        "finished": datetime.now(UTC).date().isoformat(),
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - spent,
        "load": load,
        "processor": processor(),
        "cores": os.cpu_count(),
        **environment(torch.device(config.device or "cpu")),
    }
    write_atomically(Path(config.out) / MEASURED, json.dumps(measured, indent=1))
    return ""


def processor() -> str:
    """The CPU's own name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
