"""Hooks of mkdocs: equations as MathML, and the page of the command line from the commands themselves."""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from isometry.cli.commands import COMMANDS
from isometry.cli.help import option_groups

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")
"""A link to a file of the repository, which is not part of the site."""
MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
ROLE = re.compile(r":(?:func|class|mod|meth|attr|data):(?=<(?:code|a)\b)")
"""A Sphinx role in a docstring."""
COLUMNS = re.compile(r"<p>=+ +=+\n(.*?)\n=+ +=+</p>", re.DOTALL)
"""A table of two columns in a docstring."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated page of the command line."""
    files.append(File.generated(config, "commands.md", content="\n".join(command_lines())))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces links to files of the repository by their text."""
    return OUTSIDE.sub(r"\1", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Converts equations to MathML and tables of docstrings to HTML, and drops Sphinx roles."""
    return MATHS.sub(_mathml, COLUMNS.sub(_table, ROLE.sub("", html)))


def command_lines() -> Iterator[str]:
    """Lines of the page in Markdown: each command, then each class of options once."""
    yield "# The command line\n"
    yield "The same text as `isometry COMMAND --help`.\n"
    kinds: dict[type[Any], list[str]] = {}
    for name, command in COMMANDS.items():
        kinds.setdefault(command.kind, []).append(name)
        yield f"## isometry {name}\n\n{command.about}\n"
        yield "\n".join(["```bash", *command.examples, "```", ""])
        if any(options for _, options in option_groups(command.kind)):
            yield f"[Options](#options-of-{'-'.join(kinds[command.kind][:1])})\n"
    for kind, names in kinds.items():
        yield from _option_lines(kind, names)


def _option_lines(kind: type[Any], names: list[str]) -> Iterator[str]:
    groups = [(title, options) for title, options in option_groups(kind) if options]
    if not groups:
        return
    yield f"## Options of {', '.join(names)} {{: #options-of-{names[0]} }}\n"
    yield "`--config RECIPE.yaml` reads these options from a file. The command line overrides it.\n"
    for title, options in groups:
        yield f"{title}\n"
        yield "| option | meaning | default |\n|---|---|---|"
        for option in options:
            spelled = " ".join(f"`{each}`" for each in option.spelled)
            default = f"`{option.default}`" if option.default else ""
            yield f"| {spelled} | {_cell(option.help)} | {default} |"
        yield ""


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


def _table(found: re.Match[str]) -> str:
    rows = [re.split(r"\s{2,}", line, maxsplit=1) for line in found[1].splitlines()]
    cells = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    return convert(unescape(found[2]), display=display)
