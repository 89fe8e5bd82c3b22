"""Time of a training step: ``python benchmarks/step.py [--device cuda] [--pair resnet]``.

DeiT-Tiny distilled from CaiT-S24 at 224 pixels, with random weights and images. Compared are the training step of
``isometry distill`` with the given options and a plain loop written from the equations: eager, keeping the outputs of
all blocks, with the teacher in float32, and with explicit maps for three relation terms (arXiv:2107.01378v1, eq. 10 to
12). On a GPU all sides use autocast, and peak memory is measured too. The sides alternate step by step in one process;
a ratio is that of medians. Writes results/step.json (step_cuda.json on a GPU).

With ``--pair resnet``, ResNet-18 is distilled from ResNet-34, and the step is compared with that of KD alone: what is
missing to the same speed is the share of the relation terms and their backward pass. Writes results/step_resnet.json
(step_resnet_cuda.json).

With ``--pair layout``, that step of KD alone with ``--channels-last`` is compared with the step without. Writes
results/step_layout.json (step_layout_cuda.json).
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

import timm
import torch
import torch.nn.functional as F
from common import caption, measured_on, rounded, save
from rich.console import Console
from rich.table import Table
from timm.optim import create_optimizer_v2
from torch import Tensor

from isometry.config import RunConfig
from isometry.data import Batch
from isometry.distributed import World
from isometry.training.assemble import assemble
from isometry.training.loop import Trainer
from isometry.training.parallelize import prepare
from isometry.training.phase_timer import PHASES, PhaseTimer

STUDENT, TEACHER, SIDE, CLASSES = "deit_tiny_patch16_224", "cait_s24_224", 224, 10
BLOCKS = [(0, 0), (1, 1), (2, 2), (3, 3), (8, 20), (9, 21), (10, 22), (11, 23)]
"""Pairs of a student's and a teacher's block: the first four and the last four of each."""

RANDOM_PATCHES = 192
LR = 5e-4
Phases = dict[str, float]


class Side(Protocol):
    """An implementation of the training step."""

    def step(self) -> Phases:
        """Trains one step; returns seconds by phase."""


class Plain:
    """A plain training loop from the equations, with timm's models and optimizer."""

    def __init__(self, images_BCHW: Tensor) -> None:
        device = images_BCHW.device
        self.images = images_BCHW.float() / 255 * 2 - 1
        self.student = timm.create_model(STUDENT, num_classes=CLASSES).to(device).train()
        self.teacher = timm.create_model(TEACHER, num_classes=CLASSES).to(device).eval()
        self.optimizer = create_optimizer_v2(self.student, opt="adamw", lr=LR, weight_decay=0.05)
        self.timer = PhaseTimer(device)
        self.autocast = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()

    def step(self) -> Phases:
        with self.autocast:
            with self.timer("teacher"), torch.no_grad():
                last, teacher_blocks = self.teacher.forward_intermediates(self.images)
                teacher_logits = self.teacher.forward_head(last)
            with self.timer("student"):
                last, student_blocks = self.student.forward_intermediates(self.images)
                student_logits = self.student.forward_head(last)
            with self.timer("terms"):
                soft = F.kl_div(
                    student_logits.float().log_softmax(-1),
                    teacher_logits.float().softmax(-1),
                    reduction="batchmean",
                )
                relations = [relation_terms(student_blocks[s], teacher_blocks[t]) for s, t in BLOCKS]
                loss = soft + torch.stack(relations).mean()
        with self.timer("backward"):
            loss.backward()
        with self.timer("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self.timer.read()


def relation_terms(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """0.1 · (between images at each position) + 4 · (within each image) + 0.2 · (among random patches), as means."""
    a_BNC, b_BNC = (F.normalize(x.flatten(2).mT.float(), dim=-1) for x in (student_BCHW, teacher_BCHW))
    inter = map_distance(a_BNC.transpose(0, 1), b_BNC.transpose(0, 1))
    intra = map_distance(a_BNC, b_BNC)
    drawn = torch.randperm(a_BNC.shape[0] * a_BNC.shape[1], device=a_BNC.device)[:RANDOM_PATCHES]
    random = map_distance(a_BNC.flatten(0, 1)[drawn], b_BNC.flatten(0, 1)[drawn])
    return 0.1 * inter + 4 * intra + 0.2 * random


def map_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of the two relation maps."""
    return F.mse_loss(a @ a.mT, b @ b.mT)


class Ours:
    """The training step of the package, without loading images."""

    def __init__(
        self, images_BCHW: Tensor, options: dict[str, Any], pair: tuple[str, str] = (STUDENT, TEACHER)
    ) -> None:
        world = World(0, 1, images_BCHW.device)
        options = {"losses": {"soft": 1, "whole": 4}, **options}
        config = RunConfig(
            model=pair[0],
            teacher=pair[1],
            teacher_weights="none",
            dataset="digits",
            batch_size=len(images_BCHW),
            workers=0,
            device=str(images_BCHW.device),
            lr=LR,
            **options,
        )
        run = assemble(config, world)
        self.trainer = Trainer(run, None, world, None, "")
        prepare(self.trainer.objective, config, world, run.spec.input_size)
        self.trainer.objective.train()
        labels = torch.arange(len(images_BCHW)) % CLASSES
        self.batch = Batch(images_BCHW, labels, labels, [])

    def step(self) -> Phases:
        self.trainer.train_step([self.batch])
        return self.trainer.objective.timer.read()


def sides_on(device: torch.device) -> dict[str, Callable[[Tensor], Side]]:
    """Constructors of the sides by name, the plain loop first; each takes images uint8 (B, C, H, W)."""
    half: dict[str, Any] = {"teacher_dtype": "bfloat16"}
    sets: dict[str, dict[str, Any]] = {
        "--amp": {"amp": True},
        "--teacher-dtype bfloat16 --amp": {"amp": True, **half},
        "--teacher-dtype bfloat16 --amp --compile": {"amp": True, "compile": True, **half},
    }
    if device.type == "cpu":
        sets = {"float32": {}, "--teacher-dtype bfloat16": half, **sets}
        del sets["--amp"]
    return {"plain loop": Plain} | {name: partial(Ours, options=options) for name, options in sets.items()}


def sides_of_resnets(device: torch.device) -> dict[str, Callable[[Tensor], Side]]:
    """The step of a pair of ResNets, of KD alone first."""
    options: dict[str, Any] = {"amp": True, "amp_dtype": "float16"} if device.type == "cuda" else {}
    sets: dict[str, dict[str, Any]] = {
        "KD alone": {"losses": {"soft": 1}},
        "KD + whole": {},
        "KD + inter, intra, random": {"losses": {"soft": 1, "inter": 0.1, "intra": 4, "random": 0.2}},
    }
    pair = ("resnet18", "resnet34")
    return {name: partial(Ours, options=options | more, pair=pair) for name, more in sets.items()}


def sides_of_layouts(device: torch.device) -> dict[str, Callable[[Tensor], Side]]:
    """The step of KD alone between ResNets, in torch's usual layout of memory and in channels last."""
    options: dict[str, Any] = {"amp": True} if device.type == "cuda" else {}
    sets: dict[str, dict[str, Any]] = {"usual layout": {}, "--channels-last": {"channels_last": True}}
    pair = ("resnet18", "resnet34")
    return {
        name: partial(Ours, options={"losses": {"soft": 1}} | options | more, pair=pair)
        for name, more in sets.items()
    }


def timed(side: Side, device: torch.device) -> Phases:
    """Seconds of one step, by phase and in total (``step``)."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    phases = side.step()
    wait()
    return phases | {"step": time.perf_counter() - start}


def allocated(device: torch.device) -> int:
    """Bytes of GPU memory in use, of weights, gradients and optimizer states between steps; 0 on a CPU."""
    return torch.cuda.memory_allocated() if device.type == "cuda" else 0


def peak_of_step(side: Side, device: torch.device) -> int:
    """Bytes of GPU memory that a step takes beyond what is in use between steps; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    side.step()
    return torch.cuda.max_memory_allocated() - before


def measure(
    builders: dict[str, Callable[[Tensor], Side]], images_BCHW: Tensor, rounds: int
) -> list[dict[str, Any]]:
    """A row per side: images/s, ratio to the first side, median seconds by phase, peak memory on a GPU."""
    device = images_BCHW.device
    sides, peaks = {}, {}
    for name, build in builders.items():
        before = allocated(device)
        sides[name] = side = build(images_BCHW)
        # Warm-up: the first steps allocate and compile.
        side.step()
        side.step()
        peaks[name] = allocated(device) - before + peak_of_step(side, device)
    taken: dict[str, list[Phases]] = defaultdict(list)
    for _ in range(rounds):
        for name, side in sides.items():
            taken[name].append(timed(side, device))
    medians = {
        name: {phase: statistics.median(step.get(phase, 0.0) for step in steps) for phase in steps[0]}
        for name, steps in taken.items()
    }
    first, reference = next((name, phases["step"]) for name, phases in medians.items())
    return [
        {
            "side": name,
            "images/s": len(images_BCHW) / phases["step"],
            f"times {first.removesuffix(' loop')}": reference / phases["step"],
            **({"peak MiB": peaks[name] / 2**20} if device.type == "cuda" else {}),
            "seconds": phases,
        }
        for name, phases in medians.items()
    ]


def report(rows: list[dict[str, Any]], setting: dict[str, Any], name: str, pair: str) -> None:
    """Prints the rows as a table and saves them."""
    title = f"A training step of {pair} at {SIDE} pixels"
    table, rows = Table(title=title, caption=caption(setting)), rounded(rows)
    names = [name for name in rows[0] if name != "seconds"]
    for heading in (*names, *(f"{phase}, s" for phase in PHASES)):
        table.add_column(heading, justify="left" if heading == "side" else "right")
    for row in rows:
        shown = [row[name] for name in names] + [row["seconds"].get(phase, "–") for phase in PHASES]
        table.add_row(*map(str, shown))
    Console().print(table)
    save(name, {**setting, "sides": rows})


def run(device: str, batch: int | None, rounds: int, threads: int, pair: str) -> None:
    """Measures on a device and reports."""
    on_gpu, resnets, layouts = device == "cuda", pair == "resnet", pair == "layout"
    batch = batch or (128 if on_gpu else 16)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, SIDE, SIDE), dtype=torch.uint8, device=device)
    sides = {"tokens": sides_on, "resnet": sides_of_resnets, "layout": sides_of_layouts}[pair]
    builders = sides(images.device)
    rows = measure(builders, images, rounds)
    target = {"target, times KD alone": 0.88 if on_gpu else None} if resnets else {}
    target = target or ({} if layouts else {"target, times plain": 2.3 if on_gpu else 2.6})
    setting = {**measured_on(torch.device(device)), "batch": batch, "rounds": rounds, **target}
    names = f"{STUDENT} with {TEACHER}" if pair == "tokens" else "ResNet-18 with ResNet-34"
    report(rows, setting, f"step{'_resnet' * resnets}{'_layout' * layouts}{'_cuda' * on_gpu}", names)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, help="batch size; 16 on a CPU, 128 on a GPU by default")
    parser.add_argument("--rounds", type=int, default=9, help="measured steps of each side")
    parser.add_argument("--threads", type=int, default=2, help="number of CPU threads")
    pairs = ("tokens", "resnet", "layout")
    parser.add_argument("--pair", choices=pairs, default="tokens", help="student and teacher")
    given = parser.parse_args()
    run(given.device, given.batch, given.rounds, given.threads, given.pair)


if __name__ == "__main__":
    main()
