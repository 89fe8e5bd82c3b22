"""Runs that grow, killed or stopped around growth, resume bitwise as if uninterrupted."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.messages import mentions
from helpers.runs import (
    LIVELY,
    TINY_STUDENT,
    Told,
    call_at,
    check_equal,
    config_of,
    contents,
    disturb,
    killed_at,
    left_alone,
    rewrite_index,
    run,
    send_self,
    signalled_at_step,
    trainer_of,
)
from isometry.cli.main import main
from isometry.training.checkpoint.run_folder import RunFolder

SLOW = pytest.mark.slow

CARRIED = ["--grow.depth-operator", "identity", "--grow.width-operator", "duplicate"]
PUBLISHED = ["--grow.depth-operator", "insert", "--grow.optimizer", "reset", "--grow.ema", "grow"]
"""How the run grows; from one block of 8 channels to two of 16 after its sixth step."""


@pytest.fixture(scope="module")
def words(tiny_teacher: Path) -> list[str]:
    """Twelve steps in two stages, and a save after every fourth."""
    sizes = ["--grow.depth", "1,2", "--grow.width", "8,16", "--recovery-interval", "4"]
    return ["distill", *TINY_STUDENT, "--teacher", f"local-dir:{tiny_teacher}", *LIVELY, *sizes]


@pytest.fixture(scope="module")
def undisturbed(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The run with carried moments."""
    return left_alone([*words, *CARRIED], tmp_path_factory.mktemp("carried"))


@pytest.fixture(scope="module")
def published(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The run with new moments and a grown average."""
    return left_alone([*words, *PUBLISHED], tmp_path_factory.mktemp("published"))


def loop_call(method: str, number: int, signal_number: int = signal.SIGKILL) -> Callable[[], None]:
    """For ``prepare``: the process gets the signal as the loop's ``method`` is called for that time."""
    return partial(
        call_at, f"isometry.training.loop:Trainer.{method}", number, partial(send_self, signal_number)
    )


def saved_at(folder: Path) -> tuple[int, int]:
    """(stage, step) of the last save."""
    told = json.loads((folder / "last" / "checkpoint.json").read_text())
    return told["spec"]["stage"], told["loop"]["step"]


def check_kill(
    words: list[str],
    folder: Path,
    wanted: dict[str, Any],
    prepare: Callable[[], None],
    saved: tuple[int, int],
) -> None:
    """Kills the run, looks where its last save stands, and goes on to the end."""
    ended = run(*words, "--out", str(folder / "run"), said=folder / "said", prepare=prepare)
    assert ended.code == -signal.SIGKILL, ended.err
    assert saved_at(folder / "run") == saved
    ended = run(*words, "--out", str(folder / "run"), "--resume", said=folder / "again")
    assert (ended.code, ended.err) == (0, "")
    check_equal(contents(folder / "run"), wanted)


@pytest.mark.parametrize(
    ("method", "number", "saved"),
    [
        pytest.param("train_step", 6, (1, 4), id="between saves of the first stage", marks=SLOW),
        pytest.param("grow", 1, (1, 6), id="after the first stage's last save", marks=SLOW),
        pytest.param("_enter", 2, (1, 6), id="growing, before the loop takes the new network", marks=SLOW),
        # The first evaluation was the first epoch's.
        pytest.param("evaluate", 2, (1, 6), id="growing, with the new network"),
        pytest.param("train_step", 7, (1, 6), id="grown, before the first step", marks=SLOW),
        pytest.param("train_step", 8, (1, 6), id="grown, before the first save", marks=SLOW),
        pytest.param("train_step", 9, (2, 8), id="after the first save of the second stage"),
        pytest.param("end_epoch", 2, (2, 12), id="after the second stage's last step", marks=SLOW),
    ],
)
def test_a_growing_run_that_is_killed_goes_on_bitwise(
    method: str, number: int, saved: tuple[int, int], words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    check_kill([*words, *CARRIED], tmp_path, undisturbed[0], loop_call(method, number), saved)


@pytest.mark.parametrize(
    ("event", "saved"),
    [
        pytest.param(
            "open /last/optimizer-step8.safetensors.new", (1, 6), id="in the grown network's first save"
        ),
        pytest.param("os.rename /last/checkpoint.json.new", (1, 6), id="before that save counts", marks=SLOW),
        pytest.param("open /best/model-epoch2.safetensors.new", (2, 12), id="in its first best", marks=SLOW),
        pytest.param(
            "os.remove /last/model-step6-2.safetensors", (2, 12), id="tidying the smaller away", marks=SLOW
        ),
    ],
)
def test_a_growing_run_killed_while_it_writes_goes_on_bitwise(
    event: str, saved: tuple[int, int], words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    wanted, journal = undisturbed
    first_after_growth = journal.index("open /last/model-step8.safetensors.new")
    number = journal.index(event, first_after_growth) + 1
    check_kill([*words, *CARRIED], tmp_path, wanted, killed_at(tmp_path, number), saved)


@SLOW
def test_a_grown_networks_damaged_save_goes_back_to_the_smaller_network_bitwise(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = [*words, *CARRIED, "--out", str(out)]
    ended = run(*words, said=tmp_path / "a", prepare=loop_call("train_step", 9))
    assert ended.code == -signal.SIGKILL, ended.err
    assert saved_at(out) == (2, 8)
    (out / "last" / "model-step8.safetensors").write_bytes(b"")
    ended = run(*words, "--resume", said=tmp_path / "b")
    assert (ended.code, ended.err) == (0, "")
    assert mentions(ended.out, "damaged … step6")
    check_equal(contents(out), undisturbed[0])


@pytest.mark.parametrize(
    ("method", "number", "saved"),
    [
        pytest.param("evaluate", 2, (1, 6), id="growing", marks=SLOW),
        pytest.param("train_step", 10, (2, 8), id="grown"),
    ],
)
def test_new_moments_and_a_grown_average_go_on_bitwise(
    method: str, number: int, saved: tuple[int, int], words: list[str], published: Told, tmp_path: Path
) -> None:
    check_kill([*words, *PUBLISHED], tmp_path, published[0], loop_call(method, number), saved)


def test_the_two_ways_to_grow_are_two_runs(undisturbed: Told, published: Told) -> None:
    """Else the tests above would prove nothing about one of them."""
    (carried, _), (reset, _) = undisturbed, published
    same = [name for name in carried if name.startswith("last/model") and carried[name] == reset[name]]
    assert same == []


@pytest.mark.parametrize(
    ("prepare", "step"),
    [
        pytest.param(signalled_at_step(7, signal.SIGTERM), 7, id="in the first step"),
        # It stops as the grown network is evaluated, with the save before growth, and grows again.
        pytest.param(loop_call("evaluate", 2, signal.SIGTERM), 6, id="while it grows", marks=SLOW),
    ],
)
def test_a_run_asked_to_stop_around_growth_goes_on_bitwise(
    prepare: Callable[[], None], step: int, words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    grown = [*words, *CARRIED]
    said = disturb(grown, tmp_path, undisturbed[0], prepare, code=0)
    assert said == [f"isometry: stopped at step {step} of 12, saved; go on with --resume\n"]


@SLOW
def test_a_run_killed_before_and_after_growth_goes_on_bitwise(
    words: list[str], undisturbed: Told, tmp_path: Path
) -> None:
    # A process that goes on counts its own calls: the second begins at step 4 and takes five steps, the third at 8.
    kills = [loop_call("train_step", 6), loop_call("train_step", 6), loop_call("end_epoch", 1)]
    disturb([*words, *CARRIED], tmp_path, undisturbed[0], *kills, code=-signal.SIGKILL)


@SLOW
def test_a_run_of_three_stages_killed_in_each_goes_on_bitwise(words: list[str], tmp_path: Path) -> None:
    """A restarted rate, decay by depth, and SGD's momentum; the stages are of one, one and two epochs."""
    more = (
        "--epochs 4 --grow.at 0,1,2 --grow.lr restart --grow.weight-decay depth --opt sgd --warmup-epochs 1"
    )
    deeper = [
        *words,
        *more.split(),
        "--student-kwargs",
        "depth=4",
        "--grow.depth",
        "1,2,4",
        "--grow.width",
        "8,8,16",
    ]
    wanted, _ = left_alone([*deeper, *CARRIED], tmp_path)
    kills = [loop_call("train_step", 6), loop_call("grow", 2), loop_call("train_step", 9)]
    (tmp_path / "again").mkdir()
    disturb([*deeper, *CARRIED], tmp_path / "again", wanted, *kills, code=-signal.SIGKILL)


# --- what a checkpoint says of itself
# --------------------------------------------------------------------------------------------------------

LINE = [*TINY_STUDENT, "--student-kwargs", "depth=3", "--epochs", "2", "--grow.depth", "1,3"]
GROWING = [*LINE, "--grow.depth-operator", "identity"]


@contextmanager
def begun(out: Path, *words: str) -> Iterator[Any]:
    """The Trainer of a run in ``out``, as `isometry` begins one."""
    with RunFolder(config_of(*words, "--out", str(out))) as folder:
        trainer = trainer_of(*words, "--out", str(out), folder=folder)
        folder.begin(trainer.run.config)
        yield trainer


def spec_in(folder: Path) -> dict[str, Any]:
    """What a checkpoint says it holds."""
    spec: dict[str, Any] = json.loads((folder / "checkpoint.json").read_text())["spec"]
    return spec


def test_a_checkpoint_says_which_stage_it_is(tmp_path: Path) -> None:
    with begun(tmp_path / "run", *GROWING) as trainer:
        trainer.save()
        spec = spec_in(tmp_path / "run" / "last")
        assert (spec["stage"], spec["stages"], spec["model_kwargs"]["depth"]) == (1, 2, 1)
        trainer.grow(trainer.run.schedule.stages[1])
        trainer.save()
    spec = spec_in(tmp_path / "run" / "last")
    assert (spec["stage"], spec["stages"], spec["model_kwargs"]["depth"]) == (2, 2, 3)


def test_a_checkpoint_of_a_run_that_does_not_grow_is_stage_1_of_1(tmp_path: Path) -> None:
    with begun(tmp_path / "run", *TINY_STUDENT, "--epochs", "1") as trainer:
        trainer.save()
    spec = spec_in(tmp_path / "run" / "last")
    assert (spec["stage"], spec["stages"], spec["model_kwargs"]["depth"]) == (1, 1, 2)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["--grow.depth", "2,3"], ["--grow.depth was '1,3' and is '2,3' now"]),
        (
            ["--grow.depth", "1,2,3", "--epochs", "3"],
            ["--grow.depth was '1,3' and is '1,2,3' now", "--grow.at was"],
        ),
        (["--grow.width", "8,16"], ["--grow.width was '16,16' and is '8,16' now"]),
        (["--grow.at", "0,2", "--epochs", "3"], ["--grow.at was '0,1' and is '0,2' now"]),
        (["--grow.optimizer", "reset"], ["--grow.optimizer was 'carry' and is 'reset' now"]),
        (["--grow.ema", "grow"], ["--grow.ema was 'restart' and is 'grow' now"]),
    ],
)
def test_a_schedule_that_changed_is_refused_by_name_and_nothing_is_lost(
    changed: list[str], told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with begun(out, *GROWING) as trainer:
        trainer.grow(trainer.run.schedule.stages[1])
        trainer.save()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main(["train", *GROWING, *changed, "--out", str(out), "--resume"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("isometry: --resume: not the run in ")
    assert len(said.splitlines()) == 1
    for part in told:
        assert part in said
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("quick_results")
def test_the_same_schedule_in_other_words_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal segments are those epochs, whether they are named or not."""
    out = tmp_path / "run"
    with begun(out, *GROWING) as trainer:
        trainer.train_epoch()
        trainer.end_epoch()
        trainer.save()
    assert main(["train", *GROWING, "--grow.at", "0,1", "--out", str(out), "--resume"]) == 0
    assert "stage 2/2 (depth 3)" in capsys.readouterr().out
    assert saved_at(out) == (2, 12)


def test_a_stage_that_the_schedule_lacks_does_not_fit(tmp_path: Path) -> None:
    """A checkpoint from elsewhere, under the config of this run."""
    from isometry.errors import UserError

    out = tmp_path / "run"
    with begun(out, *GROWING) as trainer:
        trainer.save()
    rewrite_index(out / "last" / "checkpoint.json", lambda told: told["spec"].update(stage=3))
    with pytest.raises(UserError, match="checkpoint"):
        trainer_of(*GROWING, "--out", str(out), "--resume").restore()
