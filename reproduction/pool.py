"""Parallel runs in long-lived processes of one thread each: the fastest way to train small networks on a few cores."""

import json
import multiprocessing
import os
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
from isometry.evaluation.environment import environment, processor
from isometry.files import write_atomically
from isometry.training.checkpoint.run_folder import config_path
from isometry.training.run import execute
from isometry.training.signals import Interrupted

MEASURED = "measured.json"
"""File in the folder of a finished run: when, where and for how long it ran."""


@dataclass(frozen=True)
class Task:
    """A run and its name in progress lines."""

    label: str
    config: RunConfig

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.config.out)

    @property
    def finished(self) -> bool:
        """Whether the run has ended successfully, now or earlier."""
        return (self.folder / MEASURED).is_file()


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection


class Pool:
    """``with Pool(2) as pool``: processes that import the package once and train one config after another.

    The results of a run are bit-identical to those of the same run alone with one thread (``OMP_NUM_THREADS=1``). If
    the block is left by an exception, such as KeyboardInterrupt, unfinished runs save a checkpoint and stop.

    Args:
        processes: number of parallel runs.
    """

    def __init__(self, processes: int) -> None:
        # Forked from a process that has imported everything but computed nothing, since autograd can't be forked once
        # it was used.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._workers: list[_Worker] = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            # Only the child may hold this end open: otherwise its death would not close the pipe.
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
        """Runs all tasks and yields each as it ends.

        Raises:
            UserError: a run failed, or its process was killed.
        """
        waiting, idle = deque(tasks), list(self._workers)
        busy: dict[Any, tuple[_Worker, Task]] = {}
        while waiting or busy:
            while waiting and idle:
                worker, task = idle.pop(), waiting.popleft()
                with _reports_killed_process(task):
                    worker.connection.send(task.config)
                busy[worker.connection] = worker, task
            for connection in wait(list(busy)):
                worker, task = busy.pop(connection)
                with _reports_killed_process(task):
                    failure = worker.connection.recv()
                if failure:
                    raise UserError(f"{task.label}: {failure}")
                idle.append(worker)
                yield task


@contextmanager
def _reports_killed_process(task: Task) -> Iterator[None]:
    """Raises a UserError for a closed pipe."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise UserError(
            f"{task.label}: its process was killed, most often because memory ran out; finished runs are kept: "
            "give the same command again, perhaps with --processes 1"
        ) from error


def _serve(connection: Connection) -> None:
    """Trains each config received and replies with its error message, until the pipe is closed."""
    # A terminal sends Ctrl-C to all processes, but this one is stopped by its parent, through SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    while True:
        try:
            connection.send(_run(connection.recv()))
        except (EOFError, ConnectionError):
            return


def _run(config: RunConfig) -> str:
    """Trains a config; returns the error message, empty if it succeeded."""
    load, started, cpu_started = os.getloadavg()[0], time.monotonic(), time.process_time()
    try:
        execute(replace(config, resume=config_path(config.out).is_file()), Console(quiet=True))
    except (Interrupted, KeyboardInterrupt):
        return "stopped and saved; give the same command again to continue"
    except UserError as error:
        return str(error)
    measured = {
        "finished": datetime.now(UTC).date().isoformat(),
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "load": load,
        "processor": processor(),
        "cores": os.cpu_count(),
        **environment(torch.device(config.device or "cpu")),
    }
    write_atomically(Path(config.out) / MEASURED, json.dumps(measured, indent=1))
    return ""
