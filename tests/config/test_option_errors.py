"""Refusals of options name the option, the value as it was written and what is expected, in nobody's jargon."""

import re

import pytest

from isometry.cli.arguments import parse
from isometry.cli.commands import COMMANDS
from isometry.cli.help import option_groups
from isometry.config import RunConfig
from isometry.errors import UserError

JARGON = re.compile(
    r"Union|ubtype|<class|None|typing|Literal|Errno|__|Parser|operand|Expected|Given|True|False"
)
"""Words of Python and of its parsers of arguments."""
VALUES = ["", "nan", "x", "-1,2", "1.5", "1e400", "true", "null", "[1]", "{a: 1}", "[", "a=", "="]


@pytest.mark.parametrize("command", ["check", "compare", "evaluate", "bench", "export"])
def test_every_option_is_refused_in_plain_words(command: str):
    kind = COMMANDS[command].kind
    options = [option for _, group in option_groups(kind) for option in group]
    # One of each type.
    words = {str(option.hint): option.spelled[-1] for option in options}.values()
    refusals = [refusal(kind, f"{word}={value}") for word in words for value in VALUES]
    assert [line for line in refusals if JARGON.search(line) or "\n" in line] == []
    assert len([line for line in refusals if line]) > len(words)


def refusal(kind: type, word: str) -> str:
    """The message on an option; empty if it is taken."""
    try:
        parse(kind, [word])
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--lr=", "--lr '': expected a number"),
        ("--epochs=null", "--epochs null: expected a whole number"),
        ("--img-size=true", "--img-size true: expected a whole number"),
        ("--decode=", "--decode '': expected scaled or full"),
    ],
)
def test_the_value_as_it_was_written(words: str, said: str):
    with pytest.raises(UserError) as refused:
        parse(COMMANDS["check"].kind, [words])
    assert str(refused.value) == said


@pytest.mark.parametrize("value", ["inf", "nan", "many"])
def test_a_weight_that_is_no_number_is_named_with_its_loss(value: str):
    with pytest.raises(UserError, match=f"^--losses.soft {value}: expected a finite number$"):
        parse(RunConfig, ["--losses.ce", "1", "--losses.soft", value])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--log", "paper"], "--log paper: expected any of tensorboard, wandb"),
        (["--scale", "a", "b"], "--scale a b: expected values one after another"),
        (["--opt-betas", "x"], "--opt-betas x: expected values one after another"),
    ],
)
def test_values_one_after_another_are_named_as_they_were_typed(words: list[str], message: str):
    with pytest.raises(UserError, match=f"^{message}$"):
        parse(RunConfig, words)
