"""The commands by name: options, purpose, examples, and the function that carries each out."""

from collections.abc import Callable

from rich.console import Console

from isometry.cli.check import CheckConfig, check
from isometry.cli.check_data import check_data
from isometry.cli.compare import compare
from isometry.cli.compare_plan import CompareConfig
from isometry.cli.completion import CompletionConfig, completion
from isometry.cli.evaluate import EvaluateConfig, evaluate
from isometry.cli.export import ExportConfig, export
from isometry.cli.help import Command, Invocation
from isometry.cli.list import ListConfig, listing
from isometry.cli.output import write
from isometry.cli.report import ReportConfig, report
from isometry.cli.transfer import TransferConfig, transfer
from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.evaluation.benchmark import BenchConfig, bench
from isometry.export.hub import PushConfig, push
from isometry.report.growth import growth_sentence
from isometry.report.tables import models_shown
from isometry.report.task import intervals_text
from isometry.report.terminal import say
from isometry.report.times import times_sentence
from isometry.training.results import RunResult
from isometry.training.run import execute


def _trains(accepts: Callable[[RunConfig], object], otherwise: str) -> Callable[[Invocation], None]:
    """The action of a command that trains what it accepts, and refuses other configurations."""

    def action(call: Invocation) -> None:
        if not accepts(call.config):
            raise UserError(otherwise)
        result = execute(call.config, call.console)
        # Only one process of several has a result.
        if result is not None:
            _show(result, call.console)

    return action


def _show(result: RunResult, console: Console) -> None:
    table, rest = models_shown(result.rows, console.width)
    console.print(table)
    for line in rest:
        say(console, line)
    if intervals := intervals_text(result.rows[0]):
        say(console, intervals)
    if result.stages:
        say(console, growth_sentence(result.stages))
    if times := times_sentence(result.times):
        say(console, f"Time     {times}")
    if result.waiting:
        say(console, f"Data     {result.waiting}")
    say(console, f"Folder   {result.folder}")
    if result.network is not None:
        say(console, f"Network  {result.network}")
    name = "Student" if any(row["role"] == "teacher" for row in result.rows) else "Model"
    name = name if result.network is None else "Backbone"
    say(console, f"{name:<9}local-dir:{result.folder / 'student'}")
    say(console, f"Report   {result.report}")


def _check(call: Invocation) -> None:
    if call.config.task == "classify":
        (check_data if call.config.data else check)(call.config, call.console)
        return
    # torchvision's detectors take a while to load.
    from isometry.cli.check_transfer import check_dense_data, check_transfer

    if call.config.data:
        check_dense_data(call.config, call.console)
    else:
        check_transfer(call.config, call.given, call.console)


def _list(call: Invocation) -> None:
    for line in listing(call.names):
        say(call.console, line)


def _completion(call: Invocation) -> None:
    write(call.console, completion(call.names[0], COMMANDS))


COMMANDS: dict[str, Command] = {
    "distill": Command(
        RunConfig,
        "Distil a large model into a small one.",
        _trains(
            lambda config: config.teacher,
            "--teacher: not given; give a timm name or the folder of the teacher's run, or train without a teacher: "
            "isometry train",
        ),
        (
            "isometry distill --teacher cait_s24_224 --student deit_tiny_patch16_224 --data-dir photos --out runs/a",
            "isometry distill --config recipes/imagenet/manifold_tiny_s24.yaml --data-dir imagenet --out runs/tiny",
        ),
    ),
    "train": Command(
        RunConfig,
        "Train or fine-tune a model without a teacher.",
        _trains(
            lambda config: not config.teacher,
            "--teacher: isometry train has no teacher; use isometry distill",
        ),
        (
            "isometry train --model cait_s24_224 --pretrained --data-dir photos --epochs 30 --out runs/teacher",
        ),
    ),
    "grow": Command(
        RunConfig,
        "Train a model that starts smaller and grows to its full size.",
        _trains(
            lambda config: config.grow.wanted,
            "--grow: no sizes given; give them from the smallest to the model's own, e.g. --grow.depth 6,12",
        ),
        ("isometry grow --model deit_base_patch16_224 --grow.depth 6,12 --data-dir photos --out runs/grown",),
    ),
    "prune": Command(
        RunConfig,
        "Prune channels, for each image by gates or for all images.",
        _trains(
            lambda config: config.prune.wanted,
            "--keep-rate: not given; name the share of channels to keep, e.g. --keep-rate 0.6",
        ),
        (
            "isometry prune --model local-dir:runs/cnn/student --keep-rate 0.6 --data-dir photos --out runs/pruned",
        ),
    ),
    "check": Command(
        CheckConfig,
        "Show what a run would do and which errors it would meet; nothing is trained.",
        _check,
        (
            "isometry check --teacher cait_s24_224 --student deit_tiny_patch16_224 --data-dir photos",
            "isometry check --data --data-dir photos",
            "isometry check --task detect --model runs/tiny --data-dir coco",
        ),
    ),
    "bench": Command(
        BenchConfig,
        "Benchmark networks side by side: accuracy, MACs, latency, throughput, memory.",
        lambda call: bench(call.names, call.config, call.console),
        (
            "isometry bench runs/pruned --threads 1",
            "isometry bench runs/a runs/b deit_tiny_patch16_224 --threads 1 --runtimes eager compiled onnx",
        ),
        "DIR|NAME ...",
    ),
    "evaluate": Command(
        EvaluateConfig,
        "Evaluate a finished network: accuracy, calibration, classes, features, transfer.",
        lambda call: evaluate(call.names[0], call.config, call.console),
        (
            "isometry evaluate runs/tiny --data-dir photos",
            "isometry evaluate runs/unlabelled --data-dir photos --probe",
            "isometry evaluate runs/tiny --transfer flowers pets --overrides epochs=50",
        ),
        "DIR",
    ),
    "transfer": Command(
        TransferConfig,
        "Train a finished network for another task: boxes, masks, or classes of other images.",
        lambda call: _show(transfer(call.names[0], call.config, call.console), call.console),
        (
            "isometry transfer runs/tiny --task detect --data-dir coco --out runs/detector",
            "isometry transfer runs/tiny --task segment --dataset digit-scenes --freeze --out runs/masks",
            "isometry transfer runs/tiny --task classify --data-dir flowers --out runs/flowers",
        ),
        "DIR|NAME",
    ),
    "export": Command(
        ExportConfig,
        "Export a finished network to ONNX, or to a timm folder with a model card.",
        lambda call: export(call.names[0], call.config, call.console),
        (
            "isometry export runs/tiny --to onnx",
            "isometry export runs/tiny --to onnx --quantize int8",
            "isometry export runs/tiny --to timm --license apache-2.0",
        ),
        "DIR",
    ),
    "push": Command(
        PushConfig,
        "Push a folder that was exported with a model card to a hub.",
        lambda call: push(call.names[0], call.names[1], call.config, call.console),
        ("isometry push runs/tiny me/tiny", "isometry push runs/tiny me/tiny --private"),
        "DIR REPO",
    ),
    "compare": Command(
        CompareConfig,
        "Run variants with the same seeds and compare them.",
        lambda call: compare(call.config, call.recipe, call.console),
        ("isometry compare --config recipes/digits/ablation.yaml --seeds 5 --out runs/ablation",),
    ),
    "list": Command(
        ListConfig,
        "List recipes, losses, operators or models.",
        _list,
        ("isometry list recipes", "isometry list losses", "isometry list models 'deit*'"),
        "recipes|losses|operators|models [PATTERN]",
    ),
    "completion": Command(
        CompletionConfig,
        "Print a script that completes commands, options and values in a shell.",
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
        "Write the report page of a run, or one that compares several runs; nothing is trained.",
        lambda call: report(call.names, call.config, call.console),
        ("isometry report runs/a", "isometry report runs/a runs/b --out report.html"),
        "DIR [DIR ...]",
    ),
}
"""By name, in the order of a first use."""
