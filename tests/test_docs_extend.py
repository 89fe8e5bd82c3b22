"""The page "Write your own": its growth operator and architectures are used from the command line of a copy.

``test_docs.py`` runs the whole page, with the tests that it has.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.pages import DOCS, ROOT, Block, apply_diff, code_blocks, read

DIGITS = "--dataset digits --in-chans 1 --batch-size 300 --warmup-epochs 0 --workers 0 --device cpu"
VIT = "--model vit_tiny_patch16_224 --model-kwargs patch_size=4 embed_dim=16 depth=3 num_heads=2 --img-size 8"
INCEPTION = "--model inception_next_atto --model-kwargs dims=[16,16,16,16] depths=[1,1,2,1] --img-size 32"


def source_blocks(heading: str) -> list[Block]:
    """The blocks of a section that change the package."""
    page = DOCS / "extend.md"
    text = read(page)
    start = text.count("\n", 0, text.index(f"## {heading}\n"))
    end = text.find("\n## ", text.index(f"## {heading}\n"))
    blocks = [block for block in code_blocks(page) if start < block.line <= text.count("\n", 0, end) + 1]
    return [block for block in blocks if block.language == "diff" or block.title.startswith("src/")]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.py")}


RUNS = {
    "A growth operator": f"grow {VIT} --grow.depth 2,3 --grow.depth-operator spread --epochs 2",
    "An architecture that grows": f"grow {INCEPTION} --grow.depth 1-1-1-1,1-1-2-1 --grow.depth-operator identity "
    "--epochs 2",
    "An architecture that can be pruned": "prune --model darknet17 --from-scratch --keep-rate 0.5 --img-size 8 "
    "--epochs 1",
}
"""Command lines that use the code of a section."""

IN_ONE_PROCESS = """
import json, sys
from isometry.cli.main import main
sys.exit(max(main(words) for words in json.load(sys.stdin)))
"""


@dataclass
class Used:
    """The changed copy: the folder of each section's run, and the files that the section changed."""

    runs: dict[str, Path]
    changed: dict[str, set[str]]


@pytest.fixture(scope="module")
def used(tmp_path_factory) -> Used:
    """A copy of the package with the code of all sections, and one run for each."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    changed = {heading: apply(heading, folder) for heading in RUNS}
    runs = {heading: folder / f"run-{number}" for number, heading in enumerate(RUNS)}
    words = [f"{options} {DIGITS} --out {runs[heading]}".split() for heading, options in RUNS.items()]
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS],
        input=json.dumps(words),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Used(runs, changed)


def apply(heading: str, folder: Path) -> set[str]:
    """The files of the package that the code of a section changes."""
    before = contents(folder)
    for block in source_blocks(heading):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        else:
            apply_diff(block, folder)
    after = contents(folder)
    return {name for name in after if after[name] != before.get(name)}


def stages(run: Path) -> list[tuple[str, str]]:
    """Size and operators of each stage."""
    found = json.loads((run / "stages.json").read_text(encoding="utf-8"))
    return [(stage["model"], stage["by"]) for stage in found]


def test_a_growth_operator_is_one_file(used):
    heading = "A growth operator"
    assert used.changed[heading] == {"src/isometry/grow/operators/spread.py"}
    assert stages(used.runs[heading]) == [("depth 2", ""), ("depth 3", "spread")]


def test_an_architecture_that_grows_is_one_file(used):
    heading = "An architecture that grows"
    assert used.changed[heading] == {"src/isometry/grow/architectures/inception_next.py"}
    assert stages(used.runs[heading]) == [("depth 1-1-1-1", ""), ("depth 1-1-2-1", "identity")]


def test_a_block_that_can_be_pruned_is_one_entry(used):
    heading = "An architecture that can be pruned"
    assert used.changed[heading] == {"src/isometry/prune/sites.py"}
    config = used.runs[heading] / "student" / "config.json"
    saved = json.loads(config.read_text(encoding="utf-8"))["isometry"]
    assert list(saved["widths"]) == [f"stages.{stage}.blocks.0.conv1" for stage in range(5)]
