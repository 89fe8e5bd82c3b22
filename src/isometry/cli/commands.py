"""The commands by name: the options that each takes, what it does, examples, and the function that does it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rich.console import Console

from isometry.cli.arguments import leading, parse, recipe_named
from isometry.cli.check import check
from isometry.cli.compare import CompareConfig, compare
from isometry.cli.completion import CompletionConfig, completion
from isometry.cli.evaluate import EvaluateConfig, evaluate
from isometry.cli.export import ExportConfig, export
from isometry.cli.list import ListConfig, listing
from isometry.cli.report import ReportConfig, report
from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.evaluation.benchmark import BenchConfig, bench
from isometry.export.hub import PushConfig, push
from isometry.report import growth_sentence, models_table, times_sentence
from isometry.training.results import RunResult
from isometry.training.run import execute


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
    if not config.grow.wanted:
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
    bench(names, parse(BenchConfig, options), console)


def _evaluate(words: list[str], console: Console) -> None:
    names, options = leading(words)
    if len(names) != 1:
        raise UserError("evaluate: name one folder first, e.g. isometry evaluate runs/tiny --data-dir photos")
    evaluate(names[0], parse(EvaluateConfig, options), console)


def _export(words: list[str], console: Console) -> None:
    names, options = leading(words)
    if len(names) != 1:
        raise UserError("export: name one folder first, e.g. isometry export runs/tiny --to onnx")
    export(names[0], parse(ExportConfig, options), console)


def _push(words: list[str], console: Console) -> None:
    names, options = leading(words)
    if len(names) != 2:
        raise UserError("push: name a folder and a repository first, e.g. isometry push runs/tiny me/tiny")
    folder, repository = names
    push(folder, repository, parse(PushConfig, options), console)


def _compare(words: list[str], console: Console) -> None:
    recipe = recipe_named(words)
    if not recipe:
        raise UserError("--config: no comparison named; give its recipe, e.g. recipes/digits/ablation.yaml")
    compare(parse(CompareConfig, words), recipe, console)


def _list(words: list[str], console: Console) -> None:
    names, options = leading(words)
    parse(ListConfig, options)
    for line in listing(names):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _completion(words: list[str], console: Console) -> None:
    names, options = leading(words)
    parse(CompletionConfig, options)
    console.print(completion(names, COMMANDS), end="", highlight=False, markup=False, soft_wrap=True)


def _report(words: list[str], console: Console) -> None:
    names, options = leading(words)
    report(names, parse(ReportConfig, options), console)


def _show(outcome: RunResult | None, console: Console) -> None:
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
            "isometry train --model cait_s24_224 --pretrained --data-dir photos --epochs 30 --out runs/teacher",
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
        "Measure networks side by side: accuracy, MACs, latency, throughput, memory.",
        _bench,
        (
            "isometry bench runs/pruned --threads 1",
            "isometry bench runs/a runs/b deit_tiny_patch16_224 --threads 1 --runtimes eager compiled onnx",
        ),
        "DIR|NAME ...",
    ),
    "evaluate": Command(
        EvaluateConfig,
        "Judge a finished network: accuracy, calibration, classes, features, other folders.",
        _evaluate,
        (
            "isometry evaluate runs/tiny --data-dir photos",
            "isometry evaluate runs/unlabelled --data-dir photos --probe",
            "isometry evaluate runs/tiny --transfer flowers pets --overrides epochs=50",
        ),
        "DIR",
    ),
    "export": Command(
        ExportConfig,
        "Write a finished network as an ONNX file, or as a folder with a model card.",
        _export,
        (
            "isometry export runs/tiny --to onnx",
            "isometry export runs/tiny --to onnx --quantize int8",
            "isometry export runs/tiny --to timm --license apache-2.0",
        ),
        "DIR",
    ),
    "push": Command(
        PushConfig,
        "Send a folder that was exported with a model card to a hub.",
        _push,
        ("isometry push runs/tiny me/tiny", "isometry push runs/tiny me/tiny --private"),
        "DIR REPO",
    ),
    "compare": Command(
        CompareConfig,
        "Run variants with the same seeds and compare them.",
        _compare,
        ("isometry compare --config recipes/digits/ablation.yaml --seeds 5 --out runs/ablation",),
    ),
    "list": Command(
        ListConfig,
        "Say which recipes, losses, operators and models there are.",
        _list,
        ("isometry list recipes", "isometry list losses", "isometry list models 'deit*'"),
        "recipes|losses|operators|models [PATTERN]",
    ),
    "completion": Command(
        CompletionConfig,
        "Print a script with which a shell completes commands, options and values.",
        _completion,
        (
            "isometry completion bash > ~/.local/share/bash-completion/completions/isometry",
            "isometry completion zsh > ~/.zfunc/_isometry",
            "isometry completion fish > ~/.config/fish/completions/isometry.fish",
        ),
        "bash|zsh|fish",
    ),
    "report": Command(
        ReportConfig,
        "Draw a run's page again, or one that compares several; trains nothing.",
        _report,
        ("isometry report runs/a", "isometry report runs/a runs/b --out report.html"),
        "DIR [DIR ...]",
    ),
}
"""By name, in the order of a first use."""
