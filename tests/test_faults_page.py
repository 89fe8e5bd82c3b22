"""docs/faults.md claims nothing without a test: each fault's row names files of tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")


def test_every_fault_names_its_tests():
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    faults = [row for row in rows if len(row) == 4 and row[0] != "fault"]
    assert len(faults) > 20
    for fault, *_, tests in faults:
        for name in tests.split(", "):
            assert (ROOT / name).is_file(), f"{fault}: {name}"
    assert {len(row) for row in rows} == {2, 4}


def test_the_page_leads_to_files_that_are_there():
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / link).is_file(), link
