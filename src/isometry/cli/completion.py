"""`isometry completion`: a script that completes the commands, options and values in a shell."""

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import shtab
import timm

from isometry.cli.help import Command, add_options, escaped
from isometry.cli.list import loss_options
from isometry.errors import UserError
from isometry.losses import available
from isometry.recipes import shipped_recipes

SHELLS = ("bash", "zsh", "fish")
FILENAMES = "\ncomplete -o bashdefault -o filenames -F _shtab_isometry isometry\n"
"""shtab's own line, and a slash instead of a space after a folder."""
MODELS = ("model", "teacher")
"""Options that name a model of timm, or a folder."""


@dataclass
class CompletionConfig:
    """Write the script to the path in the example and open a new shell; repeat after an upgrade.

    bash: the package bash-completion reads that path; without it put `source FILE` into ~/.bashrc.
    zsh:  ~/.zfunc must be in fpath: in ~/.zshrc, before compinit, put `fpath+=(~/.zfunc)`.
    """


def completion(shell: str, commands: Mapping[str, Command]) -> str:
    """The script for a shell.

    Raises:
        UserError: the shell is none of :data:`SHELLS`.
    """
    if shell not in SHELLS:
        raise UserError(f"completion {shell}: expected one of {', '.join(SHELLS)}")
    script = shtab.complete(_tree(commands), shell=shell)
    return script + FILENAMES if shell == "bash" else script


def _tree(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The command line in the only form that shtab reads; it parses nothing."""
    root = argparse.ArgumentParser("isometry")
    root.add_argument("--version", action="store_true", help="print the version")
    below = root.add_subparsers()
    recipes = _names_or_files("recipes", list(shipped_recipes()))
    models = _names_or_files("models", timm.list_models())
    for name, command in commands.items():
        parser = below.add_parser(name, help=escaped(command.about))
        if command.names:
            choices = [word for word in command.names.replace("|", " ").split() if word.islower()]
            names = parser.add_argument("names", nargs="*", choices=choices or None)
            _complete(names, None if choices else shtab.FILE)
        if dataclasses.fields(command.kind):
            _complete(parser.add_argument("--config", help="a recipe"), recipes)
        for option, action in add_options(parser, command.kind):
            if option.name in MODELS:
                _complete(action, models)
            elif str in option.types and not (action.nargs or action.choices):
                _complete(action, shtab.FILE)
            elif option.name == "losses":
                _add_losses(parser)
    return root


def _add_losses(parser: argparse.ArgumentParser) -> None:
    for name, loss in available().items():
        parser.add_argument(f"--losses.{name}", help="weight of this term")
        for own in loss_options(loss):
            parser.add_argument(f"--losses.{name}.{own}", help="option of this term")


def _complete(action: argparse.Action, completer: Any) -> None:
    if completer:
        action.complete = completer  # type: ignore[attr-defined]


def _names_or_files(title: str, names: list[str]) -> dict[str, Any]:
    """A completer of names, or of files: a function that the script defines once, however many options use it."""
    function, words = f"_isometry_{title}", " ".join(names)
    return {
        "bash": function,
        "zsh": function,
        "fish": f"({function})",
        "preamble": {
            "bash": f'{function}() {{\n  compgen -W "{words}" -- "$1"\n  compgen -f -- "$1"\n}}',
            "zsh": f"{function}() {{\n  compadd -- {words}\n  _files\n}}",
            "fish": f"function {function}\n  string split ' ' '{words}'\n"
            "  __fish_complete_path (commandline -ct)\nend",
        },
    }
