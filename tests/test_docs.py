"""Every code block of README.md and of docs/ is run, on small networks and few images."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from reproduction.command import ReproduceConfig
from torch.distributed.run import get_args_parser

import isometry
from helpers.dense_networks import dense_network
from helpers.pages import DOCS, PAGES, ROOT, Block, apply_diff, code_blocks, page_name
from isometry.cli.arguments import leading, parse, recipe_named
from isometry.cli.commands import COMMANDS
from isometry.cli.compare_plan import CompareConfig
from isometry.cli.main import main
from isometry.config import RunConfig, canonical
from isometry.models.dense.saving import save_dense
from isometry.recipes import read_recipe
from isometry.training import results

SLOW = {"README.md", "docs/distil.md", "docs/extend.md", "docs/index.md", "docs/measure.md", "docs/prune.md"}

# --- how a command line is made small ----------------------------------------------------------------------------

PLAIN = "patch_size=8 embed_dim=48 depth=4 num_heads=3"
SMALLER = {
    "deit": PLAIN,
    "cait": f"{PLAIN} depth_token_only=1",
    "vit": PLAIN,
}
"""Arguments of a small network of the same kind, by the first letters of its name. Other networks keep their size."""
STAGES = {2: "2,4", 3: "1,2,4"}
"""Depths of the stages of growth to those four blocks, by the number of stages."""
ON_PHOTOS = "-b 6 --img-size 32 --warmup-epochs 0 --workers 0 --device cpu"
ON_DIGITS = "-b 300 --warmup-epochs 0 --workers 0 --device cpu"
LEFT_OUT = {"--pretrained", "--amp", "--compile"}
"""Options that would download or compile something."""
RUNS = ("distill", "train", "grow", "prune", "check")
ADDED = {
    "bench": "--seconds 0.01 --batch-sizes 1 2 --runtimes eager --device cpu",
    "evaluate": "--device cpu",
    "export": "--seconds 0.01",
    "report": "",
    "list": "",
    "completion": "",
}
"""Commands that are run as they are, with these options added."""
PARSED_ONLY = ("compare", "push", "transfer")
"""Commands that take minutes, or a hub: only their options are checked here. Other tests run them."""


def shrunk(command: str, words: list[str]) -> list[str]:
    """The arguments of a run that takes seconds: one epoch for each stage, small networks, random teachers."""
    given = options_given(words)
    if "out" in given:
        # A page may train again what another page only uses.
        shutil.rmtree(given["out"], ignore_errors=True)
    stages = len(str(given["grow.depth"]).split(",")) if "grow.depth" in given else 1
    words = [word for word in words if word not in LEFT_OUT]
    words += ["--epochs", str(stages), *(ON_DIGITS if "dataset" in given else ON_PHOTOS).split()]
    words += smaller("--model-kwargs", given.get("model", ""))
    if ":" not in given.get("teacher", ":"):
        words += ["--teacher-weights", "none", *smaller("--teacher-kwargs", given["teacher"])]
    if stages > 1 and "-" not in str(given["grow.depth"]):
        words += ["--grow.depth", STAGES[stages]]
    return [command, *words]


def options_given(words: list[str]) -> dict[str, Any]:
    """Options by their canonical names. Not parsed: a changed copy of the package may have more of them."""
    given = dict(read_recipe(recipe_named(words))) if recipe_named(words) else {}
    pairs = pairwise(words)
    return given | {canonical(name.lstrip("-")): value for name, value in pairs if name.startswith("-")}


def smaller(option: str, model: str) -> list[str]:
    sizes = next((sizes for start, sizes in SMALLER.items() if model.startswith(start)), "")
    size = "" if option == "--model-kwargs" else " img_size=32"
    return [option, *f"{sizes}{size}".split()] if sizes else []


# --- what runs a block -------------------------------------------------------------------------------------------

IN_ONE_PROCESS = """
import json, sys
import pytest
from isometry.cli.main import main
for program, *words in json.load(sys.stdin):
    if code := pytest.main(words) if program == "pytest" else main(words):
        sys.exit(f"{program} {' '.join(words)}: exit code {int(code)}")
"""


def command_lines(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


class Reader:
    """Follows a page from top to bottom.

    Once a page has changed files of the repository, its commands are those of the changed copy. They are collected and
    run at the end, in one process, because importing everything takes seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"torch": torch, "timm": timm, "isometry": isometry, **example_tensors()}
        self.changed_the_package = False
        self.waiting: list[list[str]] = []

    def follow(self, block: Block) -> None:
        actions = {"python": self.python, "bash": self.bash, "yaml": self.yaml, "diff": self.diff}
        assert block.language in actions, f"```{block.language}: no test knows what to do with such a block"
        actions[block.language](block)

    def python(self, block: Block) -> None:
        if block.title:
            self.copy_the_repository()
            file = self.folder / block.title
            assert not file.exists(), f"{block.title} exists"
            file.write_text(block.text, encoding="utf-8")
            return
        # Shifted, so that a traceback has the page's own line number.
        exec(compile("\n" * block.line + block.text, block.page, "exec"), self.names)

    def bash(self, block: Block) -> None:
        for words in command_lines(block.text):
            self.command(words)

    def yaml(self, block: Block) -> None:
        """A recipe, or some of its keys. Losses of a changed copy are not known here, so only the keys are checked."""
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(block.text, encoding="utf-8")
        kind = CompareConfig if "variants" in yaml.safe_load(block.text) else RunConfig
        parse(kind, ["--config", str(recipe)])

    def diff(self, block: Block) -> None:
        self.copy_the_repository()
        apply_diff(block, self.folder)

    def copy_the_repository(self) -> None:
        if not self.changed_the_package:
            for name in ("src", "tests"):
                shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", self.folder)
        self.changed_the_package = True

    def command(self, words: list[str]) -> None:
        program, *rest = words
        actions = {"isometry": self.isometry, "make": self.make, "pip": self.pip, "torchrun": self.torchrun}
        if program == "python":
            self.run_python(rest)
        elif program in actions:
            actions[program](rest)
        else:
            pytest.fail(f"{program}: no test knows what to do with such a command")

    def make(self, targets: list[str]) -> None:
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert set(targets) <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))

    def pip(self, words: list[str]) -> None:
        assert words[0] == "install"
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(words)):
            for extra in extras.split(","):
                assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra

    def torchrun(self, words: list[str]) -> None:
        parsed = get_args_parser().parse_args(words)
        assert (parsed.module, parsed.training_script) == (True, "isometry")
        command, *options = parsed.training_script_args
        parse(COMMANDS[command].kind, options)

    def run_python(self, words: list[str]) -> None:
        if words[:2] == ["-m", "pytest"]:
            self.waiting.append(["pytest", "-q", "-p", "no:cacheprovider", *words[2:]])
        elif words[:2] == ["-m", "reproduction"]:
            names, options = leading(words[2:])
            assert names == ["tables"]
            parse(ReproduceConfig, options)
        else:
            assert (ROOT / words[0]).is_file()

    def isometry(self, words: list[str]) -> None:
        words = words[: words.index(">")] if ">" in words else words
        if words[0] in ("--help", "--version"):
            assert main(words) == 0
            return
        command, (names, options) = words[0], leading(words[1:])
        if not self.changed_the_package:
            parse(COMMANDS[command].kind, options)
        if command in PARSED_ONLY:
            recipe = recipe_named(options)
            assert not recipe or Path(recipe).is_file()
            return
        assert command in RUNS or command in ADDED, f"isometry {command}: add it to this test"
        small = (
            shrunk(command, options)
            if command in RUNS
            else [command, *names, *options, *ADDED[command].split()]
        )
        if self.changed_the_package:
            self.waiting.append(["isometry", *small])
        else:
            assert main(small) == 0, " ".join(small)

    def finish(self) -> None:
        """Runs the collected commands in the changed copy of the repository."""
        if not self.waiting:
            return
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "src"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", IN_ONE_PROCESS],
            input=json.dumps(self.waiting),
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def example_tensors() -> dict[str, Any]:
    """Names that a block may use without defining them: a student and its teacher, and a batch."""
    sizes = {"img_size": 32, "patch_size": 8, "depth": 4, "num_heads": 3, "num_classes": 3}
    return {
        "student": timm.create_model("vit_tiny_patch16_224", embed_dim=24, **sizes),
        "teacher": timm.create_model("vit_tiny_patch16_224", embed_dim=48, **sizes).eval(),
        "images": torch.randn(4, 3, 32, 32),
        "labels": torch.tensor([0, 1, 2, 0]),
    }


# --- the folder that pages are followed in -----------------------------------------------------------------------


def write_images(folder: Path, count: int) -> None:
    random = np.random.default_rng(len(str(folder.name)))
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Folders of images, and the runs that pages start from: a teacher, its student, and a CNN to prune."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("cat", "dog", "owl"):
        write_images(folder / "photos" / name, 8)
    write_images(folder / "unlabelled", 12)
    small = f"--data-dir {folder}/photos --epochs 1 {ON_PHOTOS}".split()
    teacher = f"local-dir:{folder}/runs/teacher/student"
    runs = {
        "teacher": f"train --model cait_xxs24_224 --model-kwargs {SMALLER['cait']}",
        "first": f"distill --teacher {teacher} --student deit_tiny_patch16_224 --student-kwargs {PLAIN}",
        "dense": "train --model cifar_resnet20",
    }
    with mock.patch.object(results, "images_per_second", return_value=1.0):
        for name, words in runs.items():
            assert main([*words.split(), *small, "--out", str(folder / "runs" / name)]) == 0
    for task, name in (("detect", "detector"), ("segment", "masks")):
        save_dense(dense_network(task), folder / "runs" / name / "model")
    return folder


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(prepared, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    # Measuring takes a second, and nothing here looks at it.
    monkeypatch.setattr(results, "images_per_second", lambda *_, **__: 1.0)
    monkeypatch.setattr(results, "SECONDS_TIMED", 0.01)
    return tmp_path / "work"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page_name(page) in SLOW else ())
        for page in PAGES
        if code_blocks(page)
    ],
    ids=page_name,
)
def test_every_block_of_a_page_runs(page, folder):
    torch.manual_seed(0)
    reader = Reader(folder)
    for block in code_blocks(page):
        try:
            reader.follow(block)
        except BaseException as error:
            error.add_note(f"{block.page}:{block.line}: in the block that begins here")
            raise
    reader.finish()


def test_pictures_are_those_that_the_package_draws(tmp_path):
    runpy.run_path(str(DOCS / "pictures.py"))["draw"](tmp_path)
    drawn = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    assert set(drawn) == {file.name for file in DOCS.glob("*.svg")}
    for name, picture in drawn.items():
        # Text only: another version of matplotlib draws other lines.
        words = r"<text[^>]*>([^<]*)</text>"
        assert re.findall(words, picture) == re.findall(words, (DOCS / name).read_text(encoding="utf-8"))
