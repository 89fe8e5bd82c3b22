"""A run that prunes, killed or stopped at any moment, and goes on: bitwise as if nothing had happened."""

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from helpers.pruned_runs import SIZED, dense_run
from helpers.runs import (
    Told,
    call_at,
    check_equal,
    contents,
    disturb,
    free_port,
    killed_at,
    left_alone,
    run,
    run_ranks,
    send_self,
    signalled_at_step,
)
from isometry.cli.main import main
from isometry.data import Batch, Preprocess
from isometry.prune.gate_statistics import SCALE

SLOW = pytest.mark.slow

GATES = ["--losses.ce", "1", "--losses.sparsity", "0.05", "--losses.similarity", "1"]
AVERAGED = ["--model-ema", "--model-ema-decay", "0.5"]
LIVELY = ["--mixup", "0.2", "--reprob", "0.25", "--drop-path", "0.1", "--clip-grad", "1", *AVERAGED]
"""Whatever a run of a ResNet can draw, and a moving average that moves."""


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network that is pruned."""
    return dense_run(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def words(dense: Path) -> list[str]:
    """Twelve steps in two epochs, and a save after every fourth."""
    prune = ["prune", *SIZED, "--model", str(dense), "--keep-rate", "0.5", "--epochs", "2"]
    return [*prune, *GATES, *LIVELY, "--recovery-interval", "4"]


def loop_call(method: str, number: int, signal_number: int = signal.SIGKILL) -> Callable[[], None]:
    """For ``prepare``: the process gets the signal as ``method`` is called for that time."""
    target = method if ":" in method else f"isometry.training.loop:Trainer.{method}"
    return partial(call_at, target, number, partial(send_self, signal_number))


SETS = "isometry.training.gate_thresholds:GateThresholds.set_thresholds"


def saved(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Where the loop stood at the last save, and the tensors by part."""
    last = folder / "last"
    told = json.loads((last / "checkpoint.json").read_text())
    return told["loop"], {part: load_file(last / name) for part, name in told["files"].items()}


def thresholds(tensors: dict[str, Tensor]) -> list[float]:
    return [float(tensor) for name, tensor in tensors.items() if name.endswith(".gate.threshold")]


def test_the_run_that_is_disturbed_has_all_that_must_come_back(undisturbed: Told, words: list[str]) -> None:
    """Else the tests below would prove nothing."""
    whole, journal = undisturbed
    rows = [json.loads(line) for line in whole["metrics.jsonl"]]
    assert [row["keep_rate"] for row in rows] == pytest.approx([0.75, 0.5])
    assert rows[0]["train/sparsity"] == 0.0
    assert rows[1]["train/sparsity"] > 0.01
    assert all(row["train/similarity"] > 0.001 for row in rows)
    model = {name.rpartition(":")[2]: told for name, told in whole.items() if name.startswith("last/model")}
    average = {name.rpartition(":")[2]: told for name, told in whole.items() if name.startswith("last/ema")}
    gates = [name for name in model if name.endswith("gate.threshold")]
    assert len(gates) == 6
    assert all(model[name] == average[name] != 4 * b"\0" for name in gates)
    assert model["fc.weight"] != average["fc.weight"]
    assert "open /last/gates-step8.safetensors.new" in journal


@pytest.mark.parametrize(
    ("method", "number", "step", "images"),
    [
        pytest.param("train_step", 6, 4, 600, id="in the first epoch", marks=SLOW),
        pytest.param(SETS, 1, 6, 900, id="before the first thresholds", marks=SLOW),
        pytest.param("evaluate", 1, 6, 900, id="with thresholds that are not saved yet"),
        pytest.param("train_step", 7, 6, 0, id="before the second epoch's first step", marks=SLOW),
        pytest.param("train_step", 11, 8, 300, id="in the second epoch"),
        pytest.param(SETS, 2, 12, 900, id="before the second thresholds"),
        pytest.param("evaluate", 2, 12, 900, id="with the second thresholds", marks=SLOW),
    ],
)
def test_a_pruning_run_that_is_killed_goes_on_bitwise(
    method: str,
    number: int,
    step: int,
    images: int,
    words: list[str],
    undisturbed: Told,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    ended = run(*words, "--out", str(out), said=tmp_path / "a", prepare=loop_call(method, number))
    assert ended.code == -signal.SIGKILL, ended.err
    loop, parts = saved(out)
    assert loop["step"] == step
    assert float(parts["gates"]["sums"][-1]) / SCALE == images
    after_an_epoch = loop["epoch"] >= 1
    for part in ("model", "ema"):
        assert [value > 0 for value in thresholds(parts[part])] == [after_an_epoch] * 6
    assert (float(parts["terms"]["sparsity.0.limit"]) > 0) is after_an_epoch
    ended = run(*words, "--out", str(out), "--resume", said=tmp_path / "b")
    assert (ended.code, ended.err) == (0, "")
    check_equal(contents(out), undisturbed[0])


@pytest.mark.parametrize(
    "event",
    [
        pytest.param("open /last/gates-step8.safetensors.new", id="writing statistics"),
        pytest.param("open /best/model-epoch2.safetensors.new", id="in the second best", marks=SLOW),
        pytest.param("os.remove /last/gates-step4.safetensors", id="tidying statistics away", marks=SLOW),
        pytest.param("os.rename /student.new", id="while it exports the student", marks=SLOW),
    ],
)
def test_a_pruning_run_killed_while_it_writes_goes_on_bitwise(
    event: str, words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    wanted, journal = undisturbed
    disturb(words, tmp_path, wanted, killed_at(tmp_path, journal.index(event) + 1), code=-signal.SIGKILL)


@pytest.mark.parametrize(
    ("prepare", "step"),
    [
        pytest.param(signalled_at_step(9, signal.SIGTERM), 9, id="in an epoch"),
        pytest.param(loop_call("evaluate", 1, signal.SIGTERM), 6, id="while it evaluates", marks=SLOW),
        pytest.param(loop_call(SETS, 1, signal.SIGTERM), 6, id="as thresholds are set", marks=SLOW),
    ],
)
def test_a_pruning_run_asked_to_stop_saves_and_goes_on_bitwise(
    prepare: Callable[[], None], step: int, words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    said = disturb(words, tmp_path, undisturbed[0], prepare, code=0)
    assert said == [f"isometry: stopped at step {step} of 12, saved; go on with --resume\n"]


@SLOW
def test_a_pruning_run_killed_again_and_again_goes_on_bitwise(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    kills = [loop_call("train_step", 6), loop_call(SETS, 1), loop_call("train_step", 6), loop_call(SETS, 1)]
    disturb(words, tmp_path, undisturbed[0], *kills, code=-signal.SIGKILL)


@SLOW
@pytest.mark.parametrize(
    "more",
    [
        pytest.param("--grad-accum-steps 2 --recovery-interval 2", id="accumulating gradients"),
        pytest.param("--prune.group 8 --compact", id="groups, cut at the end"),
        pytest.param("--amp", id="mixed precision"),
        pytest.param("--prune.method l1 --losses.sparsity 0 --losses.similarity 0", id="l1"),
        pytest.param("--opt adamw --compile --compile-backend eager", id="compiled"),
    ],
)
def test_other_ways_to_prune_go_on_bitwise(more: str, words: list[str], tmp_path: Path) -> None:
    words = [*words, *more.split()]
    wanted, _ = left_alone(words, tmp_path)
    (tmp_path / "again").mkdir()
    kills = [loop_call("train_step", 3), loop_call("evaluate", 1)]
    disturb(words, tmp_path / "again", wanted, *kills, code=-signal.SIGKILL)


def test_another_keep_rate_is_another_run_and_nothing_is_lost(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    ended = run(*words, "--out", str(out), said=tmp_path / "a", prepare=signalled_at_step(3, signal.SIGTERM))
    assert ended.code == 0, ended.err
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    changed = ["--keep-rate", "0.7", "--prune.group", "8", "--compact"]
    assert main([*words, *changed, "--out", str(out), "--resume"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    for part in ("keep-rate was 0.5 and is 0.7 now", "group was 1 and is 8 now", "compact was False"):
        assert part in said
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


# --- two processes


@pytest.fixture(scope="module")
def by_two(words: list[str]) -> list[str]:
    """The same global batches by two processes."""
    return [*words, "--batch-size", "75"]


@pytest.fixture(scope="module")
def whole_by_two(by_two: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    out = str(folder / "run")
    ended = run_ranks(*by_two, "--out", out, folder=folder, port=free_port())
    assert [(each.code, each.err) for each in ended] == [(0, "")] * 2
    return folder / "run"


@pytest.mark.parametrize(
    ("method", "number", "step", "images"),
    [
        pytest.param("train_step", 11, 8, 300, id="in an epoch"),
        pytest.param("evaluate", 2, 12, 900, id="with thresholds that are not saved yet", marks=SLOW),
        pytest.param("train_step", 7, 6, 0, id="between epochs", marks=SLOW),
    ],
)
def test_two_processes_that_are_killed_go_on_bitwise(
    method: str,
    number: int,
    step: int,
    images: int,
    by_two: list[str],
    whole_by_two: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    die = loop_call(method, number)
    ended = run_ranks(*by_two, "--out", str(out), folder=tmp_path, port=free_port(), prepare=(die, die))
    assert [each.code for each in ended] == [-signal.SIGKILL] * 2
    loop, parts = saved(out)
    assert loop["step"] == step
    # Of both, though one writes.
    assert float(parts["gates"]["sums"][-1]) / SCALE == images
    again = [*by_two, "--out", str(out), "--resume"]
    ended = run_ranks(*again, folder=tmp_path, port=free_port())
    assert [(each.code, each.err) for each in ended] == [(0, "")] * 2
    check_equal(contents(out), contents(whole_by_two))


@SLOW
def test_two_processes_that_add_up_micro_batches_go_on_bitwise(by_two: list[str], tmp_path: Path) -> None:
    words = [*by_two, "--batch-size", "50", "--grad-accum-steps", "2", "--recovery-interval", "2"]
    die = loop_call("train_step", 8)
    for out, prepare, more, code in (
        ("whole", None, [], 0),
        ("run", die, [], -signal.SIGKILL),
        ("run", None, ["--resume"], 0),
    ):
        given = [*words, "--out", str(tmp_path / out), *more]
        ended = run_ranks(*given, folder=tmp_path, port=free_port(), prepare=(prepare, prepare))
        assert [each.code for each in ended] == [code] * 2, ended[0].err
    check_equal(contents(tmp_path / "run"), contents(tmp_path / "whole"))


def one_image_is_nan() -> None:
    """The ninth step of this process sees it, and so its norms do, and nobody else's."""
    preprocess = Preprocess.__call__
    calls = 0

    def spoiled(self: Preprocess, batch: Batch) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        images, targets = preprocess(self, batch)
        return (images.index_fill(0, torch.tensor([7]), float("nan")) if calls == 9 else images), targets

    Preprocess.__call__ = spoiled


def test_two_processes_stop_together_at_an_image_that_breaks_one(
    by_two: list[str], whole_by_two: Path, tmp_path: Path
) -> None:
    """One's weights are still good and the other's are not: neither may wait for the other at a save."""
    out = tmp_path / "run"
    prepare = (None, one_image_is_nan)
    ended = run_ranks(*by_two, "--out", str(out), folder=tmp_path, port=free_port(), prepare=prepare)
    for each in ended:
        assert each.code == 2, each.err
        assert "step 8 (epoch 2): " in each.err
        assert "the previous save is kept" in each.err
        assert len(each.err.splitlines()) == 1
    assert saved(out)[0]["step"] == 8
    again = [*by_two, "--out", str(out), "--resume"]
    ended = run_ranks(*again, folder=tmp_path, port=free_port())
    assert [(each.code, each.err) for each in ended] == [(0, "")] * 2
    check_equal(contents(out), contents(whole_by_two))
