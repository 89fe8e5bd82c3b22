"""`isometry completion`: a script that completes the commands, options and values in a shell."""

import argparse
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import shtab
import timm

from isometry.cli.help import Option, option_groups
from isometry.cli.list import loss_options
from isometry.errors import UserError
from isometry.losses import available
from isometry.recipes import shipped_recipes

SHELLS = ("bash", "zsh", "fish")
FILENAMES = "\ncomplete -o bashdefault -o filenames -F _shtab_isometry isometry\n"
"""As shtab has it, and after a folder comes a slash and no space."""
MODELS = ("model", "teacher")
"""Options that name a model of timm, or a folder."""


@dataclass
class CompletionConfig:
    """Write the script where the shell looks for it, as above, and open a new shell; again after an upgrade.

    bash: that is where the package bash-completion looks; without it put `source FILE` into ~/.bashrc.
    zsh:  ~/.zfunc must be in fpath: in ~/.zshrc, before compinit, put `fpath+=(~/.zfunc)`.
    """


class HasOptions(Protocol):
    """What is asked of a command, see :class:`isometry.cli.commands.Command`."""

    @property
    def kind(self) -> type[Any]:
        """The class of its options."""

    @property
    def about(self) -> str:
        """What it does, in a line."""

    @property
    def names(self) -> str:
        """What stands before the options: words to choose from in small letters, such as ``bash|zsh``, or ``DIR``."""


def completion(shells: Sequence[str], commands: Mapping[str, HasOptions]) -> str:
    """The script for the one shell that is named.

    Raises:
        UserError: none is named, several are, or one that is not known.
    """
    if len(shells) != 1 or shells[0] not in SHELLS:
        given = " ".join(["completion", *shells])
        raise UserError(f"{given}: name one of {', '.join(SHELLS)}, e.g. isometry completion bash")
    script = shtab.complete(_tree(commands), shell=shells[0])
    return script + FILENAMES if shells[0] == "bash" else script


def _tree(commands: Mapping[str, HasOptions]) -> argparse.ArgumentParser:
    """The command line in the only form that shtab reads. Nothing is ever parsed with it."""
    root = argparse.ArgumentParser("isometry")
    root.add_argument("--version", action="store_true", help="the version")
    below = root.add_subparsers()
    recipes = _words_or_files("recipes", list(shipped_recipes()))
    models = _words_or_files("models", timm.list_models())
    for name, command in commands.items():
        parser = below.add_parser(name, help=_plain(command.about))
        if command.names:
            choices = [word for word in command.names.replace("|", " ").split() if word.islower()]
            positional = parser.add_argument("names", nargs="*", choices=choices or None)
            if not choices:
                positional.complete = shtab.FILE  # type: ignore[attr-defined]
        options = [option for _, group in option_groups(command.kind) for option in group]
        if options:
            parser.add_argument("--config", help="a recipe").complete = recipes  # type: ignore[attr-defined]
        for option in options:
            _add(parser, option, models)
    return root


def _add(parser: argparse.ArgumentParser, option: Option, models: dict[str, Any]) -> None:
    told = _plain(option.words)
    members = typing.get_args(option.hint) or (option.hint,)
    if option.name == "losses":
        for name, loss in available().items():
            parser.add_argument(f"--losses.{name}", help="weight of this term")
            for own in loss_options(loss):
                parser.add_argument(f"--losses.{name}.{own}", help="option of this term")
    elif option.hint is bool:
        parser.add_argument(*option.spelled, action="store_true", help=told)
    elif typing.get_origin(option.hint) is Literal:
        parser.add_argument(*option.spelled, choices=members, help=told)
    else:
        several = any(typing.get_origin(member) in (list, dict) for member in members)
        added = parser.add_argument(*option.spelled, nargs="+" if several else None, help=told)
        if option.name in MODELS:
            added.complete = models  # type: ignore[attr-defined]
        elif str in members and not several:
            added.complete = shtab.FILE  # type: ignore[attr-defined]


def _words_or_files(name: str, words: list[str]) -> dict[str, Any]:
    """A completer of these words, or of files: a function that the script defines once, however many options use it."""
    function, all_words = f"_isometry_{name}", " ".join(words)
    return {
        "bash": function,
        "zsh": function,
        "fish": f"({function})",
        "preamble": {
            "bash": f'{function}() {{\n  compgen -W "{all_words}" -- "$1"\n  compgen -f -- "$1"\n}}',
            "zsh": f"{function}() {{\n  compadd -- {all_words}\n  _files\n}}",
            "fish": f"function {function}\n  string split ' ' '{all_words}'\n"
            "  __fish_complete_path (commandline -ct)\nend",
        },
    }


def _plain(text: str) -> str:
    # argparse reads a percent sign in a help text as a format.
    return text.replace("%", "%%")
