"""Small runs for tests, each in a process of its own, as a person's would be."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import SystemRandom
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from isometry.cli.arguments import parse
from isometry.cli.main import main
from isometry.config import RunConfig
from isometry.distributed import World
from isometry.models.spec import student_spec
from isometry.training import results
from isometry.training.assemble import assemble
from isometry.training.checkpoint.index import read_index, seal
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.loop import Trainer
from isometry.training.student import StudentPlan, plan_student

TEACHER_KWARGS = (
    "patch_size=4",
    "embed_dim=32",
    "depth=2",
    "depth_token_only=1",
    "num_heads=2",
    "init_values=0.1",
)
STUDENT_KWARGS = ("patch_size=4", "embed_dim=16", "depth=2", "num_heads=2", "mlp_ratio=2")

DIGITS = [
    "--dataset",
    "digits",
    "--img-size",
    "8",
    "--in-chans",
    "1",
    "--batch-size",
    "150",
    "--validation-batch-size",
    "500",
    "--workers",
    "0",
    "--hflip",
    "0",
    "--color-jitter",
    "0",
    "--scale",
    "0.6",
    "1",
    "--ratio",
    "0.8",
    "1.25",
    "--crop-pct",
    "1",
    "--warmup-epochs",
    "0",
    "--lr",
    "1e-3",
    "--device",
    "cpu",
]
"""Six steps an epoch, on every augmentation that the recipes use."""

TINY_TEACHER = [*DIGITS, "--model", "cait_xxs24_224", "--model-kwargs", *TEACHER_KWARGS]
TINY_STUDENT = [*DIGITS, "--student", "vit_tiny_patch16_224", "--student-kwargs", *STUDENT_KWARGS]

TERMS = [
    "--losses.soft",
    "1",
    "--losses.whole",
    "1",
    "--losses.embedding",
    "1",
    "--losses.random.k",
    "40",
]
"""One on logits, one on relations, one with a projection, and one that draws."""

LIVELY = [
    "--epochs",
    "2",
    "--aa",
    "rand-m9-mstd0.5-inc1",
    "--mixup",
    "0.2",
    "--reprob",
    "0.25",
    "--smoothing",
    "0.1",
    "--drop-path",
    "0.2",
    "--clip-grad",
    "1",
    "--model-ema",
    "--model-ema-decay",
    "0.9",
    *TERMS,
]
"""Whatever a run can draw at random, and everything that a checkpoint can hold."""

SECONDS_TO_WAIT = 120
"""A run that takes longer hangs."""

PRELOADED = ["isometry.cli.main", "helpers.runs", "sklearn.datasets"]
"""What runs are forked with. The digits need scikit-learn, and every run would import it again for a third of its
time.
"""

UNMEASURED: dict[str, Any] = {"images_per_second": lambda *_, **__: 1.0, "SECONDS_TIMED": 0.01}
UNDRAWN: dict[str, Any] = {"render_report": lambda *_: ""}
"""Of :mod:`isometry.training.results`: the end of a run without what takes most of its time."""


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code (minus the signal, if that ended it), and what it said."""

    code: int
    out: str
    err: str


def run_command(*words: str, environment: dict[str, str] | None = None) -> Ended:
    """``python -m isometry WORDS``, from the shell's point of view; it takes seconds to import everything."""
    done = subprocess.run(
        [sys.executable, "-m", "isometry", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=SECONDS_TO_WAIT,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class Started:
    """``isometry WORDS`` in a process of its own that has everything imported already; see :func:`start`."""

    def __init__(self, process: BaseProcess, said: Path) -> None:
        self.process, self._said = process, said

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None
        return self.process.pid

    def wait(self, seconds: float = SECONDS_TO_WAIT) -> Ended:
        """Waits for its end."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"still running after {seconds} s; it said: {self._read('err')}")
        return Ended(self.process.exitcode, self._read("out"), self._read("err"))

    def _read(self, stream: str) -> str:
        return self._said.with_suffix(f".{stream}").read_text(encoding="utf-8")


def start(
    *words: str, said: Path, prepare: Callable[[], None] | None = None, report: bool = False
) -> Started:
    """Starts ``isometry WORDS`` without waiting for it.

    Args:
        words: the command line.
        said: where its output goes: ``SAID.out`` and ``SAID.err``.
        prepare: called in the process first, e.g. to make something fail; a function of a module, or a
            partial of one.
        report: whether the page is drawn, which takes a third of a short run's time; else it is empty.
    """
    # Forked from a process that has imported everything but computed nothing: autograd can't be forked once
    # used.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_run, args=(list(words), str(said), prepare, report))
    process.start()
    return Started(process, said)


def run(*words: str, said: Path, prepare: Callable[[], None] | None = None, report: bool = False) -> Ended:
    """``isometry WORDS`` to its end; see :func:`start`."""
    return start(*words, said=said, prepare=prepare, report=report).wait()


def _run(words: list[str], said: str, prepare: Callable[[], None] | None, report: bool) -> None:
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}.{stream}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    torch.set_num_threads(1)
    # Loading processes start as they do from the command line, not as this process was started.
    multiprocessing.set_start_method("fork", force=True)
    for name, value in (UNMEASURED if report else UNMEASURED | UNDRAWN).items():
        setattr(results, name, value)
    if prepare is not None:
        prepare()
    code = main(words)
    sys.stdout.flush()
    sys.exit(code)


FILE_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"})


def watch_files(folder: str, journal: str, die_at: int = 0) -> None:
    """Writes what this process is about to do to files in ``folder`` into ``journal``, a line each.

    Before line number ``die_at`` (from 1) it is killed.
    """
    lines = 0
    owner = os.getpid()
    paper = os.open(journal, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)

    def hook(event: str, details: tuple[Any, ...]) -> None:
        nonlocal lines
        if event not in FILE_EVENTS or os.getpid() != owner or not str(details[0]).startswith(folder):
            return
        lines += 1
        if lines == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(paper, f"{event} {str(details[0]).removeprefix(folder)}\n".encode())

    sys.addaudithook(hook)


def call_at(target: str, number: int, action: Callable[[], None]) -> None:
    """Makes the ``number``-th call (from 1) of ``module:Class.method`` do ``action`` first."""
    module, _, path = target.partition(":")
    owner: Any = __import__(module, fromlist=["_"])
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            action()
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def send_self(number: int) -> None:
    """Sends this process a signal."""
    os.kill(os.getpid(), number)


def signalled_at_step(step: int, number: signal.Signals) -> Callable[[], None]:
    """For ``prepare``: the process gets the signal as its step ``step`` (from 1) begins."""
    return partial(call_at, "isometry.training.loop:Trainer.train_step", step, partial(send_self, number))


def config_of(*words: str) -> RunConfig:
    """The RunConfig of a command line."""
    return parse(RunConfig, list(words))


def plan_of(config: RunConfig) -> StudentPlan:
    """The plan of a config's student."""
    spec = student_spec(config, config.prune)
    return plan_student(spec, config.prune, config.grow, config.epochs, config.seed)


def trainer_of(*words: str, folder: RunFolder | None = None, device: str = "cpu") -> Trainer:
    """The Trainer of a command line in this process; without a folder it writes nothing."""
    world = World(0, 1, torch.device(device))
    run = assemble(config_of(*words), world)
    return Trainer(run, folder, world, None, "test")


DIFFERENT = ('"seconds"', '"checksum"', '.safetensors"')
"""Lines of ``checkpoint.json``: the clock's, what follows from it, and names of files with their checksums."""

UNEQUAL = (
    *("times.csv", "times.jsonl", "summary.json", "stages.json", "report.html", "report.json"),
    *("config.yaml", ".lock", ".isometry-outputs.json"),
)


def contents(folder: Path) -> dict[str, Any]:
    """Everything in a run folder that must be the same for the same run: tensors by file and name, texts by
    file.

    Left out: what holds times of day or of the clock (``summary.json``, ``stages.json``, ``report.html`` and its
    checksum, the seconds in ``last/checkpoint.json``), ``config.yaml``, which says how the run was begun, and the
    checkpoints before the last ones, for when those were saved may differ. Tensors of a checkpoint go by part.
    """
    return dict(_contents(folder))


def _contents(folder: Path) -> Iterator[tuple[str, Any]]:
    parts, before = {}, set()
    for index in folder.rglob("checkpoint.json"):
        parts |= {index.with_name(name): part for part, name in read_index(index)["files"].items()}
    for index in folder.rglob("before.json"):
        before |= {index, *(index.with_name(name) for name in read_index(index)["files"].values())}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name in UNEQUAL or path in before - {*parts}:
            continue
        name = str(path.with_name(parts.get(path, path.name)).relative_to(folder))
        if path.suffix == ".safetensors":
            for key, tensor in load_file(path).items():
                yield f"{name}:{key}", (tensor.dtype, tensor.shape, tensor.numpy().tobytes())
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            yield name, [line for line in lines if not any(word in line for word in DIFFERENT)]


def rewrite_index(index: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes what a checkpoint's index says, as somebody would who can compute its checksum."""
    told = read_index(index)
    change(told)
    index.write_text(seal(told), encoding="utf-8")


Told = tuple[dict[str, Any], list[str]]
"""What a run leaves, and what it does to its folder's files on the way."""


def left_alone(words: list[str], folder: Path) -> Told:
    """The run when nothing happens to it."""
    watch = partial(watch_files, str(folder / "run"), str(folder / "journal"))
    ended = run(*words, "--out", str(folder / "run"), said=folder / "said", prepare=watch, report=True)
    assert ended.code == 0, ended.err
    return contents(folder / "run"), (folder / "journal").read_text().splitlines()


def check_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Says which file differs, where comparing whole dictionaries would print megabytes."""
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


def disturb(
    words: list[str], folder: Path, wanted: dict[str, Any], *preparations: Callable[[], None], code: int
) -> list[str]:
    """Starts the run and goes on with it, disturbed each time in another way, then to its end; returns what
    it said.
    """
    said = []
    for number, prepare in enumerate(preparations):
        resume = ["--resume"] if number else []
        ended = run(
            *words, "--out", str(folder / "run"), *resume, said=folder / f"said-{number}", prepare=prepare
        )
        assert ended.code == code, ended.err
        said.append(ended.err)
    ended = run(*words, "--out", str(folder / "run"), "--resume", said=folder / "said-last")
    assert ended.code == 0, ended.err
    check_equal(contents(folder / "run"), wanted)
    return said


def killed_at(folder: Path, number: int) -> Callable[[], None]:
    """For ``prepare``: SIGKILL before the ``number``-th thing that the process does to its folder's files."""
    return partial(watch_files, str(folder / "run"), str(folder / "journal"), number)


# --- two processes
# ------------------------------------------------------------------------------------------------------


def as_rank(rank: int, rendezvous: str, ranks: int = 2) -> World:
    """Joins a group of ``ranks`` processes through a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)
    return World(rank, ranks, torch.device("cpu"))


def in_processes(ranks: int, function: Callable[..., None], folder: Path, *arguments: Any) -> None:
    """``function(rank, rendezvous, *arguments)`` in processes; a failure in one is a failure here."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    started = [
        context.Process(target=function, args=(rank, str(folder / "rendezvous"), *arguments))
        for rank in range(ranks)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS_TO_WAIT)
        if process.exitcode is None:
            process.kill()
    assert [process.exitcode for process in started] == [0] * ranks


in_two_processes = partial(in_processes, 2)


Prepare = Callable[[], None] | None


def in_a_world(rank: int, ranks: int, port: int, prepare: Prepare) -> None:
    """What `torchrun` tells a process."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )  # fmt: skip
    if prepare is not None:
        prepare()


def run_ranks(*words: str, folder: Path, port: int, prepare: Sequence[Prepare] = (None, None)) -> list[Ended]:
    """The same command line in the processes of one world, one for each that prepares."""
    started = [
        start(
            *words,
            said=folder / f"rank{rank}-{port}",
            prepare=partial(in_a_world, rank, len(prepare), port, each),
        )
        for rank, each in enumerate(prepare)
    ]
    return [each.wait() for each in started]


def free_port() -> int:
    """A port that nobody listens on now.

    Below those that systems hand out by themselves: the sockets of other runs could take such a one before it is
    used.
    """
    while True:
        port = SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
