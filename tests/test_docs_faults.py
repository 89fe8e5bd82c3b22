"""docs/faults.md: each fault has tests that exist, and its messages are those of the package."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from helpers.pages import DOCS, ROOT, tables

FAULTS = [row for table in tables(DOCS / "faults.md") if table.header[-1] == "tests" for row in table.rows]
MESSAGES = [message for row in FAULTS for message in re.findall(r"`([^`]{20,})`", row[1])]
VARIABLE = re.compile(r"\.\.\.|\(.*?\)|\[.*?\]|(?<!\w)'[^']*'|\S*[\d/]\S*|\b[A-Z]{3,}\b|--\S+")
"""What differs from one message to another: causes in brackets, names, counts, paths, options."""


@cache
def texts_of_the_package() -> str:
    """Every string of the source; values inside f-strings are left out."""
    return "\n".join(
        text
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for text in strings_of(node)
    )


def strings_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(each.value) if isinstance(each, ast.Constant) else "\0" for each in node.values)


def test_every_fault_names_its_tests():
    assert len(FAULTS) > 20
    for fault, *_, tests in FAULTS:
        for name in tests.split(", "):
            assert (ROOT / name).is_file(), f"{fault}: {name}"


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_those_of_the_package(message):
    """Of all three words in a row, about half at least: some messages are put together from several strings."""
    parts = [part.split() for part in VARIABLE.split(message)]
    rows = [
        " ".join(part[start : start + 3]).strip(":;,.") for part in parts for start in range(len(part) - 2)
    ]
    unknown = [row for row in rows if row not in texts_of_the_package()]
    assert len(unknown) <= 1 + len(rows) / 2, unknown
