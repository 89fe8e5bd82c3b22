"""Two processes are one with twice the batch: values, gradients, and whole runs."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.messages import mentions
from helpers.runs import (
    SECONDS_TO_WAIT,
    STUDENT_KWARGS,
    TEACHER_KWARGS,
    TERMS,
    TINY_STUDENT,
    as_rank,
    call_at,
    contents,
    free_port,
    in_two_processes,
    run_ranks,
    send_self,
)
from isometry.distributed import freeze_unreached, join_world
from isometry.errors import UserError
from isometry.models.build import build_model
from isometry.models.spec import ModelSpec
from isometry.training.checkpoint.files import load_checkpoint
from isometry.training.loss_meter import LossMeter, NotFiniteError
from isometry.training.objective import Objective

# --- one step
# --------------------------------------------------------------------------------------------------------

LOSSES = [
    {"whole": 4.0},
    {"soft": 1.0, "intra": 4.0},
    {"ce": 1.0, "embedding": 1.0, "whole": {"weight": 1.0}},
]


def objective(losses: dict[str, Any]) -> Objective:
    """The same small pair in every process."""

    def built(name: str, words: tuple[str, ...]) -> torch.nn.Module:
        kwargs = {
            key: float(value) if "." in value else int(value) for key, value in (w.split("=") for w in words)
        }
        torch.manual_seed(0)
        return build_model(ModelSpec(name, kwargs, num_classes=10, in_chans=1, img_size=8))[0]

    student, teacher = built("vit_tiny_patch16_224", STUDENT_KWARGS), built("cait_xxs24_224", TEACHER_KWARGS)
    torch.manual_seed(1)
    return Objective(student, losses, teacher, img_size=8)


def batch() -> tuple[Tensor, Tensor]:
    """Twelve images and their labels."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(12, 1, 8, 8, generator=generator), torch.arange(12) % 10


def two_steps(task: Objective, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The terms of two steps, and the gradients of the second."""
    for _ in range(2):
        task.zero_grad()
        result = task(images, labels)
        result["loss"].backward()
    values = {name: value.detach() for name, value in result.items() if name != "output"}
    named = task.get_trainable_module().named_parameters()
    gradients = {name.removeprefix("module."): p.grad for name, p in named if p.grad is not None}
    return {**values, **gradients}


def half_a_step(rank: int, rendezvous: str, losses: dict[str, Any], out: str) -> None:
    """What one of two processes gets."""
    world = as_rank(rank, rendezvous)
    task = objective(losses)
    task.train()
    images, labels = batch()
    freeze_unreached(task.get_trainable_module(), task(images, labels)["loss"])
    task.prepare_distributed()
    found = two_steps(task, images[rank::2], labels[rank::2])
    found = {name: tensor.contiguous() for name, tensor in found.items()}
    for name in [*losses, "loss"]:
        found[name] = world.mean(found[name])
    save_file(found, f"{out}/{rank}.safetensors")
    world.close()


@pytest.mark.parametrize("losses", LOSSES, ids=["+".join(losses) for losses in LOSSES])
def test_two_processes_take_the_step_of_one_with_twice_the_batch(
    losses: dict[str, Any], tmp_path: Path
) -> None:
    in_two_processes(half_a_step, tmp_path, losses, str(tmp_path))
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    task = objective(losses)
    task.train()
    wanted = two_steps(task, *batch())
    for rank in range(2):
        assert found[rank].keys() == wanted.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(
                found[rank][name], tensor, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )


# --- reading losses
# --------------------------------------------------------------------------------------------------


def read_in_two(rank: int, rendezvous: str, out: str) -> None:
    """Two tallies that must say the same."""
    world = as_rank(rank, rendezvous)
    tally = LossMeter(["loss", "soft"], world)
    tally.add(0, torch.tensor([1.0, 10.0]) * (rank + 1), [rank])
    values, stop = tally.read(rank == 1)
    said: list[Any] = [values, stop, tally.sums]
    tally.add(1, torch.tensor([1.0, float("nan") if rank == 1 else 1.0]), [10 + rank])
    try:
        tally.read()
    except NotFiniteError as error:
        said += [error.step, error.terms, error.processes, error.images]
    Path(f"{out}/{rank}.json").write_text(json.dumps(said))
    world.close()


def test_processes_read_the_same_stop_together_and_name_all_images(tmp_path: Path) -> None:
    in_two_processes(read_in_two, tmp_path, str(tmp_path))
    for rank in range(2):
        said = json.loads((tmp_path / f"{rank}.json").read_text())
        assert said == [{"loss": 1.5, "soft": 15.0}, True, [3.0, 30.0], 1, ["soft"], [1], [[10], [11]]]


def test_alone_there_is_nobody_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = join_world("cpu")
    assert (world.rank, world.size, world.main) == (0, 1, True)
    assert world.sum([1.0, 2.0]) == [1.0, 2.0]
    assert world.gather([3]) == [[3]]
    assert world.any(True)
    assert not world.any(False)
    world.barrier()
    world.close()
    assert not dist.is_initialized()


def test_a_device_that_is_not_there_is_said() -> None:
    with pytest.raises(UserError, match="--device nowhere"):
        join_world("nowhere")


# --- whole runs
# ------------------------------------------------------------------------------------------------------


def keep_weights(path: str) -> None:
    """When the loop has ended, writes down what this process trained."""
    from isometry.training.loop import Trainer

    fit = Trainer.fit

    def keeping(self: Trainer) -> None:
        fit(self)
        save_file({name: t.contiguous() for name, t in self.objective.student.state_dict().items()}, path)

    Trainer.fit = keeping


@pytest.fixture
def words(tiny_teacher: Path) -> list[str]:
    """Two processes of 75 images: the global batches of the tiny run."""
    halves = ["--batch-size", "75", "--epochs", "2", "--drop-path", "0.1"]
    return ["distill", *TINY_STUDENT, "--teacher", f"local-dir:{tiny_teacher}", *TERMS, *halves]


def test_two_processes_leave_one_folder_and_the_same_weights(words: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    keep = tuple(partial(keep_weights, str(tmp_path / f"{rank}.safetensors")) for rank in range(2))
    ended = run_ranks(*words, "--out", str(out), folder=tmp_path, port=free_port(), prepare=keep)
    assert [(each.code, each.err) for each in ended] == [(0, ""), (0, "")]
    assert "epoch 2/2" in ended[0].out
    assert ended[1].out == ""
    trained = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    saved = load_checkpoint(out / "last")
    assert all(torch.equal(tensor, trained[0][name]) for name, tensor in saved.parts["model"].items())
    assert saved.state["processes"] == 2
    assert (out / "student" / "model.safetensors").is_file()
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on_bitwise(words: list[str], tmp_path: Path) -> None:
    """One of them is asked, and both leave; the sums of an epoch are those of both."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    ended = run_ranks(*words, "--out", str(whole), folder=tmp_path, port=free_port())
    assert [each.code for each in ended] == [0, 0], ended
    ask = partial(call_at, "isometry.training.loop:Trainer.train_step", 4, partial(send_self, signal.SIGTERM))
    ended = run_ranks(*words, "--out", str(out), folder=tmp_path, port=free_port(), prepare=(None, ask))
    assert [each.code for each in ended] == [0, 0]
    assert mentions(ended[0].err, "step 4 … 12")
    ended = run_ranks(
        *words, "--out", str(out), "--resume", folder=tmp_path, port=free_port(), prepare=(None, None)
    )
    assert [each.code for each in ended] == [0, 0], ended
    before, after = contents(whole), contents(out)
    assert [name for name in before if after.get(name) != before[name]] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "terms", ["--losses.whole 1", "--losses.whole 1 --losses.embedding 1 --losses.soft 1"]
)
def test_two_processes_add_up_micro_batches(terms: str, tiny_teacher: Path, tmp_path: Path) -> None:
    """With and without weights that never get a gradient; the last group of the epoch's five is smaller."""
    words = [
        "distill",
        *TINY_STUDENT,
        "--teacher",
        f"local-dir:{tiny_teacher}",
        *terms.split(),
        "--batch-size",
        "90",
    ]
    words += ["--grad-accum-steps", "2", "--epochs", "2", "--out", str(tmp_path / "run")]
    keep = tuple(partial(keep_weights, str(tmp_path / f"{rank}.safetensors")) for rank in range(2))
    ended = run_ranks(*words, folder=tmp_path, port=free_port(), prepare=keep)
    assert [(each.code, each.err) for each in ended] == [(0, ""), (0, "")]
    trained = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


LEAVING = """
import atexit, gc, weakref
import torch
from isometry.distributed import join_world

gc.disable()
atexit.register(lambda: print("gone" if held() is None else "still there"))
world = join_world("cpu")
trained = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
trained(torch.ones(1, 2)).sum().backward()
trained.itself = trained
held = weakref.ref(trained)
del trained
world.close()
"""


def test_what_holds_the_group_is_gone_before_the_interpreter_is() -> None:
    """Else the group's threads outlive the interpreter now and then, and abort the process."""
    port = str(free_port())
    words = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LEAVING],
            env={**os.environ, **words, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=SECONDS_TO_WAIT)[0] for process in processes]
    assert said == ["gone\n", "gone\n"]
    assert [process.returncode for process in processes] == [0, 0]


@pytest.mark.parametrize("device", ["meta", "meta:0", "mkldnn", "vulkan", "cpu:x", "-1", "cuda:9999"])
def test_a_device_that_computes_nothing_here_is_refused(device):
    with pytest.raises(UserError, match=f"--device {device}: not available here"):
        join_world(device)
