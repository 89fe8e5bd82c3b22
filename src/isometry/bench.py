"""`isometry bench`: the network in a folder, before pruning and after, measured side by side."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from torch import nn

from isometry.config import RunConfig
from isometry.distributed import World, join_world
from isometry.errors import UserError
from isometry.forms import (
    DENSE,
    conditions,
    conditions_words,
    forms_of,
    limited_threads,
    measure_forms,
)
from isometry.gates import gated_convs
from isometry.models import ModelSpec, build_model, pretrained_cfg
from isometry.prune.cutting import widths
from isometry.report import forms_table, slower_sentences
from isometry.report.saving import write_whole
from isometry.saved import ImagesConfig, images_named, material_of, open_folder, sources_for
from isometry.student import student_spec


@dataclass
class BenchConfig(ImagesConfig):
    """What is measured."""

    batch_sizes: list[int] = field(default_factory=lambda: [1, 8, 64])
    """Images a batch; of 1 the latency is shown, of more the images a second."""
    threads: int | None = None
    """Threads that torch computes with; as many as it likes if not given."""
    seconds: float = 1.0
    """About how long each form is timed at each batch size."""


class Before(NamedTuple):
    """A network as it was before it was pruned, and what is to be said of its weights where they are random."""

    network: nn.Module
    note: str = ""


def bench(folder: Path, options: BenchConfig, console: Console) -> dict[str, Any]:
    """Measures the network in a folder, prints a table and writes ``bench.json`` there; returns what it holds.

    Args:
        folder: of a run, or of a saved network (a run's ``student``).
        options: batch sizes, threads, images.
        console: where a person reads.

    Raises:
        UserError: no such folder, no network in it, no images named, or images of other classes.
    """
    _check(options)
    saved = open_folder(str(folder), command="bench")
    network = saved.network
    named = images_named(saved, options, command="bench")
    device = join_world(options.device).device
    sources = sources_for(saved, named, command="bench")
    assert saved.folder is not None
    before = before_pruning(network, saved.folder, saved.config)
    forms = forms_of(network.to(device), None if before is None else before.network.to(device))
    untrained = [DENSE] if before is not None and before.note else []
    with (
        limited_threads(options.threads),
        material_of(network, sources, named, World(0, 1, device)) as material,
    ):
        rows = measure_forms(forms, material, options.batch_sizes, options.seconds, untrained)
        found = conditions(device)
    notes = [before.note] if before is not None and before.note else []
    result = {
        "model": str(pretrained_cfg(network).get("architecture")),
        "data": sources.description,
        "conditions": found,
        "forms": rows,
        "slower": slower_sentences(rows),
        "notes": notes,
    }
    place = folder / "bench.json"
    write_whole(place, json.dumps(result, indent=1).encode())
    _print(console, result, place)
    return result


def _print(console: Console, result: dict[str, Any], place: Path) -> None:
    def say(words: str, style: str = "") -> None:
        console.print(words, style=style, highlight=False, markup=False, soft_wrap=True)

    say(f"{result['model']} on {result['data']}")
    console.print(forms_table(result["forms"]))
    say(conditions_words(result["conditions"]))
    for words in result["slower"] + result["notes"]:
        say(words, "yellow")
    say(f"Figures  {place}")


def _check(options: BenchConfig) -> None:
    if not options.batch_sizes or min(options.batch_sizes) < 1:
        raise UserError(
            f"--batch-sizes {options.batch_sizes}: must be whole numbers of at least 1, e.g. 1 8 64"
        )
    if not (math.isfinite(options.seconds) and options.seconds > 0):
        raise UserError(f"--seconds {options.seconds}: must be above 0")
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: must be at least 1")


def before_pruning(network: nn.Module, student: Path, config: RunConfig | None) -> Before | None:
    """A pruned network as it was before that; None for one that is as its architecture has it, so was not pruned.

    It has the weights that it had, where they are still found, else random ones, which a note says.

    Args:
        network: with gates, or with channels cut, or neither.
        student: the folder that it is saved in, whose config.json names its architecture.
        config: of the run that pruned it, if there is one.
    """
    plain, _ = build_model(ModelSpec(f"local-dir:{student}"), flag="bench")
    if not gated_convs(network) and widths(network) == widths(plain):
        return None
    if config is None:
        return Before(plain, _random("no config.yaml says what it was"))
    if config.prune.from_scratch:
        return Before(plain, _random("the network was pruned from scratch"))
    try:
        trained, _ = build_model(replace(student_spec(config), num_classes=None), flag="--model")
    except UserError as error:
        return Before(plain, _random(str(error)))
    if trained.num_classes != network.num_classes:
        return Before(plain, _random(f"{config.model} has {trained.num_classes} classes"))
    return Before(trained)


def _random(why: str) -> str:
    return f"dense: random weights, so no top-1 ({why})"
