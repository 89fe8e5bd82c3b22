"""Cost and precision of the exact whole-batch relation map: ``python benchmarks/relations.py [--device cuda]``.

Times are of forward and backward: on a CPU of one block's loss, on a GPU of eight pairs of blocks together. The two
sides of a ratio alternate in one process; the ratio is that of their medians. Writes results/relations.json, or
results/relations_cuda.json.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from common import caption, measured_on, save
from rich.console import Console
from rich.table import Table
from torch import Tensor

from isometry.functional import gram_gap
from isometry.losses import WholeBatch
from isometry.losses.base import values_of_calls

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracles import relations as oracle

THREADS = 2
IMAGES, PATCHES, STUDENT, TEACHER = 128, 196, 192, 384
"""The paper's batch size; patches per image and channels of DeiT-Tiny and CaiT-S24 at 224 pixels."""

RANDOM_PATCHES = 192
Loss = Callable[[Tensor, Tensor], Tensor]
Figure = dict[str, str | float | None]


def whole(student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
    """Eq. 8 as the package computes it, without maps."""
    return gram_gap(student_BNC.flatten(0, 1), teacher_BNC.flatten(0, 1))


def explicit_whole(student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
    """Eq. 8 by explicit maps."""
    return explicit(*(F.normalize(x.flatten(0, 1), dim=-1) for x in (student_BNC, teacher_BNC)))


def decoupled(student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
    """Eq. 9 to 12 by explicit maps: between images at each position, within each image, among random patches."""
    a_BNC, b_BNC = F.normalize(student_BNC, dim=-1), F.normalize(teacher_BNC, dim=-1)
    images, patches, _ = a_BNC.shape
    inter = explicit(a_BNC.transpose(0, 1), b_BNC.transpose(0, 1)) / patches
    intra = explicit(a_BNC, b_BNC) / images
    drawn = torch.randperm(images * patches, device=student_BNC.device)[:RANDOM_PATCHES]
    random = explicit(a_BNC.flatten(0, 1)[drawn], b_BNC.flatten(0, 1)[drawn])
    return inter + intra + 0.2 * random


def explicit(a: Tensor, b: Tensor) -> Tensor:
    """‖aaᵀ − bbᵀ‖²_F of normalised tokens, summed over leading dimensions, by explicit maps and autograd."""
    return (a @ a.mT - b @ b.mT).square().sum()


def intra(student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
    """The term within each image as the package computes it."""
    return gram_gap(student_BNC, teacher_BNC).sum()


def explicit_intra(student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
    """The same by explicit maps and autograd."""
    return explicit(F.normalize(student_BNC, dim=-1), F.normalize(teacher_BNC, dim=-1))


def batch(images: int) -> tuple[Tensor, Tensor]:
    """Random tokens with a common mean, like features of real images."""
    torch.manual_seed(0)
    student, teacher = (torch.randn(images, PATCHES, c).add_(torch.randn(c)) for c in (STUDENT, TEACHER))
    return student.requires_grad_(), teacher


def seconds(loss: Loss, inputs: tuple[Tensor, Tensor]) -> float:
    """Seconds of one forward and backward pass."""
    inputs[0].grad = None
    start = time.perf_counter()
    loss(*inputs).backward()
    return time.perf_counter() - start


def medians(*sides: tuple[Loss, tuple[Tensor, Tensor]], rounds: int) -> list[float]:
    """Median seconds of each side; the sides alternate, and the first round is a warm-up."""
    taken = [[seconds(*side) for side in sides] for _ in range(rounds + 1)][1:]
    return [statistics.median(times) for times in zip(*taken, strict=True)]


def peak_memory(name: str) -> float:
    """Peak memory of a forward and backward pass in MiB, without the inputs."""
    torch.set_num_threads(THREADS)
    loss = {"whole": whole, "decoupled": decoupled}[name]
    # Loads libraries and allocates their buffers.
    loss(*batch(4)).backward()
    inputs = batch(IMAGES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss(*inputs).backward()
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return kibibytes / (1024**2 if sys.platform == "darwin" else 1024)


def in_a_fresh_process(name: str) -> float:
    """:func:`peak_memory` in a new process, whose peak is not raised by anything else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak_memory, name).result()


def cost_figures() -> list[Figure]:
    """Ratios of time and memory."""
    # Memory first: on Linux a process inherits the peak of its parent.
    exact_memory, terms_memory = in_a_fresh_process("whole"), in_a_fresh_process("decoupled")
    paper, small, large, few = batch(IMAGES), batch(32), batch(256), batch(16)
    exact, terms = medians((whole, paper), (decoupled, paper), rounds=31)
    fast, slow = medians((whole, small), (explicit_whole, small), rounds=21)
    many, little = medians((whole, large), (whole, few), rounds=15)
    ours, maps = medians((intra, paper), (explicit_intra, paper), rounds=7)
    shape = f"B={IMAGES}, N={PATCHES}, {STUDENT}/{TEACHER} channels"
    return [
        figure(
            f"time: whole map / three decoupled terms with maps, {shape}",
            exact / terms,
            "at most 0.85",
            f"{1e3 * exact:.0f} ms / {1e3 * terms:.0f} ms",
        ),
        figure(
            f"peak memory beyond the inputs: the same two, {shape}",
            exact_memory / terms_memory,
            "at most 0.2",
            f"{exact_memory:.0f} MiB / {terms_memory:.0f} MiB",
        ),
        figure(
            "time: whole map with its N·B × N·B maps / without, N·B = 6,272",
            slow / fast,
            "at least 20",
            f"{1e3 * slow:.0f} ms / {1e3 * fast:.0f} ms",
        ),
        figure(
            "time an image: B=256 / B=16",
            many / 256 / (little / 16),
            "at most 1.5",
            f"{1e3 * many / 256:.2f} ms / {1e3 * little / 16:.2f} ms",
        ),
        figure(
            f"time: per-image maps / the same by plain autograd, {shape}",
            ours / maps,
            None,
            f"{1e3 * ours:.0f} ms / {1e3 * maps:.0f} ms",
        ),
    ]


def precision_figures() -> list[Figure]:
    """Largest errors of float32 against float64 over numerically hard tokens."""
    value_error, near_error, far_error = 0.0, 0.0, 0.0
    generator = torch.Generator().manual_seed(0)
    cases = [
        (tokens, ratio)
        for tokens in oracle.hard_tokens(2048, STUDENT, generator).values()
        for ratio in (1e-3, 1e-6)
    ]
    cases.append((oracle.hard_tokens(IMAGES * PATCHES, STUDENT, generator)["common mean"], 1e-3))
    for student, ratio in cases:
        # Slightly above the ratio at which the stricter bound starts to apply.
        teacher = oracle.teacher_at(student, 1.02 * ratio, TEACHER, generator)
        true = oracle.channel_gap(student, teacher)
        student, teacher = student.requires_grad_(), teacher.requires_grad_()
        value = gram_gap(student, teacher)
        grads = torch.autograd.grad(value, (student, teacher))
        value_error = max(value_error, float((value.detach().double() - true.value).abs() / true.scale))
        error = max(
            oracle.relative_error(*pair)
            for pair in zip(grads, (true.student_grad, true.teacher_grad), strict=True)
        )
        if ratio == 1e-3:
            near_error = max(near_error, error)
        else:
            far_error = max(far_error, error)
        student.requires_grad_(False)
    return [
        figure("largest error of the value, as a share of the scale", value_error, "at most 1e-7"),
        figure("largest relative error of a gradient, gap 0.1 % of the scale", near_error, "at most 1e-5"),
        figure("largest relative error of a gradient, gap a millionth of it", far_error, "at most 1e-3"),
    ]


# --- on a GPU

Pairs = list[tuple[Tensor, Tensor]]
PAIRS = 8
"""Pairs of blocks: the first four and the last four of both networks."""


def whole_of_all(pairs: Pairs) -> Tensor:
    """The whole maps of all pairs, as a run computes them."""
    return values_of_calls([WholeBatch().train()] * len(pairs), pairs).mean()


def decoupled_of_all(pairs: Pairs) -> Tensor:
    """The three sampled terms of all pairs by explicit maps."""
    return torch.stack([decoupled(*pair) for pair in pairs]).mean()


def under_autocast(loss: Callable[[Pairs], Tensor]) -> Callable[[Pairs], Tensor]:
    """The loss under autocast: ours takes ``precision="high"`` there, and products of maps are in bfloat16."""

    def autocast(pairs: Pairs) -> Tensor:
        with torch.autocast(pairs[0][0].device.type, dtype=torch.bfloat16):
            return loss(pairs)

    return autocast


def gpu_figures(device: torch.device, images: int = IMAGES, rounds: int = 20) -> list[Figure]:
    """Times and peak memory of eight pairs, and their ratios."""
    pairs = [tuple(side.detach().to(device) for side in batch(images)) for _ in range(PAIRS)]
    narrow = [(student.bfloat16().requires_grad_(), teacher.bfloat16()) for student, teacher in pairs]
    full = [(student.requires_grad_(), teacher) for student, teacher in pairs]
    sides = {
        "whole maps, autocast": (under_autocast(whole_of_all), narrow, "at most 2.5 ms on an H100"),
        "three sampled terms with maps, autocast": (under_autocast(decoupled_of_all), narrow, None),
        'whole maps, float32, "highest"': (whole_of_all, full, "at most 9 ms on an H100"),
        "three sampled terms with maps, float32": (decoupled_of_all, full, None),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    peaks: dict[str, float] = {}
    for _ in range(rounds + 1):
        for name, (loss, inputs, _) in sides.items():
            milliseconds, peaks[name] = gpu_step(loss, inputs)
            taken[name].append(milliseconds)
    times = {name: statistics.median(values[1:]) for name, values in taken.items()}
    shape = f"{PAIRS} pairs, B={images}, N={PATCHES}, {STUDENT}/{TEACHER} channels"
    rows = [
        figure(
            f"milliseconds: {name}, {shape}", times[name], target, f"{peaks[name]:.0f} MiB beyond the inputs"
        )
        for name, (_, _, target) in sides.items()
    ]
    whole, sampled, exact, sampled_exact = times.values()
    what = "time: whole maps / three sampled terms"
    rows.append(figure(f"{what}, autocast", whole / sampled, "at most 0.25"))
    rows.append(figure(f"{what}, float32", exact / sampled_exact, None))
    whole_peak, sampled_peak, *_ = peaks.values()
    rows.append(
        figure(
            "peak memory: whole maps / three sampled terms, autocast", whole_peak / sampled_peak, "at most 1"
        )
    )
    return rows


def gpu_step(loss: Callable[[Pairs], Tensor], pairs: Pairs) -> tuple[float, float]:
    """Milliseconds of one forward and backward pass, and its peak memory beyond the inputs in MiB."""
    for student, _ in pairs:
        student.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, start = torch.cuda.memory_allocated(), time.perf_counter()
    loss(pairs).backward()
    torch.cuda.synchronize()
    passed = time.perf_counter() - start
    return 1e3 * passed, (torch.cuda.max_memory_allocated() - before) / 2**20


# --- results


def figure(meaning: str, value: float, target: str | None, measured: str = "") -> Figure:
    """A row of the table."""
    return {"meaning": meaning, "value": float(f"{value:.3g}"), "target": target, "measured": measured}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = torch.device(parser.parse_args().device)
    torch.set_num_threads(THREADS)
    figures = gpu_figures(device) if device.type == "cuda" else cost_figures() + precision_figures()
    setting = measured_on(device)
    table = Table(title="The exact whole-batch relation map", caption=caption(setting))
    for heading in ("what", "measured", "figure", "target"):
        table.add_column(heading, justify="right" if heading == "figure" else "left")
    for row in figures:
        table.add_row(
            str(row["meaning"]), str(row["measured"]), f"{row['value']:.3g}", str(row["target"] or "–")
        )
    Console().print(table)
    save("relations_cuda" if device.type == "cuda" else "relations", {**setting, "figures": figures})


if __name__ == "__main__":
    main()
