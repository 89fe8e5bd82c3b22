"""`isometry bench`: measures networks, in all their variants and several runtimes, side by side."""

import importlib.metadata
import json
import math
import os
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
from isometry.evaluation.runtimes import EAGER, ONNX, RUNTIMES, Session, prepare
from isometry.evaluation.saved_network import ImagesConfig
from isometry.evaluation.timing import Row, interleaved_speeds, whole_batches, with_ratios
from isometry.evaluation.variants import DENSE, IMAGES_TIMED, describe_variants
from isometry.files import check_replaceable, format_bytes, write_output
from isometry.models.cost import Forward
from isometry.models.finite import check_answers
from isometry.report.drawing.latency import latency_description, latency_picture
from isometry.report.pruning import forms_grid, slower_sentences
from isometry.report.tables import networks_grid, rich_table, runtimes_grid
from isometry.report.terminal import plain, say

SEVERAL = Path("runs/bench")
"""Default folder for several networks."""

MEMORY = (
    "memory: weights plus the peak of one batch; eager and compiled by torch's allocator, "
    "onnx by the growth of a separate process"
)


FIGURES, PICTURES = "bench.json", ("bench.svg", "bench.png")


@dataclass
class BenchConfig(ImagesConfig):
    """Batch sizes, runtimes and images of the measurement."""

    batch_sizes: list[int] = field(default_factory=lambda: [1, 8, 64])
    """Batch sizes; latency is shown for 1, which is always measured, and images per second for the others."""
    runtimes: list[str] = field(default_factory=lambda: list(RUNTIMES))
    """eager, compiled (torch.compile; takes about a minute per network the first time), onnx (ONNX Runtime, CPU);
    eager is always measured, as the baseline."""
    threads: int | None = None
    """Threads of torch and ONNX Runtime; torch's default if not given."""
    seconds: float = 1.0
    """Seconds of timing per variant, runtime and batch size, about."""
    out: str | None = None
    """Folder for bench.json and the picture; that of the network if one folder is given, else runs/bench."""


class Key(NamedTuple):
    """One measurement: the network's index, one of its variants, and a runtime."""

    network: int
    variant: str
    runtime: str


def bench(names: Sequence[str], options: BenchConfig, console: Console) -> dict[str, Any]:
    """Measures networks, prints tables, and writes ``bench.json``, ``bench.svg`` and ``bench.png``.

    The measurements are interleaved, so that their times can be compared. ``names`` are folders of runs or of saved
    networks (a run's ``student``), or timm names.

    Returns:
        The content of ``bench.json``: ``conditions`` (the environment), ``picture`` (its text alternative), and the
        keys of :func:`_network_row` for one network, or ``networks``, a list of such rows, for several.

    Raises:
        UserError: no network of that name, a folder without matching images, or a file that can't be written.
    """
    _check(options)
    place = _place(names, options)
    for file in (FIGURES, *PICTURES):
        check_replaceable(place / file)
    device = join_world(options.device).device
    with ExitStack() as until_done:
        until_done.enter_context(limited_threads(options.threads))
        scratch = Path(until_done.enter_context(TemporaryDirectory()))
        inputs = [until_done.enter_context(benchmark_input(name, options, device)) for name in names]
        networks = _measured(inputs, options, scratch, console)
        found = environment(device)
    forms = [form for network in networks for form in network["forms"]]
    if ONNX in {row["runtime"] for form in forms for row in form["runtimes"]}:
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
    inputs: Sequence[BenchmarkInput], options: BenchConfig, scratch: Path, console: Console
) -> list[Row]:
    sizes = sorted({1, *options.batch_sizes})
    for each in inputs:
        _check_fits(max(sizes), each.dataset.spec.input_size)
    samples = [each.dataset.sample(max(IMAGES_TIMED, *sizes)) for each in inputs]
    first_batches = [[whole_batches(sample, size)[0] for size in sizes] for sample in samples]
    made: dict[Key, Session] = {}
    refused: dict[Key, str] = {}
    for key in _keys(inputs, options.runtimes):
        folder = scratch / "-".join(map(str, key))
        folder.mkdir()
        each = inputs[key.network]
        try:
            with console.status(plain(f"{each.name}: preparing {key.variant}, {key.runtime}")):
                batches = first_batches[key.network]
                made[key] = prepare(key.runtime, each.variants[key.variant], batches, folder)
                if key.runtime == EAGER:
                    with torch.no_grad():
                        check_answers([made[key].run(batches[0])], key.variant)
        except UserError as error:
            if key.runtime == EAGER:
                raise UserError(f"bench {each.name}: can't run ({error})") from error
            refused[key] = str(error)
    with console.status(f"timing {len(made)} measurements"):
        runs = {key: (one.run, samples[key.network]) for key, one in made.items()}
        speeds = interleaved_speeds(runs, sizes, options.seconds)
    rows: dict[Key, Row] = {}
    for key, one in made.items():
        batches = first_batches[key.network]
        timed = with_ratios(speeds[key], speeds[Key(key.network, DENSE, EAGER)])
        for row, batch in zip(timed, batches, strict=True):
            row["peak_bytes"] = one.peak_bytes(batch)
        rows[key] = {"runtime": key.runtime, "speeds": timed}
        if key.runtime != EAGER:
            rows[key] |= differences(made[Key(key.network, key.variant, EAGER)].run, one.run, batches[-1])
    return [_network_row(number, each, rows, refused) for number, each in enumerate(inputs)]


def _keys(inputs: Sequence[BenchmarkInput], runtimes: Sequence[str]) -> list[Key]:
    wanted = [runtime for runtime in RUNTIMES if runtime in (EAGER, *runtimes)]
    return [
        Key(number, variant, runtime)
        for number, each in enumerate(inputs)
        for variant in each.variants
        for runtime in wanted
    ]


@torch.no_grad()
def differences(eager: Forward, other: Forward, images: Tensor) -> Row:
    """Difference between the outputs of two runtimes on the same images (B, C, H, W).

    Keys: ``largest_difference`` of any logit, ``other_class`` (images whose predicted class differs), ``compared``
    (images).
    """
    expected, found = eager(images).float(), other(images).float()
    return {
        "largest_difference": float((expected - found).abs().max()),
        "other_class": int((expected.argmax(-1) != found.argmax(-1)).sum()),
        "compared": len(images),
    }


def _network_row(number: int, each: BenchmarkInput, rows: dict[Key, Row], refused: dict[Key, str]) -> Row:
    """One network's entry in ``bench.json``.

    Keys: ``name``; ``model`` (timm's name); ``data``; ``forms``: the rows of
    :func:`isometry.evaluation.variants.describe_variants`, and in each ``runtimes`` (a row a runtime: ``runtime``,
    ``speeds`` with ``peak_bytes`` (bytes) at each batch size, and the keys of :func:`differences`), eager's
    ``speeds`` and ``refused`` (reasons, by runtime); ``slower`` and ``notes``, sentences.
    """
    variants, notes = [], [*each.notes]
    for row in describe_variants(each.variants, each.dataset, each.untrained):
        variant = row["form"]
        runtimes = [found for key, found in rows.items() if key[:2] == (number, variant)]
        reasons = {key.runtime: reason for key, reason in refused.items() if key[:2] == (number, variant)}
        variants.append(row | {"speeds": runtimes[0]["speeds"], "runtimes": runtimes, "refused": reasons})
        notes += [f"{variant}, {runtime}: not measured ({reason})" for runtime, reason in reasons.items()]
        notes += [
            f"{variant}, {found['runtime']}: predicts another class than eager for {found['other_class']} of "
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
        raise UserError(f"--out {place}: can't be created ({error.strerror}); name another folder") from error
    write_output(place / FIGURES, json.dumps(result, indent=1))
    for name in PICTURES:
        latency_picture(place / name, networks)


def _print(console: Console, networks: Sequence[Row], found: dict[str, str], place: Path) -> None:
    several = len(networks) > 1
    for network in networks:
        say(console, f"{network['name']}: " * several + f"{network['model']} on {network['data']}")
    console.print(rich_table(networks_grid(networks) if several else forms_grid(networks[0]["forms"])))
    console.print(rich_table(runtimes_grid(networks)))
    say(console, environment_text(found))
    say(console, MEMORY)
    for network in networks:
        for sentence in network["slower"] + network["notes"]:
            whose = f"{network['name']}: " if several and not sentence.startswith(network["name"]) else ""
            say(console, whose + sentence, "yellow")
    say(console, f"Figures  {place / 'bench.json'}")
    say(console, f"Picture  {place / 'bench.svg'} (and .png)")


def _place(names: Sequence[str], options: BenchConfig) -> Path:
    if options.out is not None:
        return Path(options.out)
    folder = Path(names[0].removeprefix("local-dir:"))
    return folder if len(names) == 1 and folder.is_dir() else SEVERAL


def _check_fits(images: int, input_size: tuple[int, int, int]) -> None:
    """Raises UserError for a batch that, with its copy for the device, takes more than the machine has."""
    needed = 2 * torch.float32.itemsize * images * math.prod(input_size)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise UserError(
            f"--batch-sizes {images}: such a batch takes {format_bytes(needed)}, and this machine has "
            f"{format_bytes(memory)}; give smaller ones"
        )


def _check(options: BenchConfig) -> None:
    if not options.batch_sizes:
        raise UserError("--batch-sizes: names none; give whole numbers, e.g. 1 8 64")
    for runtime in options.runtimes:
        if runtime not in RUNTIMES:
            raise UserError(f"--runtimes {runtime}: no such runtime; there are {', '.join(RUNTIMES)}")
