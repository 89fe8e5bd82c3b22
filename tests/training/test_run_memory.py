"""Memory of a run's step, and what each remedy saves of it."""

from dataclasses import replace

import pytest
import torch

from helpers.runs import TINY_STUDENT, config_of
from isometry.config import RunConfig
from isometry.distributed import World
from isometry.training.assemble import Run, assemble
from isometry.training.run_memory import memory, optimizer_moments, savings

ALONE = World(0, 1, torch.device("cpu"))
CONFIG = RunConfig(model="vit_tiny_patch16_224")


@pytest.mark.parametrize(
    ("opt", "moments"), [("adamw", 2), ("sgd", 1), ("momentum", 1), ("lion", 1), ("rmsprop", 2), ("adan", 4)]
)
def test_moments_are_counted_in_the_optimizer_itself(opt, moments):
    assert optimizer_moments(replace(CONFIG, opt=opt, lr=0.1)) == pytest.approx(moments, abs=0.05)


def test_plain_sgd_and_factored_moments_need_next_to_nothing():
    assert optimizer_moments(replace(CONFIG, opt="momentum", momentum=0.0, lr=0.1)) == 0
    assert 0 < optimizer_moments(replace(CONFIG, opt="adafactor", lr=0.1)) < 0.1


def run_of(teacher, *words: str) -> Run:
    taught = ["--teacher", f"local-dir:{teacher}", "--losses.soft", "1", "--losses.whole", "1"]
    return assemble(config_of(*TINY_STUDENT, *taught, "--grad-accum-steps", "2", *words), ALONE)


def test_each_remedy_saves_what_a_run_with_it_needs_less(tiny_teacher):
    run = run_of(tiny_teacher)
    needed = memory(run, ALONE)
    found = dict(savings(run, ALONE, needed))
    remedies = {
        "-b 75 instead of 150 (with --grad-accum-steps 4)": ["-b", "75"],
        "--grad-checkpointing": ["--grad-checkpointing"],
        "--teacher-dtype bfloat16": ["--teacher-dtype", "bfloat16"],
    }
    assert list(found) == list(remedies)
    for name, words in remedies.items():
        other = memory(run_of(tiny_teacher, *words), ALONE)
        changed = "teacher" if "teacher" in name else "activations"
        assert found[name] == pytest.approx(getattr(needed, changed) - getattr(other, changed), rel=0.01), (
            name
        )
        assert found[name] > 0


def test_remedies_that_are_taken_are_not_named_again(tiny_teacher):
    run = run_of(tiny_teacher, "--grad-checkpointing", "--teacher-dtype", "bfloat16", "-b", "1")
    assert dict(savings(run, ALONE, memory(run, ALONE))) == {}
