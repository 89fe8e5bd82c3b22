"""The command line: `isometry distill | train | prune | grow | check | bench | compare`."""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape

from isometry import __version__
from isometry.bench import BenchConfig, bench
from isometry.check import check
from isometry.compare import CompareConfig, compare
from isometry.config import RunConfig
from isometry.data.deaths import end_workers, worker_deaths
from isometry.data.pixels import quiet_decoders
from isometry.engine import execute
from isometry.errors import UserError, printable
from isometry.grow.schedule import wants_to_grow
from isometry.helptext import help_text
from isometry.outcome import Outcome
from isometry.parsing import leading, parse, recipe_named
from isometry.report import growth_sentence, models_table, times_sentence
from isometry.training.signals import Interrupted, sigterm_interrupts


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the exit code is 0, 2 for bad input (said in one line), 128 + signal when stopped.

    A run that a scheduler's SIGTERM stopped, and that has saved where it stood, leaves 0 as well.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    complaints = Console(stderr=True)
    _quiet_libraries()
    try:
        with sigterm_interrupts(), worker_deaths(lambda: "give the command again"):
            _run(words, Console())
    except UserError as error:
        complaints.print(f"[bold red]isometry:[/] {_plain(error)}", highlight=False, soft_wrap=True)
        return 2
    except Interrupted as stop:
        complaints.print(f"isometry: {_plain(stop)}", highlight=False, soft_wrap=True)
        return stop.exit_code
    except KeyboardInterrupt:
        complaints.print(
            "isometry: stopped at once; the last save is kept, go on with --resume", soft_wrap=True
        )
        return 130
    finally:
        end_workers()
    return 0


def _run(words: list[str], console: Console) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return
    if words[0] == "--version":
        print(f"isometry {__version__}")
        return
    command = words[0]
    if command not in COMMANDS:
        near = get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UserError(f"{command}: no such command; {hint}")
    chosen = COMMANDS[command]
    if {"-h", "--help"} & set(words[1:]):
        print(help_text(chosen.kind, f"{command} {chosen.names}".rstrip(), chosen.about, chosen.examples))
        return
    chosen.action(words[1:], console)


def usage() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<10}{command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: isometry COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "isometry COMMAND --help has examples and options.",
        ]
    )


def _distill(words: list[str], console: Console) -> None:
    config = parse(RunConfig, words)
    if not config.teacher:
        raise UserError(
            "--teacher: no teacher named; give a timm name or local-dir:PATH (or use isometry train)"
        )
    _show(execute(config, console), console)


def _train(words: list[str], console: Console) -> None:
    config = parse(RunConfig, words)
    if config.teacher:
        raise UserError("--teacher: isometry train has no teacher; use isometry distill")
    _show(execute(config, console), console)


def _grow(words: list[str], console: Console) -> None:
    config = parse(RunConfig, words)
    if not wants_to_grow(config.grow):
        raise UserError(
            "--grow: no sizes named; give those on the way to the model's own, e.g. --grow.depth 6,12"
        )
    _show(execute(config, console), console)


def _prune(words: list[str], console: Console) -> None:
    config = parse(RunConfig, words)
    if config.prune.keep_rate is None:
        raise UserError("--keep-rate: not given; name the share of channels to keep, e.g. --keep-rate 0.6")
    _show(execute(config, console), console)


def _check(words: list[str], console: Console) -> None:
    check(parse(RunConfig, words), console)


def _bench(words: list[str], console: Console) -> None:
    names, options = leading(words)
    if not names:
        raise UserError("bench: no folder named; give it first, e.g. isometry bench runs/pruned --threads 1")
    bench(Path(names[0].removeprefix("local-dir:")), parse(BenchConfig, options), console)


def _compare(words: list[str], console: Console) -> None:
    recipe = recipe_named(words)
    if not recipe:
        raise UserError("--config: no comparison named; give its recipe, e.g. recipes/digits/ablation.yaml")
    compare(parse(CompareConfig, words), recipe, console)


def _show(outcome: Outcome | None, console: Console) -> None:
    if outcome is None:
        return
    console.print(models_table(outcome.rows))
    if outcome.stages:
        console.print(growth_sentence(outcome.stages), highlight=False, soft_wrap=True)
    if times := times_sentence(outcome.times):
        console.print(f"Time     {times}", highlight=False, soft_wrap=True)
    console.print(f"Folder   {outcome.folder}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"Student  local-dir:{outcome.folder / 'student'}", highlight=False, markup=False, soft_wrap=True
    )
    console.print(f"Report   {outcome.report}", highlight=False, markup=False, soft_wrap=True)


def _plain(error: Exception) -> str:
    # Square brackets in a path or a message are no markup.
    return escape(printable(" ".join(str(error).split())))


def _quiet_libraries() -> None:
    """Libraries' own notes would break the one-line errors and the progress bar."""
    for name in ("timm", "huggingface_hub", "torch.distributed", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"timm\..*")
    quiet_decoders()


class Command(NamedTuple):
    """A command: the class of its options, what it does, and the function that takes the rest of the command line."""

    kind: type[Any]
    about: str
    action: Callable[[list[str], Console], None]
    examples: tuple[str, ...]
    """Whole command lines, the simplest first."""
    names: str = ""
    """What stands before the options, such as DIR."""


COMMANDS: dict[str, Command] = {
    "distill": Command(
        RunConfig,
        "Teach a small model what a large one sees.",
        _distill,
        (
            "isometry distill --teacher cait_s24_224 --student deit_tiny_patch16_224 --data-dir photos --out runs/a",
            "isometry distill --config recipes/imagenet/manifold_tiny_s24.yaml --data-dir imagenet --out runs/tiny",
        ),
    ),
    "train": Command(
        RunConfig,
        "Train or fine-tune a model without a teacher.",
        _train,
        (
            "isometry train --model cait_s24_224 --pretrained --data-dir photos --epochs 30 --lr 5e-5 --out runs/teacher",
        ),
    ),
    "grow": Command(
        RunConfig,
        "Train a model that starts smaller and reaches its full size on the way.",
        _grow,
        ("isometry grow --model deit_base_patch16_224 --grow.depth 6,12 --data-dir photos --out runs/grown",),
    ),
    "prune": Command(
        RunConfig,
        "Give each channel a gate, so that an image uses only those that it needs.",
        _prune,
        (
            "isometry prune --model local-dir:runs/cnn/student --keep-rate 0.6 --data-dir photos --out runs/pruned",
        ),
    ),
    "check": Command(
        RunConfig,
        "Say what a run would do, and what would go wrong; trains nothing.",
        _check,
        ("isometry check --teacher cait_s24_224 --student deit_tiny_patch16_224 --data-dir photos",),
    ),
    "bench": Command(
        BenchConfig,
        "Measure the network in a folder, before pruning and after.",
        _bench,
        ("isometry bench runs/pruned --threads 1",),
        "DIR",
    ),
    "compare": Command(
        CompareConfig,
        "Run variants with the same seeds and compare them.",
        _compare,
        ("isometry compare --config recipes/digits/ablation.yaml --seeds 5 --out runs/ablation",),
    ),
}
"""By name, in the order of a first use."""
