"""The house rules that a machine can keep: where imports point, what losses see, how long a file may be."""

import ast
import csv
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from torch import Tensor

import isometry
from isometry.losses import available

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "isometry"
TESTS = ROOT / "tests"
FILES = sorted(SOURCE.rglob("*.py"))
LAYERS = [
    {"__main__", "__init__"},
    {"cli"},
    {"training", "export"},
    {"evaluation"},
    {"prune"},
    {"models", "report"},
    {"losses", "grow", "data", "recipes", "distributed"},
    {"discovery", "parsing"},
    {"files"},
    {"functional", "config", "seeding", "errors"},
]
"""Imports point down, from one of these to a later one. `__init__` imports inside its functions."""
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MOST_ROOMS, MOST_LOOSE_FILES, LONGEST_CHAIN, LONGEST_FILE = 12, 7, 10, 300


def part_of(path: Path) -> str:
    """The part of the house that a file is in: a package's name or the file's."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, in full."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_parts(path: Path) -> set[str]:
    """The parts of the house that a file imports."""
    names = [name.split(".") for name in imported(path) if name.startswith("isometry.")]
    return {name[1] for name in names if (SOURCE / name[1]).is_dir() or (SOURCE / f"{name[1]}.py").is_file()}


def reached(*parts: str) -> set[str]:
    """The parts, all that they import, all that those import, and so on."""
    seen, waiting = set(), set(parts)
    while waiting:
        part = waiting.pop()
        seen.add(part)
        for path in FILES:
            if part_of(path) == part:
                waiting |= own_parts(path) - seen
    return seen


def others(path: Path) -> set[str]:
    """Libraries outside Python's own and this package that a file imports."""
    return {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names) - {"isometry"}


def files_of(part: str) -> list[Path]:
    return [path for path in FILES if part_of(path) == part]


def chain(part: str) -> int:
    """Parts on the longest chain of imports that begins with this one."""
    return 1 + max((chain(used) for used in imports_of(part)), default=0)


@cache
def imports_of(part: str) -> frozenset[str]:
    return frozenset({used for path in files_of(part) for used in own_parts(path)} - {part})


PARTS = sorted({part_of(path) for path in FILES})


def test_there_are_few_rooms_and_few_loose_files():
    rooms = [path.parent for path in SOURCE.glob("*/__init__.py")]
    loose = [path for path in SOURCE.glob("*.py") if not path.stem.startswith("__")]
    assert len(rooms) <= MOST_ROOMS
    assert len(loose) <= MOST_LOOSE_FILES
    assert set(PARTS) == set(LEVEL)


@pytest.mark.parametrize("part", PARTS)
def test_imports_point_down(part):
    assert {used for used in imports_of(part) if LEVEL[used] <= LEVEL[part]} == set()


def test_no_part_imports_itself_in_a_circle():
    for part in PARTS:
        assert part not in reached(*imports_of(part)), part


def test_chains_of_imports_are_short():
    assert max(chain(part) for part in PARTS) <= LONGEST_CHAIN


def test_functional_imports_torch_alone():
    assert reached("functional") == {"functional"}
    assert all(others(path) <= {"torch"} for path in files_of("functional"))


def test_losses_import_the_maths_alone():
    assert reached("losses") == {"losses", "functional", "discovery", "errors"}
    assert all(others(path) <= {"torch"} for path in files_of("losses"))


def test_gates_know_the_maths_alone():
    gates = SOURCE / "prune" / "gates.py"
    assert own_parts(gates) == {"functional"}
    assert others(gates) <= {"torch"}


RUNNERS = ["isometry.training.run", "isometry.training.results", "isometry.training.transfer"]


def test_the_loop_does_not_know_who_runs_it():
    """By file, since those that run it lie beside it."""
    loop = SOURCE / "training" / "loop.py"
    seen, waiting = set(), {loop}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        used = {SOURCE.parent.joinpath(*name.split(".")[:-1]).with_suffix(".py") for name in imported(path)}
        waiting |= {found for found in used if found.is_file() and found.parent == loop.parent} - seen
    named = {name for path in seen for name in imported(path)}
    assert not [name for name in named if name.startswith((*RUNNERS, "isometry.cli", "isometry.export"))]


def test_nothing_imports_the_command_line():
    assert {part_of(path) for path in FILES if "cli" in own_parts(path)} - {"cli"} == {"__main__"}


def test_the_rules_would_notice(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from isometry.cli.main import main\n    import timm.models\n")
    assert own_parts(wrong) == {"cli"}
    assert others(wrong) == {"timm"}


@pytest.mark.parametrize("name", available())
def test_losses_see_tensors_only(name):
    loss = available()[name]
    signature = inspect.signature(loss.forward)
    given = list(signature.parameters.values())[1:]
    assert len(given) == len(loss.inputs)
    assert all(parameter.annotation is Tensor for parameter in given)
    assert signature.return_annotation is Tensor


def test_only_the_base_of_losses_knows_of_other_processes():
    knowing = {
        path.stem for path in files_of("losses") if any("distributed" in name for name in imported(path))
    }
    assert knowing == {"base"}


def test_only_taps_knows_prefix_tokens_and_grids():
    knowing = {
        path.name
        for path in FILES
        if re.search("prefix_tokens|forward_intermediates", path.read_text("utf-8"))
    }
    # Networks do not ask for features: they are asked. A library's teacher asks whether there is someone to ask.
    assert knowing == {"taps.py", "cifar_resnet.py", "external_teacher.py", "base.py"}


OF_THE_WHOLE = ("architecture", "docs", "golden", "hostile", "older_folders")
"""Tests of no single module."""


def named_after_a_module(test: Path) -> bool:
    """Whether a test is ``test_MODULE`` or ``test_MODULE_ASPECT``, with MODULE of the room that its folder names."""
    folder = test.parent.relative_to(TESTS)
    room = ROOT / folder if folder.parts[:1] == ("reproduction",) else SOURCE / folder
    modules = [path.stem for path in room.glob("*.py")] + [*OF_THE_WHOLE] * (folder == Path())
    return f"{test.stem}_".startswith(tuple(f"test_{module}_" for module in modules))


def test_tests_mirror_the_package():
    tests = sorted(TESTS.rglob("test_*.py"))
    assert [str(test) for test in tests if not named_after_a_module(test)] == []
    assert not named_after_a_module(TESTS / "losses" / "test_contract.py")
    assert not named_after_a_module(TESTS / "models" / "test_tap.py")
    shared = {
        path.parent.name for path in TESTS.rglob("*.py") if not path.name.startswith(("test_", "conftest"))
    }
    assert shared == {"helpers", "oracles"}


def test_no_file_is_too_long():
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_library_code_leaves_the_process():
    leaving = {
        path.name
        for path in FILES
        if re.search(r"\bsys\.exit\(|\bSystemExit\b|\bos\._exit", path.read_text("utf-8"))
    }
    assert leaving <= {"main.py", "__main__.py"}


def blocks(language: str) -> list[str]:
    """The code blocks of the page "Write your own loss" in CONTRIBUTING.md."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Write your own loss")[2]
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


RUN_AND_TEST = """
import sys, pytest
from isometry.cli.main import main
words = "distill --config recipe.yaml --out run".split()
sys.exit(main(words) or pytest.main(["-q", "test_means.py", "test_base_contract.py"]))
"""


def test_a_new_loss_is_one_file_as_the_page_says(tmp_path):
    """The page's code, dropped into a copy of the package, is used from a recipe; nothing else is edited."""
    loss, its_test = blocks("python")
    (recipe,) = blocks("yaml")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    before = {path: path.read_bytes() for path in (tmp_path / "src").rglob("*.py")}
    (tmp_path / "src" / "isometry" / "losses" / "means.py").write_text(loss, encoding="utf-8")
    (tmp_path / "test_means.py").write_text(its_test, encoding="utf-8")
    tiny = "{patch_size: 4, embed_dim: 24, depth: 2, num_heads: 3}"
    (tmp_path / "recipe.yaml").write_text(
        f"{recipe}dataset: digits\nimg_size: 8\nin_chans: 1\nbatch_size: 300\nworkers: 0\nepochs: 1\n"
        f"student: vit_tiny_patch16_224\nstudent_kwargs: {tiny}\nteacher: vit_tiny_patch16_224\ndevice: cpu\n"
        "teacher_kwargs: {patch_size: 4, embed_dim: 36, depth: 2, num_heads: 3, img_size: 8, in_chans: 1}\n"
        "teacher_weights: none\n",
        encoding="utf-8",
    )
    shutil.copy(ROOT / "tests" / "losses" / "test_base_contract.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_TEST],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["train/means"]) > 0
    assert {path: path.read_bytes() for path in before} == before


def test_the_public_surface_is_what_is_promised():
    functional = __import__("isometry.functional", fromlist=["_"])
    losses = __import__("isometry.losses", fromlist=["_"])
    assert callable(functional.gram_gap)
    assert {"WholeBatch", "IntraImage", "InterImage", "RandomPatches"} <= set(losses.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", isometry.__version__)
