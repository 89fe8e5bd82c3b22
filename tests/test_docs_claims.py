"""What README.md, CONTRIBUTING.md and docs/ claim: figures, tables, the source tree, versions, links."""

import json
import pkgutil
import re
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from helpers.pages import DOCS, PAGES, ROOT, Table, page_name, prose, read, tables
from isometry.report.records.intervals import interval

README = ROOT / "README.md"
METHODS = ("distil", "grow", "prune")
NUMBER = re.compile(r"[+−]?\d+(?:,\d{3})*(?:\.\d+)?")


def number(text: str) -> float:
    """The first number of a cell, with the minus sign of typography."""
    (found, *_) = NUMBER.findall(text)
    return float(found.replace("−", "-").replace(",", ""))


def numbers(text: str) -> list[float]:
    return [number(each) for each in NUMBER.findall(text)]


def results(name: str) -> dict[str, Any]:
    """A file of benchmarks/results."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def table_with(page: str, *header: str) -> Table:
    """The first table of a page whose header begins so."""
    return next(each for each in tables(DOCS / f"{page}.md") if each.header[: len(header)] == list(header))


def check_rounded(cell: str, value: float) -> None:
    """A cell begins with the value, rounded to as many decimals as the cell has."""
    (found, *_) = NUMBER.findall(cell)
    decimals = len(found.partition(".")[2])
    # Half a unit of the last digit; results are rounded too.
    assert number(cell) == pytest.approx(value, abs=0.51 * 10**-decimals), (cell, value)


# --- figures that benchmarks have written ------------------------------------------------------------------------


def test_scenes_of_both_seeds():
    figures = results("scenes")["figures"]
    table = table_with("dense", "variant", "mIoU, frozen")
    assert [row[0] for row in table.rows] == list(figures)
    keys = ["segment, frozen miou", "segment miou", "detect, frozen ap", "detect ap"]
    keys += ["dense correspondence", "dense kept neighbours, all patches"]
    for name, *cells in table.rows:
        for cell, key in zip(cells, keys, strict=True):
            for text, value in zip(
                cell.split() if key in figures[name] else [], figures[name].get(key, []), strict=True
            ):
                check_rounded(text, value)
    gains = {
        key: [own - base for own, base in zip(figures["whole+intra"][key], figures["soft"][key], strict=True)]
        for key in keys
    }
    (said,) = [
        line
        for line in prose(DOCS / "dense.md")
        if line.startswith("whole with intra gains") or "`whole` with `intra` gains" in line
    ]
    assert numbers(said)[:4] == [round(gain, 1) for key in keys[:2] for gain in gains[key]]


def test_costs_of_the_exact_map():
    figures = results("relations")["figures"]
    costs = table_with("distil", "what", "measured").rows
    wanted = [figure for figure in figures[:4]]
    assert len(costs) == len(wanted)
    for (_, measured, ratio, target), figure in zip(costs, wanted, strict=True):
        assert measured == figure["measured"]
        check_rounded(ratio, figure["value"])
        assert numbers(target) == numbers(figure["target"])
    errors = table_with("distil", "largest error").rows
    for (_, measured, target), figure in zip(errors, figures[-3:], strict=True):
        assert float(measured) == pytest.approx(figure["value"], rel=0.02)
        assert target.removeprefix("≤ ") == figure["target"].removeprefix("at most ")


def test_costs_of_growth():
    figures = results("growth")
    steps, with_growth, growth = table_with("grow", "what", "seconds").rows
    full, grown = steps[1].split(" / ")
    check_rounded(full, figures["seconds at full size"])
    check_rounded(grown, figures["seconds of 6→12"])
    check_rounded(steps[2], figures["measured speed-up of the steps (target 1.28)"])
    assert f"ideal by multiply-accumulates {figures['ideal by multiply-accumulates']:.2f}" in steps[2]
    check_rounded(with_growth[2], figures["the same with the growth in these few steps"])
    check_rounded(growth[1], figures["seconds of one growth"]["insert"])


def test_latencies_of_pruned_networks():
    figures = results("pruning")
    milliseconds = figures["milliseconds an image"]
    table = table_with("prune", "form")
    for title in table.header[1:]:
        batch, two = re.fullmatch(r"batch (\d+)( \(2 threads\))?", title).groups()
        measured = milliseconds[f"batch {batch}, {'2 threads' if two else '1 thread'}"]
        for row in table.rows:
            cell = row[table.header.index(title)]
            if row[0] not in measured:
                assert cell == "–"
                continue
            time, _, speedup = cell.partition(" · ")
            check_rounded(time, measured[row[0]])
            if row[0] == "dense":
                assert not speedup
            else:
                check_rounded(speedup, measured["dense"] / measured[row[0]])
    dropped = figures["multiply-accumulates dropped, %"]["groups of 1"]
    assert f"{dropped:.0f} % of all MACs" in " ".join(prose(DOCS / "prune.md"))


def test_times_of_a_step():
    table = table_with("scale", "", "images/s")
    for row, side in zip(table.rows, results("step")["sides"], strict=True):
        check_rounded(row[1], side["images/s"])
        check_rounded(row[2].replace("**", ""), side["times plain"])
        for phase, cell in zip(table.header[3:], row[3:], strict=True):
            check_rounded(cell, side["seconds"][phase])


def test_times_of_a_step_of_resnets():
    table = table_with("scale", "losses", "images/s")
    for row, side in zip(table.rows, results("step_resnet")["sides"], strict=True):
        assert row[0].replace("`", "") == side["side"]
        check_rounded(row[1], side["images/s"])
        check_rounded(row[2], side["times KD alone"])
        for phase, cell in zip(table.header[3:], row[3:], strict=True):
            check_rounded(cell, side["seconds"][phase])


def test_speed_up_of_the_layout_in_memory():
    faster = results("step_layout")["sides"][1]
    assert faster["side"] == "--channels-last"
    assert f"is then {faster['times usual layout']:.2f} times as fast" in " ".join(prose(DOCS / "scale.md"))


def test_rates_of_loading():
    table = table_with("scale", "images", "side")
    for row, measured in zip(table.rows, results("loading")["rows"], strict=True):
        images, side, rate, ratio, target = row
        assert (images, side.replace("`", "")) == (measured["what"], measured["side"])
        check_rounded(rate, measured["images/s and core"])
        check_rounded(ratio.replace("**", ""), measured["times timm"])
        assert numbers(target) == ([] if measured["target"] is None else [measured["target"]])


def test_times_with_the_teacher_cache():
    for row, measured in zip(
        table_with("scale", "teacher").rows, results("teacher_cache")["rows"], strict=True
    ):
        _, parameters, asked, teacher, read_back, speedup = row
        check_rounded(parameters, measured["parameters"] / 1e6)
        check_rounded(asked, measured["asked, ms"]["step"])
        check_rounded(teacher, measured["asked, ms"]["teacher"])
        check_rounded(read_back, measured["read, ms"]["step"])
        check_rounded(speedup.replace("**", ""), measured["times faster"])


# --- gains of seeds ----------------------------------------------------------------------------------------------

SEEDS = [
    (page_name(page), table)
    for page in PAGES
    for table in tables(page)
    if any(title == "gain of each seed" for title in table.header)
]


def test_there_are_tables_of_seeds():
    assert {name for name, _ in SEEDS} == {"docs/distil.md", "docs/prune.md"}


@pytest.mark.parametrize(("name", "table"), SEEDS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(SEEDS)])
def test_gains_and_intervals_follow_from_the_seeds(name, table):
    """The gain is the mean of the seeds' gains, ± half of its 95 % interval, and the difference to the baseline."""
    gains, top1 = table.column("gain over"), table.column("top-1")
    (baseline,) = [number(row[top1]) for row in table.rows if row[gains] == "–"]
    for row in table.rows:
        if row[gains] == "–":
            continue
        seeds = numbers(row[-1])
        mean, low, high = interval(seeds)
        said, half = row[gains].split(" ± ")
        check_rounded(said, mean)
        check_rounded(half, (high - low) / 2)
        if "seeds" in table.header:
            assert int(row[table.column("seeds")]) == len(seeds)
        # Means of fewer seeds are compared with those seeds of the baseline, which the table does not have.
        if len(seeds) == max(len(numbers(each[-1])) for each in table.rows):
            assert number(row[top1]) - baseline == pytest.approx(mean, abs=0.151)


# --- README ------------------------------------------------------------------------------------------------------


def test_readme_is_short():
    assert len(read(README).splitlines()) <= 200


def test_results_of_the_readme_are_those_of_the_linked_pages():
    """Each figure, with its interval and number of seeds, stands on the page that its row links to."""
    (table,) = [each for each in tables(README) if each.header[-1] == "in full"]
    assert len(table.rows) >= 5
    for _, result, measured, link in table.rows:
        (page,) = re.findall(r"\]\((docs/\w+\.md)\)", link)
        text = read(ROOT / page)
        figures = re.findall(rf"{NUMBER.pattern}(?: ± [\d.]+)?", result)
        assert figures
        for figure in figures:
            assert figure in text, f"{page} does not have {figure}"
        for seeds in re.findall(r"(\d+) seeds", measured):
            assert re.search(rf"--seeds {seeds}\b|\b{seeds} seeds", text), f"{page}: {seeds} seeds"


def test_orderings_of_the_readme_are_those_of_the_reproduction():
    (row,) = [row for table in tables(README) for row in table.rows if "docs/reproduction.md" in row[-1]]
    counts = read(DOCS / "reproduction.md").partition("## Summary\n\n- ")[2].partition("\n")[0]
    assert sorted(numbers(row[1])) == sorted(numbers(counts))


def test_versions_of_the_readme_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[>=]+", each)[0]: each.partition(">=")[2] for each in project["dependencies"]}
    wanted["Python"] = project["requires-python"].removeprefix(">=")
    stated = dict(re.findall(r"(\w+) ≥ ([\d.]*\d)", read(README)))
    assert set(stated) >= {"Python", "torch", "timm"}
    assert stated == {name: wanted[name] for name in stated}


# --- all pages ---------------------------------------------------------------------------------------------------


def test_no_sentence_stands_on_two_pages():
    sentences = {page.name: {each for each in prose(page) if len(each.split()) > 8} for page in PAGES}
    repeated = {
        (a, b): sentences[a] & sentences[b]
        for a, b in combinations(sentences, 2)
        if sentences[a] & sentences[b]
    }
    assert repeated == {}


def test_methods_are_described_under_the_same_headings():
    """So that a reader finds what is exact, what it costs and when not to use it at the same place on each."""
    first, *others = [re.findall(r"^## (.+)$", read(DOCS / f"{name}.md"), re.MULTILINE) for name in METHODS]
    assert len(first) >= 5
    assert all(titles == first for titles in others)


def test_every_picture_exists_and_has_a_text_alternative():
    for page in PAGES:
        for words, file in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", read(page)):
            assert (page.parent / file).is_file(), f"{page.name}: {file}"
            assert len(words.split()) > 5, f"{page.name}: {file}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=page_name)
def test_links_lead_to_files_that_exist(page):
    for link in re.findall(r"\]\(([^)]+)\)", read(page)):
        file = link.partition("#")[0]
        # commands.md is generated when the site is built.
        if file and ":" not in file and file != "commands.md":
            assert (page.parent / file).exists(), link


def test_paths_of_the_repository_on_pages_exist():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for path in re.findall(
            r"`((?:recipes|benchmarks|src|tests|docs|reproduction)/[\w./*-]+)`", read(page)
        ):
            assert list(ROOT.glob(path)) or is_written_by(page, path), f"{page.name}: {path}"


def is_written_by(page: Path, path: str) -> bool:
    """Whether a page tells the reader to write this file."""
    return bool(re.search(rf'(?:`{re.escape(path)}`:\n\n```|title="{re.escape(path)}")', read(page)))


def test_names_of_the_api_page_exist():
    """mkdocstrings leaves out members that do not exist, without a warning."""
    listed = re.findall(
        r"^::: (\S+)$(?:\n +options:\n +members: \[(.*)\])?", read(DOCS / "api.md"), re.MULTILINE
    )
    assert len(listed) > 20
    for name, members in listed:
        owner = pkgutil.resolve_name(name)
        for member in filter(None, members.split(", ")):
            assert hasattr(owner, member), f"{name}.{member}"


# --- CONTRIBUTING ------------------------------------------------------------------------------------------------

SOURCE = ROOT / "src" / "isometry"


def named_in_the_tree() -> set[str]:
    """Paths under src/isometry, from the indentation of the annotated tree."""
    (tree,) = re.findall(
        r"^```\nsrc/isometry/\n(.*?)^```", read(ROOT / "CONTRIBUTING.md"), re.MULTILINE | re.DOTALL
    )
    named, parents = set(), [""]
    for line in tree.splitlines():
        indent, name = re.match(r"( +)(\S+)", line).groups()
        depth = len(indent) // 2
        parents[depth:] = [parents[depth - 1] + name]
        named.add(parents[depth])
    return named


def test_the_annotated_tree_is_that_of_the_package():
    named = named_in_the_tree()
    for path in named:
        assert (SOURCE / path).is_dir() if path.endswith("/") else (SOURCE / path).is_file(), path
    rooms = {f"{path.parent.relative_to(SOURCE)}/" for path in SOURCE.rglob("*.py") if path.parent != SOURCE}
    loose = {path.name for path in SOURCE.glob("*.py")}
    assert rooms | loose <= named
