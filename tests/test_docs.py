"""Every code block of the README and of docs/ is run, in a world of tiny runs; and the built site fetches nothing."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from torch.distributed.run import get_args_parser

import isometry
from isometry import outcome
from isometry.cli import main
from isometry.commands import COMMANDS
from isometry.compare import CompareConfig
from isometry.config import RunConfig, canonical
from isometry.configfile import read_yaml
from isometry.grow.operators import DEPTH_OPERATORS
from isometry.helptext import option_groups
from isometry.parsing import leading, parse, recipe_named

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SLOW = {"README.md", "docs/extend.md", "docs/prune.md"}
"""Many runs; processes that import everything again."""

# --- how a command line is made small ----------------------------------------------------------------------------

PLAIN = "patch_size=8 embed_dim=48 depth=4 num_heads=3"
SMALLER = {
    "deit": PLAIN,
    "cait": f"{PLAIN} depth_token_only=1",
    "vit": PLAIN,
}
"""Arguments that make a small network of the same kind, by the first letters of its name; others stay as they are."""
STAGES = {2: "2,4", 3: "1,2,4"}
"""Depths on the way to the four blocks that are left, by the number of stages."""
ON_PHOTOS = "-b 6 --img-size 32 --warmup-epochs 0 --workers 0 --device cpu"
ON_DIGITS = "-b 300 --warmup-epochs 0 --workers 0 --device cpu"
TAKEN_OUT = {"--pretrained", "--amp", "--compile"}
"""Nothing is fetched or compiled."""
RUNS = ("distill", "train", "grow", "prune", "check")
BESIDES = {
    "bench": "--seconds 0.01 --batch-sizes 1 2 --runtimes eager --device cpu",
    "evaluate": "--device cpu",
    "export": "--seconds 0.01",
    "report": "",
    "list": "",
    "completion": "",
}
"""Commands that run as they stand, with these words added."""
UNDERSTOOD = ("compare", "reproduce", "push")
"""Commands that take minutes or a hub: their words must be understood, and other tests run them."""


def shrunk(command: str, words: list[str]) -> list[str]:
    """The words of a run that takes seconds: an epoch (one for each stage), small networks, random teachers."""
    given = options_given(words)
    if "out" in given:
        # Where the page makes itself what the world had for the others.
        shutil.rmtree(given["out"], ignore_errors=True)
    stages = len(str(given["grow.depth"]).split(",")) if "grow.depth" in given else 1
    words = [word for word in words if word not in TAKEN_OUT]
    words += ["--epochs", str(stages), *(ON_DIGITS if "dataset" in given else ON_PHOTOS).split()]
    words += smaller("--model-kwargs", given.get("model", ""))
    if ":" not in given.get("teacher", ":"):
        words += ["--teacher-weights", "none", *smaller("--teacher-kwargs", given["teacher"])]
    if stages > 1:
        words += ["--grow.depth", STAGES[stages]]
    return [command, *words]


def options_given(words: list[str]) -> dict[str, Any]:
    """Options by their own names. Read word by word: the package that runs may have more of them than this one."""
    given = dict(read_yaml(recipe_named(words))) if recipe_named(words) else {}
    pairs = pairwise(words)
    return given | {canonical(name.lstrip("-")): value for name, value in pairs if name.startswith("-")}


def smaller(option: str, model: str) -> list[str]:
    sizes = next((sizes for start, sizes in SMALLER.items() if model.startswith(start)), "")
    size = "" if option == "--model-kwargs" else " img_size=32"
    return [option, *f"{sizes}{size}".split()] if sizes else []


# --- what runs a block -------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """A fenced block: ``line`` is that of its fence, ``title`` the file that it is to be saved as."""

    page: str
    line: int
    language: str
    title: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r'^( *)```(\w*)(?: title="([^"]+)")? *\n(.*?)^\1```$', text, re.MULTILINE | re.DOTALL)
    blocks = []
    for match in found:
        line = text.count("\n", 0, match.start()) + 1
        blocks.append(Block(str(page.relative_to(ROOT)), line, match[2], match[3] or "", match[4]))
    assert len(blocks) * 2 == len(re.findall(r"^ *```", text, re.MULTILINE)), (
        f"{page}: a fence without its end"
    )
    return blocks


def command_lines(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


class Reader:
    """Someone who goes through a page from top to bottom and does what its blocks say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"torch": torch, "timm": timm, "isometry": isometry, **example_tensors()}
        self.changed_the_package = False

    def follow(self, block: Block) -> None:
        actions = {
            "python": self.python,
            "bash": self.bash,
            "yaml": self.yaml,
            "diff": self.diff,
            "": self.tree,
        }
        assert block.language in actions, f"```{block.language}: no test knows what to do with such a block"
        actions[block.language](block)

    def python(self, block: Block) -> None:
        if block.title:
            self.check_out()
            file = self.folder / block.title
            assert not file.exists(), f"{block.title} is there already"
            file.write_text(block.text, encoding="utf-8")
            return
        # Shifted, so that a traceback names the page's own line.
        exec(compile("\n" * block.line + block.text, block.page, "exec"), self.names)

    def bash(self, block: Block) -> None:
        for words in command_lines(block.text):
            self.command(words)

    def yaml(self, block: Block) -> None:
        """A recipe's keys, or some of them."""
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(block.text, encoding="utf-8")
        kind = CompareConfig if "variants" in yaml.safe_load(block.text) else RunConfig
        parse(kind, ["--config", str(recipe)])

    def diff(self, block: Block) -> None:
        """Lines of one file: the old ones must be there once, and the new ones take their place."""
        self.check_out()
        head, *lines = block.text.splitlines(keepends=True)
        file = self.folder / head.removeprefix("+++ ").strip()
        old = "".join(line[1:] or "\n" for line in lines if line[0] in " -\n")
        new = "".join(line[1:] or "\n" for line in lines if line[0] in " +\n")
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file.name}: these lines are there {text.count(old)} times\n{old}"
        file.write_text(text.replace(old, new), encoding="utf-8")

    def tree(self, block: Block) -> None:
        """The annotated tree of the package: what it names is there."""
        assert block.text.startswith("src/isometry/\n"), "a block without a language is the package's tree"
        there = {path.name for path in (ROOT / "src").rglob("*")}
        named = set(re.findall(r"\b\w+\.py\b", block.text)) | set(
            re.findall(r"^ +(\w+)/", block.text, re.MULTILINE)
        )
        assert named <= there, f"not in the package: {named - there}"

    def check_out(self) -> None:
        """From here on the commands are those of a copy of the repository, which the page changes."""
        if not self.changed_the_package:
            for name in ("src", "tests"):
                shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", self.folder)
        self.changed_the_package = True

    def command(self, words: list[str]) -> None:
        program, *rest = words
        if program == "isometry":
            self.isometry(rest)
        elif program == "make":
            targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            assert set(rest) <= set(targets)
        elif program == "pip":
            extras = re.findall(r"\.\[([\w,]+)\]", " ".join(rest))
            project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
            assert rest[0] == "install"
            assert all(
                re.search(rf"^{extra} = \[", project, re.MULTILINE)
                for each in extras
                for extra in each.split(",")
            )
        elif program == "torchrun":
            told = get_args_parser().parse_args(rest)
            assert told.module
            assert told.training_script == "isometry"
            command, *options = told.training_script_args
            parse(COMMANDS[command].kind, options)
        elif (program, rest[:2]) == ("python", ["-m", "pytest"]):
            self.process("-m", "pytest", "-q", *rest[2:])
        elif program == "python":
            assert (ROOT / rest[0]).is_file()
        else:
            pytest.fail(f"{program}: no test knows what to do with such a command")

    def isometry(self, words: list[str]) -> None:
        words = words[: words.index(">")] if ">" in words else words
        if words[0] in ("--help", "--version"):
            assert main(words) == 0
            return
        command, (names, options) = words[0], leading(words[1:])
        if not self.changed_the_package:
            parse(COMMANDS[command].kind, options)
        if command in UNDERSTOOD:
            assert not recipe_named(options) or Path(recipe_named(options)).is_file()
            return
        assert command in RUNS or command in BESIDES, (
            f"isometry {command}: say in tests/test_docs.py how to try it"
        )
        small = (
            shrunk(command, options)
            if command in RUNS
            else [command, *names, *options, *BESIDES[command].split()]
        )
        if self.changed_the_package:
            self.process("-m", "isometry", *small)
        else:
            assert main(small) == 0, " ".join(small)

    def process(self, *words: str) -> None:
        """Python in the changed copy of the repository."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "src"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def example_tensors() -> dict[str, Any]:
    """What a block may take as given: a student and its teacher, and a batch."""
    sizes = {"img_size": 32, "patch_size": 8, "depth": 4, "num_heads": 3, "num_classes": 3}
    return {
        "student": timm.create_model("vit_tiny_patch16_224", embed_dim=24, **sizes),
        "teacher": timm.create_model("vit_tiny_patch16_224", embed_dim=48, **sizes).eval(),
        "images": torch.randn(4, 3, 32, 32),
        "labels": torch.tensor([0, 1, 2, 0]),
    }


# --- the world ---------------------------------------------------------------------------------------------------


def write_pictures(folder: Path, count: int) -> None:
    random = np.random.default_rng(len(str(folder.name)))
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Folders of pictures, and the runs that pages begin with: a teacher, and a CNN to prune."""
    world = tmp_path_factory.mktemp("world")
    for name in ("cat", "dog", "owl"):
        write_pictures(world / "photos" / name, 8)
    write_pictures(world / "unlabelled", 12)
    small = f"--data-dir {world}/photos --epochs 1 {ON_PHOTOS}".split()
    for name, model in (
        ("teacher", f"cait_xxs24_224 --model-kwargs {SMALLER['cait']}"),
        ("dense", "cifar_resnet20"),
    ):
        assert main(["train", "--model", *model.split(), *small, "--out", str(world / "runs" / name)]) == 0
    return world


@pytest.fixture
def at_world(world, tmp_path, monkeypatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(world, tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    # Measuring takes a second, and nothing here looks at it.
    monkeypatch.setattr(outcome, "images_per_second", lambda *_, **__: 1.0)
    monkeypatch.setattr(outcome, "SECONDS_TIMED", 0.01)
    return tmp_path / "world"


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page_name(page) in SLOW else ())
        for page in PAGES
        if blocks_of(page)
    ],
    ids=page_name,
)
def test_every_block_of_a_page_does_what_it_says(page, at_world):
    torch.manual_seed(0)
    reader = Reader(at_world)
    with mock.patch.dict(DEPTH_OPERATORS):
        for block in blocks_of(page):
            try:
                reader.follow(block)
            except BaseException as error:
                error.add_note(f"{block.page}:{block.line}: in the block that begins here")
                raise


# --- what the pages claim ----------------------------------------------------------------------------------------


def test_figures_are_those_of_the_readme():
    """Nothing is measured for a page alone: its decimals are the README's, which stand beside their commands."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("distil", "grow", "prune"):
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        told = re.split(r"^## (?:What it costs|What is exact)$", text, flags=re.MULTILINE)[1:]
        figures = re.findall(
            r"(?<![\w.])\d+\.\d+(?:e-\d+)?", re.sub(r"`[^`]*`|\]\([^)]*\)", "", "".join(told))
        )
        assert len(figures) >= 5, name
        assert {figure for figure in figures if figure not in readme} == set(), name


def test_a_method_says_what_must_be_said():
    for name in ("distil", "grow", "prune"):
        titles = re.findall(r"^## (.+)$", (DOCS / f"{name}.md").read_text(encoding="utf-8"), re.MULTILINE)
        wanted = [
            "The equations",
            "What is exact",
            "What is approximate",
            "What it costs",
            "When not to use it",
        ]
        assert [title for title in titles if title in wanted] == wanted


def test_pictures_are_those_that_the_package_draws(tmp_path):
    runpy.run_path(str(DOCS / "pictures.py"))["draw"](tmp_path)
    drawn = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    assert set(drawn) == {file.name for file in DOCS.glob("*.svg")}
    for name, picture in drawn.items():
        # Not the lines, which another matplotlib draws otherwise.
        words = r"<text[^>]*>([^<]*)</text>"
        assert re.findall(words, picture) == re.findall(words, (DOCS / name).read_text(encoding="utf-8"))
    assert drawn["points.svg"].count("gap to the teacher's map: 0.00") == 2


def test_every_picture_is_there_and_has_words():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for words, file in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text):
            assert (page.parent / file).is_file(), f"{page.name}: {file}"
            assert len(words.split()) > 5, f"{page.name}: {file}"


# --- the site ----------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page fetches, where its links lead, its words, and the kinds of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]
        (self.links if tag == "a" else self.fetched).extend(found)

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site as `make docs` builds it: any warning is an error there."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n(if mkdocs is missing: pip install '.[docs]')"
    return folder


def built(site: Path) -> dict[str, Page]:
    return {
        str(file.relative_to(site)): Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")
    }


@pytest.mark.slow
def test_no_request_leaves_the_pages(site):
    for name, page in built(site).items():
        assert page.fetched, name
        for address in page.fetched:
            assert not re.match(r"(?:[a-z]+:)?//", address), f"{name} fetches {address}"
            if name != "404.html" and not address.startswith(("data:", "#")):
                assert (site / name).parent.joinpath(address.partition("#")[0]).exists(), f"{name}: {address}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", text), style.name


@pytest.mark.slow
def test_every_page_is_there_and_every_equation_is_drawn_by_the_browser(site):
    pages = built(site)
    assert {f"{page.stem}.html" for page in DOCS.glob("*.md")} | {"commands.html"} <= set(pages)
    listed = {link for link in pages["index.html"].links if link.endswith(".html")}
    assert set(pages) - {"404.html"} <= listed
    for name, page in pages.items():
        source = DOCS / name.replace(".html", ".md")
        has_equations = source.is_file() and "$" in re.sub(
            r"```.*?```", "", source.read_text("utf-8"), flags=re.DOTALL
        )
        assert ("math" in page.tags) == has_equations, name
        assert "\\(" not in page.words, name
        assert "\\mathrm" not in page.words, name


@pytest.mark.slow
def test_the_command_line_and_the_api_are_all_there(site):
    pages = built(site)
    words = " ".join(pages["commands.html"].words.split())
    for name, command in COMMANDS.items():
        assert f"isometry {name}" in words
        assert command.about in words
        for _, options in option_groups(command.kind):
            for option in options:
                assert option.spelled[0] in words
    api = " ".join(pages["api.html"].words.split())
    for told in (
        "gram_gap",
        "Squared Frobenius distance between two cosine relation maps",
        "WholeBatch",
        "add_gates",
    ):
        assert told in api
    assert not re.search(r":(?:func|class|mod):|={8}", api)
