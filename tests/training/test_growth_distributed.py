"""Two processes hold the same network before, during and after growth."""

import json
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.runs import (
    DIGITS,
    TINY_STUDENT,
    as_rank,
    call_at,
    check_equal,
    config_of,
    contents,
    free_port,
    in_two_processes,
    run_ranks,
    send_self,
)
from isometry.training.assemble import assemble
from isometry.training.loop import Trainer

AVERAGED = ["--model-ema", "--model-ema-decay", "0.5", "--grow.ema", "grow"]
BOTH = ["--batch-size", "75", "--epochs", "2", *AVERAGED]
VIT = [*TINY_STUDENT, *BOTH, "--grow.depth", "1,2", "--grow.width", "8,16", "--drop-path", "0.2"]
RESNET = [
    *DIGITS,
    *BOTH,
    "--model",
    "resnet18",
    "--model-kwargs",
    "layers=[1,2,1,1]",
    "channels=[64,16,16,16]",
    "--grow.depth",
    "1-1-1-1,1-2-1-1",
    "--grow.width",
    "64-8-8-8,64-16-16-16",
    "--grow.depth-operator",
    "identity",
]
"""Its buffers are the statistics of BatchNorm, which every process gathers from its own images."""


def held(trainer: Trainer) -> dict[str, Tensor]:
    """All that a process holds of the network: weights, buffers, their averages, and moments."""
    objective = trainer.objective
    kept = {"model": objective.student.state_dict()}
    kept["average"] = objective.trainable_module_ema.module.state_dict()
    named = objective.student.named_parameters()
    state = trainer.optimizer.state
    kept["moments"] = {name: state[p]["exp_avg"] for name, p in named if "exp_avg" in state.get(p, {})}
    return {f"{part}.{name}": t.detach().clone() for part, ts in kept.items() for name, t in ts.items()}


def grow_in_two(rank: int, rendezvous: str, words: list[str], out: str) -> None:
    """Writes down what one of two processes holds at some moments."""
    world = as_rank(rank, rendezvous)
    trainer = Trainer(assemble(config_of(*words), world), None, world, None, "")
    grow, end_epoch = Trainer.grow, Trainer.end_epoch

    def keep(moment: str) -> None:
        save_file(held(trainer), f"{out}/{moment}-{rank}.safetensors")

    def growing(self: Trainer, *stage: object) -> None:
        keep("before growth")
        grow(self, *stage)
        keep("after growth")

    def ending(self: Trainer) -> object:
        keep(f"after step {self.state.step}")
        return end_epoch(self)

    Trainer.grow, Trainer.end_epoch = growing, ending
    trainer.fit()
    scores = json.dumps(
        [trainer.state.scores, trainer.state.growths[0]["before"], trainer.state.growths[0]["after"]]
    )
    Path(f"{out}/{rank}.json").write_text(scores)
    world.close()


@pytest.mark.parametrize(
    "words", [pytest.param(VIT, id="vit", marks=pytest.mark.slow), pytest.param(RESNET, id="resnet")]
)
def test_two_processes_hold_the_same_network_before_and_after_growth(
    words: list[str], tmp_path: Path
) -> None:
    in_two_processes(grow_in_two, tmp_path, words, str(tmp_path))
    moments = ["after step 6", "before growth", "after growth", "after step 12"]
    sizes = []
    for moment in moments:
        first, second = (load_file(tmp_path / f"{moment}-{rank}.safetensors") for rank in range(2))
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == [], moment
        assert any(name.startswith("moments.") for name in first)
        sizes.append(sum(t.numel() for name, t in first.items() if name.startswith("model.")))
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3]
    scores, before, after = json.loads((tmp_path / "0.json").read_text())
    assert json.loads((tmp_path / "1.json").read_text()) == [scores, before, after]
    if words is RESNET:
        assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("words", [VIT, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize(
    ("method", "number", "saved"),
    [
        pytest.param("evaluate", 2, (1, 6), id="growing"),
        pytest.param("train_step", 10, (2, 9), id="grown"),
        # Between the save at the epoch's last step and its evaluation, which every process does with its buffers.
        pytest.param("evaluate", 3, (2, 12), id="before it is evaluated"),
    ],
)
def test_two_processes_killed_around_growth_go_on_bitwise(
    method: str, number: int, saved: tuple[int, int], words: list[str], tmp_path: Path
) -> None:
    words = ["train", *words, "--recovery-interval", "3"]
    whole, out = tmp_path / "whole", tmp_path / "run"
    ended = run_ranks(*words, "--out", str(whole), folder=tmp_path, port=free_port())
    assert [(each.code, each.err) for each in ended] == [(0, "")] * 2
    target = f"isometry.training.loop:Trainer.{method}"
    die = partial(call_at, target, number, partial(send_self, signal.SIGKILL))
    ended = run_ranks(*words, "--out", str(out), folder=tmp_path, port=free_port(), prepare=(die, die))
    assert [each.code for each in ended] == [-signal.SIGKILL] * 2
    told = json.loads((out / "last" / "checkpoint.json").read_text())
    assert (told["spec"]["stage"], told["loop"]["step"]) == saved
    again = [*words, "--out", str(out), "--resume"]
    ended = run_ranks(*again, folder=tmp_path, port=free_port())
    assert [(each.code, each.err) for each in ended] == [(0, "")] * 2
    check_equal(contents(out), contents(whole))
