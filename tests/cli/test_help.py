"""`--help`: every example is a command line that is understood, and stands before the options."""

import shlex
from pathlib import Path

import pytest

from isometry.cli.arguments import leading, parse, recipe_named
from isometry.cli.commands import COMMANDS
from isometry.cli.help import option_groups
from isometry.cli.main import main
from isometry.recipes import read_recipe

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
