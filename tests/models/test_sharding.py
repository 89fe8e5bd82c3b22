"""A teacher in pieces over two processes teaches the same, and neither ever holds much of it."""

import json
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from helpers.runs import (
    TERMS,
    TINY_STUDENT,
    as_rank,
    contents,
    free_port,
    in_two_processes,
    run_ranks,
)
from helpers.small_transformers import cait, vit
from isometry.data import Batch
from isometry.distributed import World
from isometry.evaluation.accuracy import accuracy
from isometry.models.sharding import bytes_held, in_step, is_sharded, shard
from isometry.models.taps import repeated_blocks
from isometry.training.objective import Objective
from isometry.training.validation import objective_losses

SIDE = 64
NETWORKS = {
    "vit": vit,
    "cait": cait,
    "resnet": lambda: timm.create_model("resnet10t", num_classes=10),
    "convnext": lambda: timm.create_model("convnext_atto", num_classes=10, depths=(1, 1, 3, 1)),
    "regnet": lambda: timm.create_model("regnety_002", num_classes=10),
}
BLOCKS = {
    "vit": ["blocks.0", "blocks.1", "blocks.2"],
    "cait": ["blocks.0", "blocks.1", "blocks.2"],
    "regnet": [*(f"s3.b{number}" for number in range(1, 5)), *(f"s4.b{number}" for number in range(1, 8))],
}
"""A stage of one block repeats nothing."""


def teacher_of(kind: str) -> nn.Module:
    """The same in every process, with norms that have seen images."""
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    with torch.no_grad():
        network.train()(torch.randn(4, 3, SIDE, SIDE))
    return network.eval().requires_grad_(False)


def objective(teacher: nn.Module) -> Objective:
    torch.manual_seed(1)
    return Objective(vit(depth=2), {"soft": 1.0, "whole": 1.0}, teacher, img_size=SIDE)


def step(task: Objective, images: Tensor) -> list[Tensor]:
    """Loss and gradients."""
    result = task.train()(images, torch.zeros(len(images), dtype=torch.long))
    result["loss"].backward()
    return [result["loss"].detach(), *(p.grad for p in task.student.parameters() if p.grad is not None)]


def size_of(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Watch:
    """Notes the most bytes of other blocks that are whole while a block computes."""

    def __init__(self, network: nn.Module) -> None:
        self.blocks, self.most, self.calls = repeated_blocks(network), 0, 0
        for block in self.blocks:
            block.register_forward_hook(self._look)

    def _look(self, block: nn.Module, inputs: object, output: object) -> None:
        others = [p for other in self.blocks if other is not block for p in other.parameters()]
        self.most = max(self.most, size_of([p for p in others if not isinstance(p, DTensor)]))
        self.calls += 1


def compare(rank: int, rendezvous: str, kind: str) -> None:
    """In each process: a step with the teacher whole, and one with it in pieces."""
    world = as_rank(rank, rendezvous)
    images = torch.randn(3 + rank, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(rank))
    whole, pieces = teacher_of(kind), teacher_of(kind)
    shard(pieces, world)
    assert is_sharded(pieces)
    assert not is_sharded(whole)
    watch = Watch(pieces)
    # As far as the relations go, each for itself: only the teacher is shared here.
    tasks = [objective(network) for network in (whole, pieces)]
    for task in tasks:
        task.to(world.device)
        for module in task.losses["whole"]:
            module.relations = "local"
    found, wanted = step(tasks[1], images), step(tasks[0], images)
    assert len(found) == len(wanted) > 10
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))
    for name, buffer in whole.named_buffers():
        assert torch.equal(dict(pieces.named_buffers())[name], buffer), name

    own = [p.to_local() for p in pieces.parameters()]
    all_of_it = size_of(list(whole.parameters()))
    assert abs(size_of(own) / all_of_it - 1 / 2) < 0.02
    # A view of something whole would keep that alive.
    assert sum(
        t.untyped_storage().nbytes() for t in {t.untyped_storage().data_ptr(): t for t in own}.values()
    ) < (0.6 * all_of_it)
    assert watch.calls >= len(watch.blocks)
    assert watch.most == 0
    assert bytes_held(whole) == all_of_it
    assert size_of(own) < bytes_held(pieces)
    world.close()


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_step_is_bitwise_that_with_the_whole_teacher(kind: str, tmp_path: Path) -> None:
    in_two_processes(compare, tmp_path, kind)


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_are_found_by_their_repetition(kind: str) -> None:
    network = NETWORKS[kind]()
    blocks = repeated_blocks(network)
    names = {id(module): name for name, module in network.named_modules()}
    assert [names[id(block)] for block in blocks] == BLOCKS[kind]
    parameters = [id(p) for block in blocks for p in block.parameters()]
    assert len(parameters) == len(set(parameters))


def test_a_network_that_repeats_nothing_has_no_blocks() -> None:
    assert repeated_blocks(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []


def reach_past_a_block() -> None:
    """Makes ViTs compute with a block's weight without calling the block."""
    from timm.models import VisionTransformer

    forward = VisionTransformer.forward

    def reaching(self: VisionTransformer, x: Tensor) -> Tensor:
        return forward(self, x) + x.mean() * self.blocks[0].norm1.weight.sum()

    VisionTransformer.forward = reaching


def test_what_can_not_be_taken_apart_is_refused_in_a_line(tmp_path: Path) -> None:
    kwargs = ["patch_size=4", "embed_dim=16", "depth=2", "num_heads=2", "img_size=8", "in_chans=1"]
    teacher = ["--teacher", "vit_tiny_patch16_224", "--teacher-weights", "none", "--teacher-kwargs", *kwargs]
    words = ["distill", *TINY_STUDENT, *teacher, "--teacher-shard", "--out", str(tmp_path / "run")]
    reach = (reach_past_a_block, reach_past_a_block)
    for ended in run_ranks(*words, folder=tmp_path, port=free_port(), prepare=reach):
        assert ended.code == 2
        assert "--teacher-shard: vit_tiny_patch16_224" in ended.err


# --- evaluation
# ---------------------------------------------------------------------------------------------------------


class Normalise:
    """Stands where Preprocess does; the images are normalised already."""

    def normalise(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.images, batch.targets


def share(rank: int, size: int, count: int, batch: int) -> list[Batch]:
    """Every ``size``-th of some images, in batches: of different numbers in different processes."""
    images = torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(9))[rank::size]
    targets = torch.arange(count)[rank::size] % 10
    starts = range(0, len(images), batch)
    return [
        Batch(images[at : at + batch], targets[at : at + batch], targets[at : at + batch], [])
        for at in starts
    ]


def evaluate_unevenly(rank: int, rendezvous: str, count: int, out: str) -> None:
    world = as_rank(rank, rendezvous)
    pieces = teacher_of("cait")
    shard(pieces, world)
    task = objective(pieces)
    batches = share(rank, 2, count, batch=2)
    (found,) = objective_losses(task, batches, Normalise(), world, torch.no_grad)
    found |= accuracy(pieces, batches, Normalise(), world, torch.no_grad, task.teacher.adapter)
    Path(f"{out}/{rank}.json").write_text(json.dumps([len(batches), found]))
    world.close()


@pytest.mark.parametrize("count", [1, 5])
def test_processes_with_unequal_shares_evaluate_together(count: int, tmp_path: Path) -> None:
    """Of five images one has two batches and the other one; of one image the other has nothing."""
    in_two_processes(evaluate_unevenly, tmp_path, count, str(tmp_path))
    (first, found), (second, same) = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)
    )
    assert first == second + 1
    assert found == same
    world = World(0, 1, torch.device("cpu"))
    figures = accuracy(teacher_of("cait"), share(0, 1, count, batch=2), Normalise(), world, torch.no_grad)
    assert found == pytest.approx({**found, **figures}, rel=1e-5)


def take_turns(rank: int, rendezvous: str, out: str) -> None:
    world = as_rank(rank, rendezvous)
    seen: list[str] = []
    for item in in_step(["a", "b", "c"][: 3 - 2 * rank], world, lambda: seen.append("stand-in")):
        seen.append(item)
    Path(f"{out}/{rank}.json").write_text(json.dumps(seen))
    world.close()


def test_turns_are_as_many_in_every_process(tmp_path: Path) -> None:
    in_two_processes(take_turns, tmp_path, str(tmp_path))
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert said == [["a", "b", "c"], ["a", "stand-in", "stand-in"]]


# --- whole runs
# ---------------------------------------------------------------------------------------------------------

RESNET = ["cifar_resnet20", "--teacher-weights", "none", "--teacher-kwargs", "in_chans=1"]


def two_runs(teacher: list[str], more: list[str], folder: Path) -> tuple[Path, Path]:
    """The same run with the teacher whole and in pieces."""
    halves = ["--batch-size", "75", "--epochs", "2", "--drop-path", "0.1", "--teacher", *teacher, *TERMS]
    runs = folder / "whole", folder / "pieces"
    for out, option in zip(runs, ([], ["--teacher-shard"]), strict=True):
        words = ["distill", *TINY_STUDENT, *halves, *more, *option, "--out", str(out)]
        ended = run_ranks(*words, folder=folder, port=free_port())
        assert [each.code for each in ended] == [0, 0], ended
    return runs


def same_figures(row: dict) -> dict:
    """The figures of a model that don't depend on time."""
    return {key: value for key, value in row.items() if key != "seconds" and not key.startswith("images")}


def check_same(whole: Path, pieces: Path) -> None:
    before, after = contents(whole), contents(pieces)
    assert [name for name in before if after.get(name) != before[name]] == []
    figures = [json.loads((run / "summary.json").read_text()) for run in (whole, pieces)]
    for theirs, ours in zip(*figures, strict=True):
        assert same_figures(ours) == same_figures(theirs)
    # Over several processes, in the teacher's own type: in another column than speeds that can be compared.
    assert "images_per_s" in figures[0][0]
    assert "images_per_s" not in figures[1][0]
    assert any(key.startswith("images/s (") and key.endswith(", sharded)") for key in figures[1][0])
    assert figures[0][0]["role"] == "teacher"
    assert figures[0][0]["macs"] > 0
    assert (pieces / "report.html").is_file()


def test_a_run_is_bitwise_that_with_the_whole_teacher(tiny_teacher: Path, tmp_path: Path) -> None:
    check_same(*two_runs([f"local-dir:{tiny_teacher}"], [], tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["--compile", "--compile-backend", "aot_eager"],
        ["--grow.depth", "1,2", "--model-ema"],
        ["--teacher-dtype", "bfloat16", "--grad-checkpointing"],
        ["--grad-accum-steps", "2"],
    ],
    ids=lambda words: words[0],
)
def test_whatever_else_the_run_does(more: list[str], tiny_teacher: Path, tmp_path: Path) -> None:
    check_same(*two_runs([f"local-dir:{tiny_teacher}"], more, tmp_path))


@pytest.mark.slow
def test_a_teacher_with_batch_norms(tmp_path: Path) -> None:
    check_same(*two_runs(RESNET, [], tmp_path))
