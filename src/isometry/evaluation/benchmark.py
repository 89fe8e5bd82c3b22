"""`isometry bench`: networks, each in all its variants and under several runtimes, measured side by side."""

import importlib.metadata
import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from isometry.distributed import join_world
from isometry.errors import UserError
from isometry.evaluation.benchmark_inputs import BenchmarkInput, benchmark_input
from isometry.evaluation.environment import environment, environment_text, limited_threads
from isometry.evaluation.runtimes import EAGER, ONNX, RUNTIMES, Ready, ready
from isometry.evaluation.saved_network import ImagesConfig
from isometry.evaluation.timing import Row, interleaved_speeds, whole_batches, with_ratios
from isometry.evaluation.variants import DENSE, IMAGES_TIMED, describe_variants
from isometry.files import write_atomically
from isometry.models.cost import Forward
from isometry.report.bench_tables import networks_grid, runtimes_grid
from isometry.report.drawing.latency import latency_description, latency_picture
from isometry.report.pruning import forms_grid, slower_sentences
from isometry.report.tables import rich_table

SEVERAL = Path("runs/bench")
"""Where figures go that belong to no single folder."""

MEMORY = (
    "memory: weights and the most that one batch adds; eager and compiled by the record of torch's allocator, "
    "onnx by the growth of a process of its own"
)


@dataclass
class BenchConfig(ImagesConfig):
    """What is measured."""

    batch_sizes: list[int] = field(default_factory=lambda: [1, 8, 64])
    """Images a batch; of 1, which is always measured, the latency is shown, of more the images a second."""
    runtimes: list[str] = field(default_factory=lambda: list(RUNTIMES))
    """eager, compiled (torch.compile, which takes a minute a network the first time), onnx (ONNX Runtime on the CPU);
    eager is always measured: the others are compared with it."""
    threads: int | None = None
    """Threads that torch and ONNX Runtime compute with; as many as torch likes if not given."""
    seconds: float = 1.0
    """About how long each variant is timed under each runtime at each batch size."""
    out: str | None = None
    """Folder for bench.json and the picture; the network's own if one folder is named, else runs/bench."""


class Key(NamedTuple):
    """One thing that is measured: the benchmark_input's place in the list, one of its variants, a runtime."""

    place: int
    variant: str
    runtime: str


def bench(names: Sequence[str], options: BenchConfig, console: Console) -> dict[str, Any]:
    """Measures networks, prints tables, and writes ``bench.json``, ``bench.svg`` and ``bench.png``.

    All variants of all networks under all runtimes take turns, so that their times can be compared.

    Args:
        names: folders of runs or of saved networks (a run's ``student``), names of timm.
        options: batch sizes, runtimes, threads, images.
        console: where a person reads.

    Returns:
        What ``bench.json`` holds: ``conditions`` of the times, and the keys of :func:`_figures` where one network was
        named, else ``networks``, a list of such. ``picture`` says in words what the picture shows.

    Raises:
        UserError: no network of that name, a folder without images that fit, or a file that can not be written.
    """
    _check(options)
    place = _place(names, options)
    device = join_world(options.device).device
    with ExitStack() as until_done:
        until_done.enter_context(limited_threads(options.threads))
        scratch = Path(until_done.enter_context(TemporaryDirectory()))
        benchmark_inputs = [
            until_done.enter_context(benchmark_input(name, options, device)) for name in names
        ]
        networks = _measured(benchmark_inputs, options, scratch, console)
        found = environment(device)
    if any(
        row["runtime"] == ONNX
        for network in networks
        for variant in network["forms"]
        for row in variant["runtimes"]
    ):
        found["onnxruntime"] = importlib.metadata.version("onnxruntime")
    result = {
        **(networks[0] if len(networks) == 1 else {"networks": networks}),
        "conditions": found,
        "picture": latency_description(networks),
    }
    _write(place, result, networks)
    _print(console, networks, found, place)
    return result


def _measured(
    benchmark_inputs: Sequence[BenchmarkInput], options: BenchConfig, scratch: Path, console: Console
) -> list[Row]:
    sizes = sorted({1, *options.batch_sizes})
    samples = [each.dataset.sample(max(IMAGES_TIMED, *sizes)) for each in benchmark_inputs]
    made: dict[Key, Ready] = {}
    refused: dict[Key, str] = {}
    for key in _keys(benchmark_inputs, options.runtimes):
        folder = scratch / "-".join(map(str, key))
        folder.mkdir()
        batches = [whole_batches(samples[key.place], size)[0] for size in sizes]
        try:
            with console.status(
                f"{benchmark_inputs[key.place].name}: {key.form}, {key.runtime} is made ready"
            ):
                made[key] = ready(key.runtime, benchmark_inputs[key.place].forms[key.form], batches, folder)
        except UserError as error:
            if key.runtime == EAGER:
                raise UserError(
                    f"bench {benchmark_inputs[key.place].name}: can't be run ({error})"
                ) from error
            refused[key] = str(error)
    with console.status(f"{len(made)} take turns"):
        runs = {key: (one.run, samples[key.place]) for key, one in made.items()}
        speeds = interleaved_speeds(runs, sizes, options.seconds)
    rows: dict[Key, Row] = {}
    for key, one in made.items():
        base = speeds[Key(key.place, DENSE, EAGER)]
        batches = [whole_batches(samples[key.place], size)[0] for size in sizes]
        timed = with_ratios(speeds[key], base)
        rows[key] = {
            "runtime": key.runtime,
            "speeds": [
                row | {"peak_bytes": one.peak_bytes(batch)} for row, batch in zip(timed, batches, strict=True)
            ],
        }
        if key.runtime != EAGER:
            rows[key] |= differences(made[Key(key.place, key.form, EAGER)].run, one.run, batches[-1])
    return [_figures(place, each, rows, refused) for place, each in enumerate(benchmark_inputs)]


def _keys(benchmark_inputs: Sequence[BenchmarkInput], runtimes: Sequence[str]) -> list[Key]:
    wanted = [runtime for runtime in RUNTIMES if runtime in (EAGER, *runtimes)]
    return [
        Key(place, variant, runtime)
        for place, each in enumerate(benchmark_inputs)
        for variant in each.variants
        for runtime in wanted
    ]


@torch.no_grad()
def differences(eager: Forward, other: Forward, images: Tensor) -> Row:
    """How far the answers of two runtimes to the same images (B, C, H, W) are apart.

    Keys: ``largest_difference`` of any logit, ``other_class`` (number of images whose largest logit is another one),
    ``compared`` (images).
    """
    expected, found = eager(images).float(), other(images).float()
    return {
        "largest_difference": float((expected - found).abs().max()),
        "other_class": int((expected.argmax(-1) != found.argmax(-1)).sum()),
        "compared": len(images),
    }


def _figures(place: int, each: BenchmarkInput, rows: dict[Key, Row], refused: dict[Key, str]) -> Row:
    """What is written of one network.

    Keys: ``name``; ``model`` (timm's name); ``data``; ``forms``: the rows of :func:`isometry.evaluation.variants.describe_variants`, and
    in each ``runtimes`` (a row a runtime: ``runtime``, ``speeds`` with ``peak_bytes`` (bytes) at each batch size, and
    the keys of :func:`differences`), eager's ``speeds`` and ``refused`` (why, by runtime that could not run it);
    ``slower`` and ``notes``, sentences.
    """
    variants, notes = [], [*each.notes]
    for row in describe_variants(each.variants, each.dataset, each.untrained):
        variant = row["form"]
        runtimes = [found for key, found in rows.items() if key[:2] == (place, variant)]
        why = {key.runtime: told for key, told in refused.items() if key[:2] == (place, variant)}
        variants.append(row | {"speeds": runtimes[0]["speeds"], "runtimes": runtimes, "refused": why})
        notes += [f"{variant}, {runtime}: not measured ({told})" for runtime, told in why.items()]
        notes += [
            f"{variant}, {found['runtime']}: another class than eager for {found['other_class']} of "
            f"{found['compared']} images"
            for found in runtimes
            if found.get("other_class")
        ]
    return {
        "name": each.name,
        "model": each.model,
        "data": each.data,
        "forms": variants,
        "slower": slower_sentences(variants),
        "notes": notes,
    }


def _write(place: Path, result: dict[str, Any], networks: Sequence[Row]) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {place}: can't be made ({error.strerror}); name another folder") from error
    write_atomically(place / "bench.json", json.dumps(result, indent=1))
    for name in ("bench.svg", "bench.png"):
        latency_picture(place / name, networks)


def _print(console: Console, networks: Sequence[Row], found: dict[str, str], place: Path) -> None:
    def say(words: str, style: str = "") -> None:
        console.print(words, style=style, highlight=False, markup=False, soft_wrap=True)

    several = len(networks) > 1
    for network in networks:
        say(
            f"{network['name']}: {network['model']} on {network['data']}"
            if several
            else f"{network['model']} on {network['data']}"
        )
    console.print(rich_table(networks_grid(networks) if several else forms_grid(networks[0]["forms"])))
    console.print(rich_table(runtimes_grid(networks)))
    say(environment_text(found))
    say(MEMORY)
    for network in networks:
        for words in network["slower"] + network["notes"]:
            whose = f"{network['name']}: " if several and not words.startswith(network["name"]) else ""
            say(whose + words, "yellow")
    say(f"Figures  {place / 'bench.json'}")
    say(f"Picture  {place / 'bench.svg'} (and .png)")


def _place(names: Sequence[str], options: BenchConfig) -> Path:
    if options.out is not None:
        return Path(options.out)
    folder = Path(names[0].removeprefix("local-dir:"))
    return folder if len(names) == 1 and folder.is_dir() else SEVERAL


def _check(options: BenchConfig) -> None:
    if not options.batch_sizes or min(options.batch_sizes) < 1:
        raise UserError(
            f"--batch-sizes {options.batch_sizes}: must be whole numbers of at least 1, e.g. 1 8 64"
        )
    for runtime in options.runtimes:
        if runtime not in RUNTIMES:
            raise UserError(f"--runtimes {runtime}: no such runtime; there are {', '.join(RUNTIMES)}")
    if not (math.isfinite(options.seconds) and options.seconds > 0):
        raise UserError(f"--seconds {options.seconds}: must be above 0")
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: must be at least 1")
