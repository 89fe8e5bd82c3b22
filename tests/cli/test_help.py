"""`--help`: every example is a command line that is understood, and stands before the options."""

import operator
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from isometry.cli.arguments import leading, parse, recipe_named
from isometry.cli.commands import COMMANDS
from isometry.cli.help import option_groups
from isometry.cli.main import main
from isometry.grow.operators import DepthOperator, WidthOperator, available
from isometry.recipes import read_recipe
from isometry.training.assemble import DEFAULT_LOSSES, DEFAULT_LOSSES_ALONE, DEFAULT_LOSSES_OF_GATES

ROOT = Path(__file__).parents[2]
EXAMPLES = [(name, example) for name, command in COMMANDS.items() for example in command.examples]


@pytest.mark.parametrize(("command", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_an_example_is_understood(command, example, tmp_path, monkeypatch):
    # Somewhere else than in the repository: recipes are found by name.
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(example.partition(" > ")[0])
    assert (program, words[0]) == ("isometry", command)
    names, options = leading(words[1:])
    assert bool(names) == bool(COMMANDS[command].names)
    parse(COMMANDS[command].kind, options)
    if recipe_named(options):
        assert read_recipe(recipe_named(options))


def test_every_command_has_examples_and_says_in_a_sentence_what_it_does():
    for name, command in COMMANDS.items():
        assert command.examples, name
        assert command.about.endswith("."), name
        assert "\n" not in command.about, name


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_first_and_every_option(command, capsys):
    assert main([command, "--help"]) == 0
    output = capsys.readouterr().out
    assert output.index(COMMANDS[command].examples[0]) < output.index("usage: isometry")
    for _, options in option_groups(COMMANDS[command].kind):
        for option in options:
            assert option.help, option.name
            assert ", ".join(option.spelled) in output


def groups_of(command):
    return option_groups(COMMANDS[command].kind)


def test_the_options_of_a_command_itself_come_first():
    for command in COMMANDS:
        own = COMMANDS[command].kind
        inherited = {field.name for base in own.__mro__[1:] if is_dataclass(base) for field in fields(base)}
        assert not inherited & {option.name for option in groups_of(command)[0][1]}, command
    assert "out" in [option.name for option in groups_of("distill")[0][1]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_default_is_shown_as_it_is_typed(command):
    kind = COMMANDS[command].kind
    for _, options in groups_of(command):
        for option in options:
            if option.default and not option.choices:
                value = operator.attrgetter(option.name)
                typed = option.default.split() if list in option.types else [option.default]
                assert value(parse(kind, [option.spelled[0], *typed])) == value(kind()), option.name


def test_help_has_the_default_losses(capsys):
    assert main(["distill", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--losses " in shown
    for losses in (DEFAULT_LOSSES, DEFAULT_LOSSES_ALONE, DEFAULT_LOSSES_OF_GATES):
        for name, weight in losses.items():
            assert f"{name} {weight:g}" in shown


def test_help_offers_every_operator_and_the_list_that_describes_them(capsys):
    assert main(["grow", "--help"]) == 0
    shown = capsys.readouterr().out
    for kind in (DepthOperator, WidthOperator):
        assert f"{kind.option} {{{','.join(available(kind))}}}" in shown
    assert "isometry list operators" in shown


def test_the_list_of_commands_is_aligned(capsys):
    assert main([]) == 0
    output = capsys.readouterr().out
    columns = {
        line.index(COMMANDS[name].about)
        for name in COMMANDS
        for line in output.splitlines()
        if f"  {name} " in line
    }
    assert len(columns) == 1
