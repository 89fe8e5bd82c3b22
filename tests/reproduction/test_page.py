"""The page: figures from the results, caveats; deterministic."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from reproduction.command import PAGE, RESULTS, wanted_runs, write
from reproduction.experiments import experiments
from reproduction.page import PICTURE, page
from reproduction.published import published

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "benchmarks" / "results" / RESULTS

PLACE = {
    "processor": "A processor",
    "cores": 2,
    "device": "cpu (somewhere)",
    "threads": "1",
    "python": "3.11",
    "torch": "2.11",
    "timm": "1.0",
}


def made_up(tables: list[int] | None = None, seeds: int = 5) -> dict:
    """Random results: top-1 around 90, curves of four epochs."""
    random = np.random.default_rng(0)
    names = wanted_runs(tables or list(published().tables))
    runs = {
        name: {
            "top1": random.normal(90, 1, seeds).round(1).tolist(),
            "curves": random.uniform(50, 90, (seeds, 4)).round(1).tolist(),
            "seconds": [1.0] * seeds,
        }
        for name in names
    }
    network = {"params": 1000, "macs": 20_000, "top1": 95.0, "options": {}}
    measured = {"first": "2026-01-01", "last": "2026-01-02", "places": [PLACE], "runs": 7}
    return {
        "paper": published().version,
        "command": "python -m reproduction tables --seeds 5",
        "tables": tables or list(published().tables),
        "seeds": list(range(seeds)),
        "overrides": {},
        "processes": 2,
        "student": {
            "img_size": 16,
            "patch_size": 4,
            "batch_size": 50,
            "losses": {"inter": 0.05, "intra": 0.5, "random": {"weight": 0.2, "k": 16}},
        },
        "measured": measured | {"seconds": 600, "cpu_seconds": 480, "mean_load": 1.5},
        "networks": {"tiny": network, "s24": network},
        "runs": runs,
    }


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}")[2].partition("\n## ")[0]


def test_the_page_has_every_figure_of_the_paper_and_of_the_runs():
    results = made_up()
    text = page(results)
    for number, table in published().tables.items():
        part = section(text, f"Table {number}:")
        for row in table.rows:
            (line,) = [line for line in part.splitlines() if line.startswith(f"| {' | '.join(row.cells)} |")]
            assert f"{row.top1:.2f}" in line
            assert " ".join(f"{value:.1f}" for value in results["runs"][row.run]["top1"]) in line
            assert f"{np.mean(results['runs'][row.run]['top1']):.1f} ±" in line
        assert part.count("**") == 2 * len(table.orderings)


def test_the_page_depends_on_the_results_only():
    results = made_up()
    assert page(copy.deepcopy(results)) == page(results)
    other = copy.deepcopy(results)
    other["runs"]["alpha-0.5"]["top1"][0] += 5
    assert page(other) != page(results)


def test_clear_gains_hold_and_clear_losses_are_reversed():
    results = made_up()
    for row in published().tables[4].rows:
        results["runs"][row.run]["top1"] = [80.0, 81.0, 82.0, 83.0, 84.2]
    results["runs"]["manifold-s24-tiny"]["top1"] = [90.0, 91.0, 92.0, 93.0, 94.0]
    assert section(page(results), "Table 4:").count("**holds**") == 3
    results["runs"]["manifold-s24-tiny"]["top1"] = [70.0, 71.0, 72.0, 73.0, 74.0]
    assert section(page(results), "Table 4:").count("**reversed**") == 3
    (line,) = [line for line in section(page(results), "Summary").splitlines() if "alpha-0.5" in line]
    assert "manifold-s24-tiny" in line


def test_the_counts_are_those_of_the_tables():
    text = page(made_up())
    held = sum(section(text, f"Table {n}:").count("**holds**") for n in published().tables)
    held += section(text, "Figure 4:").count("**holds**")
    claimed, holding, *_ = re.findall(r"\d+", section(text, "Summary"))
    assert int(holding) == held
    assert int(claimed) == sum(
        not ordering.close
        for part in (*published().tables.values(), published().figure)
        for ordering in part.orderings
    )


def test_the_page_says_when_where_and_how_it_was_made():
    text = page(made_up())
    for words in (
        "python -m reproduction tables --seeds 5",
        "2026-01-01 to 2026-01-02",
        "A processor, 2 cores",
    ):
        assert words in text
    assert "torch 2.11" in text
    # Runs; minutes in sum and of CPU time; both divided by two parallel runs; load.
    assert re.search(r"\b7\b.*\b10\b.*\b8\b.*\b5\b.*\b4\b.*\b1\.5\b", text.partition("\n## ")[0], re.DOTALL)


def test_a_test_run_and_few_seeds_are_marked_at_the_top():
    results = made_up(seeds=2)
    results["overrides"] = {"epochs": 1}
    overridden, few = re.findall(r"^\*\*.*\*\*$", page(results)[:400], re.MULTILINE)
    assert "--overrides epochs=1" in overridden
    assert "5 seeds" in few
    assert not re.findall(r"^\*\*.*\*\*$", page(made_up())[:400], re.MULTILINE)


def test_one_seed_makes_a_page_without_intervals():
    text = page(made_up(seeds=1))
    assert "± " not in section(text, "Table 2:")
    assert section(text, "Table 2:").count("**not decided**") == 6
    assert "nan" not in text.lower()


def test_the_page_has_the_chosen_tables_only():
    text = page(made_up([3, 6]))
    assert re.findall(r"^## (Table \d|Figure \d)", text, re.MULTILINE) == ["Table 3", "Table 6"]
    assert "without-rs" in text
    assert "embedding-s24-small" not in text


def test_the_page_has_the_full_size_command_of_each_run_once():
    results = made_up()
    block = section(page(results), "The same at full size").split("```")[1]
    lines = block.strip().splitlines()[1:]
    assert lines == [experiments().runs[name].full_command(name) for name in results["runs"]]


def test_rows_of_tables_have_as_many_cells_as_the_header():
    width = 0
    for line in page(made_up()).splitlines():
        if re.fullmatch(r"\|[-:|]+\|", line):
            width = line.count("|")
        elif not line.startswith("|"):
            width = 0
        elif width:
            assert line.count("|") == width, line


def test_page_picture_and_results_are_written_to_one_folder(tmp_path):
    write(tmp_path, made_up())
    assert (tmp_path / PICTURE).read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert f"]({PICTURE})" in text
    assert page(json.loads((tmp_path / RESULTS).read_text(encoding="utf-8"))) == text


def test_without_table_2_there_is_no_picture(tmp_path):
    write(tmp_path, made_up([3]))
    assert not (tmp_path / PICTURE).exists()
    assert PICTURE not in (tmp_path / PAGE).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def kept() -> dict:
    """The results in the repository."""
    return json.loads(KEPT.read_text(encoding="utf-8"))


def test_the_page_in_the_docs_is_that_of_the_kept_results(kept):
    assert (ROOT / "docs" / PAGE).read_text(encoding="utf-8") == page(kept)
    assert (ROOT / "docs" / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_the_kept_results_are_complete(kept):
    assert kept["tables"] == sorted(published().tables)
    assert kept["overrides"] == {}
    assert len(kept["seeds"]) >= 5
    assert set(kept["runs"]) == set(experiments().runs)
    assert all(len(run["top1"]) == len(kept["seeds"]) for run in kept["runs"].values())
