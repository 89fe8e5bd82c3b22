"""Compiled runs: each network is compiled once, whatever the sizes of batches and whatever happens between epochs."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch._dynamo.utils import counters

from helpers.runs import DIGITS, STUDENT_KWARGS, as_rank, config_of, in_two_processes, trainer_of
from isometry.data import Batch
from isometry.distributed import World
from isometry.training.assemble import assemble
from isometry.training.loop import Trainer
from isometry.training.parallelize import uncompiled
from isometry.training.progress import COMPILING

CAIT = ("patch_size=4", "embed_dim=32", "depth=2", "depth_token_only=1", "num_heads=2")
STUDENT = ["--model", "vit_tiny_patch16_224", "--model-kwargs", *STUDENT_KWARGS]
TEACHER = [
    *("--teacher", "cait_xxs24_224", "--teacher-weights", "none"),
    *("--teacher-kwargs", *CAIT, "img_size=8", "in_chans=1"),
]
# The 397 images for validation are two batches, and the 900 for training four and a rest.
COMPILED = [*DIGITS, "--batch-size", "200", "--validation-batch-size", "200", "--epochs", "3"]
COMPILED += ["--compile", "--compile-backend", "eager"]
RESNET = ["--img-size", "16", "--model", "cifar_resnet20", "--model-kwargs", "layers=[1,1,1]"]
UNEQUAL_INPUTS = [
    *(*RESNET, "channels=[4,4,4]"),
    *("--teacher", "cifar_resnet20", "--teacher-weights", "none"),
    *("--teacher-kwargs", "layers=[1,1,1]", "channels=[4,4,8]", "in_chans=1"),
]
KEEPING = [
    *("--teacher", "levit_128s", "--teacher-weights", "none"),
    *("--teacher-kwargs", "img_size=32", "in_chans=1", "key_dim=4", "embed_dim=[16,16,16]"),
    *("depth=[1,1,1]", "num_heads=[1,1,1]"),
]
"""A teacher that keeps the biases of its first forward pass."""
GATES = [*RESNET, "channels=[8,8,8]", "--prune.keep-rate", "0.5", "--prune.from-scratch", "true"]


@pytest.fixture(autouse=True)
def count_from_zero() -> Iterator[None]:
    """Nothing is compiled yet, and nothing stays compiled."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def graphs() -> int:
    """How many graphs were compiled; checks that none was broken off."""
    assert not counters["graph_break"]
    # A frame without tensors is counted the first time that a process meets it, and makes no graph.
    assert counters["frames"]["ok"] == counters["frames"]["total"]
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (1, STUDENT),
        (1, [*STUDENT, "--batch-size", "4000"]),
        (1, [*STUDENT, "--grad-checkpointing", "--drop-path", "0.2", "--clip-grad", "1"]),
        (1, GATES),
        (2, [*STUDENT, *TEACHER, "--model-ema", "--grad-accum-steps", "3"]),
        (2, [*STUDENT, *TEACHER, "--num-classes", "0", "--losses.whole", "1"]),
        (2, [*STUDENT, *TEACHER, "--amp", "--amp-dtype", "bfloat16", "--teacher-dtype", "bfloat16"]),
        (2, UNEQUAL_INPUTS),
        (2, [*STUDENT, *KEEPING, "--losses.soft", "1"]),
    ],
    ids=[
        "alone",
        "few images",
        "checkpointing",
        "gates",
        "average",
        "unlabelled",
        "amp",
        "unequal inputs",
        "keeping",
    ],
)
def test_a_run_compiles_each_network_once(wanted: int, words: list[str]) -> None:
    trainer = trainer_of(*COMPILED, *words)
    trainer.fit()
    assert trainer.state.epoch == 3
    assert graphs() == wanted


@torch._dynamo.config.patch(recompile_limit=1)
def test_a_run_that_grows_compiles_the_student_once_more_a_stage_and_the_teacher_once() -> None:
    """Also beyond torch's limit of recompilations: three stages here, each with other taps."""
    words = [*STUDENT, *TEACHER, "--model-kwargs", *STUDENT_KWARGS, "depth=4"]
    words += ["--teacher-kwargs", *CAIT, "depth=4", "img_size=8", "in_chans=1"]
    words += ["--grow.depth", "1,2,4", "--epochs", "6", "--model-ema"]
    world, console = World(0, 1, torch.device("cpu")), Console(file=io.StringIO(), width=160)
    trainer = Trainer(assemble(config_of(*COMPILED, *words), world), None, world, console, "test")
    trainer.fit()
    assert graphs() == 4
    said = [line for line in console.file.getvalue().splitlines() if COMPILING in line]  # type: ignore[attr-defined]
    assert said == [
        f"test · stage {n}/3 (depth {depth}) · {COMPILING}" for n, depth in ((1, 1), (2, 2), (3, 4))
    ]


def test_a_cache_of_teacher_outputs_compiles_no_more(tmp_path: Path) -> None:
    words = [*COMPILED, *STUDENT, *TEACHER, "--teacher-cache", str(tmp_path / "cache")]
    trainer_of(*words).fit()
    assert graphs() == 2


def test_a_smaller_training_batch_runs_uncompiled() -> None:
    """The last batch of a stream's worker."""
    trainer = trainer_of(*COMPILED, *STUDENT, *TEACHER)
    groups = trainer.batches.groups

    def some_smaller(epoch: int, seen: int) -> Iterator[list[Batch]]:
        for number, (batch,) in enumerate(groups(epoch, seen)):
            count = len(batch) - 50 * (number % 3)
            yield [Batch(batch.images[:count], batch.targets[:count], batch.indices[:count], [])]

    trainer.batches.groups = some_smaller  # type: ignore[method-assign]
    trainer.fit()
    assert graphs() == 2


def test_a_compiled_network_knows_the_sizes_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Student and teacher see unequal images; torch would take them for one network with images of any size."""
    sizes: list[object] = []

    def note_sizes(graph: torch.fx.GraphModule, inputs: list[object]) -> object:
        sizes.extend(each for each in inputs if not isinstance(each, torch.Tensor))
        return graph.forward

    trainer = trainer_of(*COMPILED, *UNEQUAL_INPUTS, "--epochs", "1")
    objective = trainer.objective
    monkeypatch.setattr(
        objective,
        "compile",
        lambda backend, **options: type(objective).compile(objective, note_sizes, **options),
    )
    trainer.fit()
    assert graphs() == 2
    assert sizes == []


def _two_processes(rank: int, rendezvous: str) -> None:
    counters.clear()
    world = as_rank(rank, rendezvous)
    words = [*COMPILED, *STUDENT, *TEACHER, "--batch-size", "75", "--num-classes", "0", "--losses.whole", "1"]
    Trainer(assemble(config_of(*words), world), None, world, None, "test").fit()
    assert graphs() == 2


def test_processes_compile_once(tmp_path: Path) -> None:
    in_two_processes(_two_processes, tmp_path)


def test_uncompiled_is_for_the_time_being() -> None:
    compiled = torch.compile(lambda x: 2 * x, backend="eager")
    with uncompiled():
        compiled(torch.ones(2))
    with uncompiled(False):
        assert graphs() == 0
        compiled(torch.ones(2))
    assert graphs() == 1
