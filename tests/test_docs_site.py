"""The documentation site as `make docs` builds it: complete, and nothing on it is fetched from elsewhere."""

import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from helpers.pages import DOCS, FENCE, ROOT, read
from isometry import functional
from isometry.cli.commands import COMMANDS
from isometry.cli.help import option_groups
from isometry.losses import available


class Page(HTMLParser):
    """What a page fetches, where its links lead, its text, and the kinds of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]
        (self.links if tag == "a" else self.fetched).extend(found)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.slow
def test_the_site_is_complete_and_fetches_nothing(tmp_path):
    """One test, because building the site takes long."""
    build(tmp_path)
    pages = {str(file.relative_to(tmp_path)): Page(read(file)) for file in tmp_path.rglob("*.html")}
    check_nothing_is_fetched(tmp_path, pages)
    check_every_page_is_listed(pages)
    check_equations(pages)
    check_commands(pages["commands.html"])
    check_api(pages["api.html"])


def build(folder: Path) -> None:
    """Any warning of mkdocs is an error."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n(if mkdocs is missing: pip install '.[docs]')"


def check_nothing_is_fetched(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert page.fetched, name
        for address in page.fetched:
            assert not re.match(r"(?:[a-z]+:)?//", address), f"{name} fetches {address}"
            if name != "404.html" and not address.startswith(("data:", "#")):
                assert (site / name).parent.joinpath(address.partition("#")[0]).exists(), f"{name}: {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", read(style)), style.name


def check_every_page_is_listed(pages: dict[str, Page]) -> None:
    assert {f"{page.stem}.html" for page in DOCS.glob("*.md")} | {"commands.html"} <= set(pages)
    assert set(pages) - {"404.html"} <= {link for link in pages["index.html"].links if link.endswith(".html")}


def check_equations(pages: dict[str, Page]) -> None:
    """The browser draws them: they are MathML, and no LaTeX is left."""
    for name, page in pages.items():
        source = DOCS / name.replace(".html", ".md")
        has_equations = source.is_file() and "$" in FENCE.sub("", read(source))
        assert ("math" in page.tags) == has_equations, name
        assert "\\(" not in page.text, name
        assert "\\mathrm" not in page.text, name


def check_commands(page: Page) -> None:
    text = " ".join(page.text.split())
    for name, command in COMMANDS.items():
        assert f"isometry {name}" in text
        assert command.about in text
        for _, options in option_groups(command.kind):
            for option in options:
                assert option.spelled[0] in text


def check_api(page: Page) -> None:
    """Every name that docs/api.md lists, every loss and every function of `functional`, with its docstring."""
    text = " ".join(page.text.split())
    for found in re.finditer(
        r"^::: (\S+)$(?:\n +options:\n +members: (\[.*\]))?", read(DOCS / "api.md"), re.MULTILINE
    ):
        for name in [found[1], *yaml.safe_load(found[2] or "[]")]:
            assert name in text
    for name in functional.__all__:
        summary = inspect.getdoc(getattr(functional, name)).partition("\n")[0].partition("`")[0]
        assert name in text
        assert " ".join(summary.split()) in text, name
    for loss in available().values():
        assert loss.__name__ in text
    assert not re.search(r":(?:func|class|mod):|={8}", text)
