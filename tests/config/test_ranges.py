"""Every numeric option has a range, and no number makes a command end in another way than with 0 or one line."""

import math
import typing
from collections.abc import Iterator

import pytest

from helpers.runs import DIGITS, STUDENT_KWARGS, TINY_STUDENT
from isometry.cli.arguments import parse
from isometry.cli.commands import COMMANDS
from isometry.cli.help import Option, option_groups
from isometry.cli.main import main
from isometry.config import RANGES, Range, RunConfig, out_of_range
from isometry.errors import UserError

NUMBERS = {int, float, list[int], list[float]}
VALUES = ["0", "-1", "1e-30", "1e30", "inf", "nan", "many", "1" + "0" * 30, ""]
PRUNED = [
    "--model",
    "cifar_resnet20",
    "--dataset",
    "digits",
    "--device",
    "cpu",
    "--from-scratch",
    "--keep-rate",
    "0.5",
]


def is_numeric(hint: object) -> bool:
    members = typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)
    return set(members) - {type(None)} <= NUMBERS


def numeric(kind: type) -> Iterator[Option]:
    return (option for _, group in option_groups(kind) for option in group if is_numeric(option.hint))


KINDS = {command.kind for command in COMMANDS.values()}
OTHERS = sorted(
    (kind.__name__, kind, option.name) for kind in KINDS - {RunConfig} for option in numeric(kind)
)
OF_RUNS = [option.name for option in numeric(RunConfig)]


def test_every_numeric_option_has_a_range_and_every_range_an_option():
    assert {option.name for kind in KINDS for option in numeric(kind)} == RANGES.keys()
    assert len(RANGES) > 40


def test_every_default_is_within():
    for kind in KINDS:
        assert out_of_range(kind()) == ""


@pytest.mark.parametrize("name", OF_RUNS)
def test_no_number_of_a_run_ends_in_a_traceback(capsys: pytest.CaptureFixture[str], name: str):
    network = PRUNED if name.startswith("prune.") else TINY_STUDENT
    option = f"--{name.replace('_', '-')}"
    for value in VALUES:
        given = [value, value] if name in ("scale", "ratio", "opt_betas") else [value]
        code, err = main(["check", *network, option, *given]), capsys.readouterr().err
        assert code in (0, 2), (value, err)
        assert len(err.splitlines()) == (code != 0), (value, err)
        if value in ("inf", "nan", "1e30", "many", ""):
            assert code == 2, value
            assert option in err or (name == "prune.keep_rate" and "--keep-rate" in err)


@pytest.mark.parametrize(("_", "kind", "name"), OTHERS)
def test_no_number_of_another_command_is_taken_that_is_out_of_range(_: str, kind: type, name: str):
    option = f"--{name.replace('_', '-')}"
    for value in ("inf", "nan", "1e30", "-1e30", "many", "1" + "0" * 30):
        with pytest.raises(UserError, match=option) as caught:
            parse(kind, [option, value])
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "option", ["--grow.at", "--grow.depth", "--grow.width", "--taps.student", "--taps.teacher"]
)
def test_numbers_in_text(capsys: pytest.CaptureFixture[str], option: str):
    network = ["--model", "vit_tiny_patch16_224", "--model-kwargs", *STUDENT_KWARGS, *DIGITS]
    network += ["--teacher", "vit_tiny_patch16_224", "--teacher-weights", "none"]
    network += ["--teacher-kwargs", *STUDENT_KWARGS, "img_size=8"]
    for value in (*VALUES, "0,1e30", "0,nan", "1" * 30 + ",2", "-1,-1", "inf,1"):
        code, err = main(["check", *network, option, value]), capsys.readouterr().err
        assert code in (0, 2), (value, err)
        assert len(err.splitlines()) == (code != 0), (value, err)


@pytest.mark.parametrize(
    ("wanted", "within", "without", "text"),
    [
        (
            Range(0, 1),
            (0, 0.5, 1),
            (-1e-30, 1.001, math.nan, math.inf, "1", None),
            "at least 0 and at most 1",
        ),
        (Range(0, 1, without=(0,)), (1e-30, 1), (0, 0.0), "above 0 and at most 1"),
        (Range(1, 5000, without=(5000,)), (1, 4999), (0.9, 5000), "at least 1 and below 5,000"),
    ],
)
def test_ranges(wanted: Range, within: tuple, without: tuple, text: str):
    assert all(value in wanted for value in within)
    assert not any(value in wanted for value in without)
    assert str(wanted) == text


def test_a_number_of_a_group_is_named_with_it():
    config = parse(RunConfig, [])
    config.prune.settle = 2
    assert out_of_range(config) == "--prune.settle 2: must be at least 0 and below 1"
