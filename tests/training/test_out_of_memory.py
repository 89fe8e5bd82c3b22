"""A device without memory for a step: one line that says what a step takes and what would save how much of it."""

import re
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from helpers.runs import TINY_STUDENT, Ended, call_at, run
from isometry.training.out_of_memory import is_out_of_memory

ON_A_GPU = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 15.78 GiB"
ON_A_CPU = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "9437184000 bytes. Error code 12 (Cannot allocate memory)"
)
STEP = "isometry.training.objective:Objective.forward"
FIRST_OF_VALIDATION = 7
"""Images are normalised in each of the six steps of an epoch, too."""
VALIDATION = "isometry.data.preprocess:Preprocess.normalise"


def fail(error: type[Exception], text: str) -> None:
    raise error(text)


def distil(teacher: Path, tmp_path: Path, prepare: Callable[[], None] | None, *words: str) -> Ended:
    taught = [
        "--teacher",
        f"local-dir:{teacher}",
        "--losses.soft",
        "1",
        "--losses.whole",
        "1",
        "--epochs",
        "2",
    ]
    out = str(tmp_path / "run")
    return run(
        "distill", *TINY_STUDENT, *taught, *words, "--out", out, said=tmp_path / "said", prepare=prepare
    )


def line_of(ended: Ended) -> str:
    assert ended.code == 2, ended.err
    (line,) = ended.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("error", "text"), [(torch.cuda.OutOfMemoryError, ON_A_GPU), (RuntimeError, ON_A_CPU), (MemoryError, "")]
)
def test_a_step_says_what_would_help_and_how_much(tiny_teacher, tmp_path, error, text):
    ended = distil(tiny_teacher, tmp_path, partial(call_at, STEP, 3, partial(fail, error, text)))
    size = r"[\d.]+ [KM]iB"
    assert re.fullmatch(
        rf"isometry: out of memory on cpu in step 3 of 12, which takes about {size}: -b 75 instead of 150 \(with "
        rf"--grad-accum-steps 2\) would save {size}, --grad-checkpointing {size}, --teacher-dtype bfloat16 {size}; "
        "nothing was saved yet: start again",
        line_of(ended),
    )
    assert not (tmp_path / "run").exists()


def test_after_a_save_the_run_goes_on_from_it_with_checkpointing(tiny_teacher, tmp_path):
    lacking = partial(call_at, STEP, 9, partial(fail, torch.OutOfMemoryError, ON_A_GPU))
    line = line_of(distil(tiny_teacher, tmp_path, lacking))
    assert "in step 9 of 12" in line
    assert line.endswith("the last save is kept: go on with --resume")
    ended = distil(tiny_teacher, tmp_path, None, "--grad-checkpointing", "--resume")
    assert ended.code == 0, ended.err


def test_in_validation_it_is_the_batch_of_validation(tiny_teacher, tmp_path):
    lacking = partial(
        call_at, VALIDATION, FIRST_OF_VALIDATION, partial(fail, torch.OutOfMemoryError, ON_A_GPU)
    )
    line = line_of(distil(tiny_teacher, tmp_path, lacking))
    assert (
        "out of memory on cpu while networks were measured: a smaller --validation-batch-size takes less"
        in line
    )
    ended = distil(tiny_teacher, tmp_path, None, "--validation-batch-size", "100", "--resume")
    assert ended.code == 0, ended.err


def little_memory() -> None:
    """For ``prepare``: 300 MiB more than this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 300 * 2**20,) * 2)


@pytest.mark.slow
def test_memory_that_really_runs_out(tiny_teacher, tmp_path):
    large = [
        "--img-size",
        "256",
        "--student-kwargs",
        "patch_size=8",
        "embed_dim=64",
        "depth=4",
        "num_heads=2",
    ]
    ended = distil(tiny_teacher, tmp_path, little_memory, *large)
    assert re.search(r"out of memory on cpu in step 1 of \d+", line_of(ended))


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (torch.cuda.OutOfMemoryError(ON_A_GPU), True),
        (RuntimeError(ON_A_CPU), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.9 GB)"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_a_lack_of_memory(error, lacks):
    assert is_out_of_memory(error) == lacks
