"""Runs with ``--teacher-cache``: outputs are computed once, and all runs end with the same weights."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.messages import mentions
from helpers.runs import LIVELY, TINY_STUDENT, check_equal, contents, free_port, run, run_ranks

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def words(tiny_teacher: Path) -> list[str]:
    """Everything random that changes what the teacher sees, and micro-batches."""
    return [
        "distill",
        *TINY_STUDENT,
        "--teacher",
        f"local-dir:{tiny_teacher}",
        *LIVELY,
        "--grad-accum-steps",
        "4",
    ]


def refuse_the_teacher() -> None:
    """The teacher fails on images; a single one of zeros, for the estimate of sizes, is let through."""
    from isometry.models.teacher import Teacher

    compute = Teacher.__call__

    def refuse(self: Teacher, input: Any, position: Any = None) -> Any:
        assert not input.any(), "the teacher was run"
        return compute(self, input, position)

    Teacher.__call__ = refuse


def test_all_runs_with_a_cache_end_as_the_one_without(words: list[str], tmp_path: Path) -> None:
    cache = ["--teacher-cache", str(tmp_path / "cache")]
    without = run(*words, "--out", str(tmp_path / "without"), said=tmp_path / "a")
    first = run(*words, *cache, "--out", str(tmp_path / "first"), said=tmp_path / "b")
    second = run(
        *words, *cache, "--out", str(tmp_path / "second"), said=tmp_path / "c", prepare=refuse_the_teacher
    )
    assert [(each.code, each.err) for each in (without, first, second)] == [(0, "")] * 3, second.err
    assert f"teacher cache {tmp_path}/cache: logits " in first.out
    assert first.out.count("teacher cache") == 1
    assert "exist already" not in first.out
    assert "exist already" in second.out
    wanted = contents(tmp_path / "without")
    check_equal(contents(tmp_path / "first"), wanted)
    check_equal(contents(tmp_path / "second"), wanted)


@SLOW
def test_another_student_with_other_terms_reads_it_too_and_a_longer_run_computes_the_rest(
    words: list[str], tmp_path: Path
) -> None:
    cache = ["--teacher-cache", str(tmp_path / "cache")]
    assert run(*words, *cache, "--out", str(tmp_path / "first"), said=tmp_path / "a").code == 0
    other = [*words, *cache, "--student-kwargs", "patch_size=4", "embed_dim=24", "depth=2", "num_heads=2"]
    other += ["--losses.intra", "1", "--lr", "1e-2"]
    ended = run(*other, "--out", str(tmp_path / "other"), said=tmp_path / "b", prepare=refuse_the_teacher)
    assert (ended.code, ended.err) == (0, "")
    files = len(list((tmp_path / "cache").rglob("*.safetensors")))
    ended = run(*words, *cache, "--epochs", "3", "--out", str(tmp_path / "longer"), said=tmp_path / "c")
    assert (ended.code, ended.err) == (0, "")
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 3 * files / 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--seed", "7"], "--seed was 42 and is 7"),
        pytest.param(["--batch-size", "50"], "--batch-size was 150 and is 50", marks=SLOW),
        pytest.param(["--reprob", "0.5"], "--reprob was 0.25 and is 0.5", marks=SLOW),
    ],
)
def test_a_cache_of_another_run_is_refused(
    change: list[str], said: str, words: list[str], tmp_path: Path
) -> None:
    cache = ["--teacher-cache", str(tmp_path / "cache"), "--epochs", "1"]
    assert run(*words, *cache, "--out", str(tmp_path / "first"), said=tmp_path / "a").code == 0
    ended = run(*words, *cache, *change, "--out", str(tmp_path / "second"), said=tmp_path / "b")
    assert ended.code == 2
    assert said in ended.err
    assert "--teacher-cache" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "second").exists()


def test_a_damaged_entry_is_noted_and_computed_again(words: list[str], tmp_path: Path) -> None:
    cache = ["--teacher-cache", str(tmp_path / "cache")]
    assert run(*words, *cache, "--out", str(tmp_path / "first"), said=tmp_path / "a").code == 0
    spoiled = sorted((tmp_path / "cache").rglob("*.safetensors"))[3]
    content = bytearray(spoiled.read_bytes())
    content[-5] ^= 1
    spoiled.write_bytes(content)
    ended = run(*words, *cache, "--out", str(tmp_path / "second"), said=tmp_path / "b")
    assert (ended.code, ended.err) == (0, "")
    assert f"{spoiled} is damaged" in ended.out
    check_equal(contents(tmp_path / "second"), contents(tmp_path / "first"))
    ended = run(
        *words, *cache, "--out", str(tmp_path / "third"), said=tmp_path / "c", prepare=refuse_the_teacher
    )
    assert (ended.code, ended.err) == (0, "")


@SLOW
def test_two_processes_have_separate_entries(words: list[str], tmp_path: Path) -> None:
    cache = ["--teacher-cache", str(tmp_path / "cache"), "--batch-size", "75"]
    both = partial(run_ranks, *words, *cache, folder=tmp_path)
    ended = both("--out", str(tmp_path / "first"), port=free_port())
    assert [(each.code, each.err) for each in ended] == [(0, "")] * 2
    asked = (refuse_the_teacher, refuse_the_teacher)
    ended = both("--out", str(tmp_path / "second"), port=free_port(), prepare=asked)
    assert [(each.code, each.err) for each in ended] == [(0, "")] * 2
    check_equal(contents(tmp_path / "second"), contents(tmp_path / "first"))


def test_a_run_that_needs_no_teacher_is_refused(words: list[str], tmp_path: Path) -> None:
    train = ["train", *TINY_STUDENT, "--epochs", "1", "--teacher-cache", str(tmp_path / "cache")]
    ended = run(*train, "--out", str(tmp_path / "run"), said=tmp_path / "a")
    assert ended.code == 2
    assert mentions(ended.err, "--teacher-cache: … teacher")
