"""Shell completion, asked of a real bash as a person's Tab key does; and what zsh and fish get."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import timm

from isometry.cli.commands import COMMANDS
from isometry.cli.completion import SHELLS, completion
from isometry.cli.help import option_groups
from isometry.cli.main import main
from isometry.grow.operators import DepthOperator
from isometry.grow.operators import available as available_operators
from isometry.losses import available
from isometry.recipes import shipped_recipes

ASK = """
source ./isometry.bash
function=$(complete -p isometry); function=${function##*-F }; function=${function%% *}
while IFS= read -r line; do
  read -ra COMP_WORDS <<< "$line"
  [[ $line == *' ' ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  $function isometry "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
  echo "${COMPREPLY[*]}"
done
"""
"""What bash does at a Tab: the line so far as words, then the function that `complete` named."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the script and a few files of a person's."""
    place = tmp_path_factory.mktemp("shell")
    (place / "isometry.bash").write_text(completion("bash", COMMANDS), encoding="utf-8")
    (place / "photos").mkdir()
    (place / "mine.yaml").touch()
    return place


def offered(place: Path, *lines: str) -> list[list[str]]:
    bash = shutil.which("bash")
    assert bash, "these tests ask a bash: install it (apt install bash)"
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [bash, "--norc", "-c", ASK],
        input="".join(f"{line}\n" for line in lines),
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return [line.split() for line in done.stdout.splitlines()]


def test_commands(place):
    every, some = offered(place, "isometry ", "isometry comp")
    assert every == list(COMMANDS)
    assert some == ["compare", "completion"]


@pytest.mark.parametrize(
    "command", [name for name, command in COMMANDS.items() if option_groups(command.kind)]
)
def test_every_option_of_every_command(place, command):
    (found,) = offered(place, f"isometry {command} --")
    groups = [options for _, options in option_groups(COMMANDS[command].kind)]
    wanted = {
        word for options in groups for option in options for word in option.spelled if word.startswith("--")
    }
    assert wanted - {"--losses"} <= set(found)
    if "--losses" in wanted:
        assert {f"--losses.{name}" for name in available()} | {"--losses.soft.temperature"} <= set(found)


def test_values(place):
    reduction, logs, operators, after, models, own, recipes, mine = offered(
        place,
        "isometry distill --reduction ",
        "isometry distill --log ",
        "isometry grow --grow.depth-operator ",
        "isometry distill --amp --epochs 3 --grow.depth-op",
        "isometry distill --data-dir photos --teacher cait_s24",
        "isometry distill --student pho",
        "isometry compare --config digits/d",
        "isometry train --config mi",
    )
    assert reduction == ["mean", "paper"]
    assert logs == ["tensorboard", "wandb"]
    assert operators == list(available_operators(DepthOperator))
    assert after == ["--grow.depth-operator"]
    assert models == timm.list_models("cait_s24*")
    assert own == ["photos"]
    assert recipes == [name for name in shipped_recipes() if name.startswith("digits/d")]
    assert mine == ["mine.yaml"]


def test_words_before_the_options(place):
    kinds, shells, folders = offered(place, "isometry list ", "isometry completion ", "isometry bench ph")
    assert kinds == ["recipes", "losses", "operators", "models"]
    assert shells == list(SHELLS)
    assert folders == ["photos"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_every_command_and_option(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script == completion(shell, COMMANDS)
    for command in COMMANDS.values():
        for _, options in option_groups(command.kind):
            for option in options:
                # fish spells an option without its dashes.
                assert option.name == "losses" or option.spelled[0].removeprefix("--") in script, option.name
    assert all(
        name in script for name in (*COMMANDS, *shipped_recipes(), "cait_s24_224", "losses.soft.temperature")
    )


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_other_shells_are_refused_in_a_line(words, capsys):
    assert main(["completion", *words]) == 2
    assert "expected" in capsys.readouterr().err
