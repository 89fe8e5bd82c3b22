"""The pages of the documentation as data: code blocks, tables, sentences."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

FENCE = re.compile(r'^( *)```(\w*)(?: title="([^"]+)")? *\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: ``line`` is that of its fence, ``title`` the file that it is to be saved as."""

    page: str
    line: int
    language: str
    title: str
    text: str


def page_name(page: Path) -> str:
    """The page's path inside the repository."""
    return str(page.relative_to(ROOT))


def read(page: Path) -> str:
    """The page's text."""
    return page.read_text(encoding="utf-8")


def code_blocks(page: Path) -> list[Block]:
    """Every fenced block of a page."""
    text = read(page)
    blocks = [
        Block(page_name(page), text.count("\n", 0, found.start()) + 1, found[2], found[3] or "", found[4])
        for found in FENCE.finditer(text)
    ]
    assert len(blocks) * 2 == len(re.findall(r"^ *```", text, re.MULTILINE)), f"{page}: a fence without end"
    return blocks


def apply_diff(block: Block, folder: Path) -> None:
    """Changes lines of one file: the old ones must occur once, and are replaced by the new ones."""
    head, *lines = block.text.splitlines(keepends=True)
    file = folder / head.removeprefix("+++ ").strip()
    old = "".join(line[1:] or "\n" for line in lines if line[0] in " -\n")
    new = "".join(line[1:] or "\n" for line in lines if line[0] in " +\n")
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{file.name}: these lines occur {text.count(old)} times\n{old}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def prose(page: Path) -> list[str]:
    """Every sentence outside of code blocks and tables, on one line."""
    text = FENCE.sub("\n\n", read(page))
    paragraphs = re.split(r"\n\s*\n|^\s*[-*] ", text, flags=re.MULTILINE)
    whole = [
        " ".join(each.split()) for each in paragraphs if not each.lstrip().startswith(("|", "#", "<!--"))
    ]
    return [sentence for each in whole for sentence in re.split(r"(?<=[.:]) ", each)]


class Table(NamedTuple):
    """A Markdown table: its header and its rows of cells."""

    header: list[str]
    rows: list[list[str]]

    def column(self, start: str) -> int:
        """The number of the column whose header begins so."""
        (found,) = [number for number, title in enumerate(self.header) if title.startswith(start)]
        return found

    def row(self, start: str) -> list[str]:
        """The row whose first cell begins so; the first of them."""
        return next(row for row in self.rows if row[0].startswith(start))


def tables(page: Path) -> list[Table]:
    """Every table of a page. A row with too few or too many cells is an error."""
    found = re.findall(r"(?:^\|.*\n)+", FENCE.sub("", read(page)), re.MULTILINE)
    return [_table(page, [_cells(line) for line in text.splitlines()]) for text in found]


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]


def _table(page: Path, lines: list[list[str]]) -> Table:
    header, _, *rows = lines
    assert {len(line) for line in lines} == {len(header)}, f"{page.name}: a table with uneven rows: {header}"
    return Table(header, rows)
