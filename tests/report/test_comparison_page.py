"""The page of several runs: its sections, its sentence, and what each group shows by itself."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from helpers.compared_runs import compared_run, two_variants, with_data
from helpers.epoch_times import ROWS
from helpers.growth_stages import GROWN
from helpers.html_page import Page
from helpers.pruning_rows import PRUNED
from isometry.report.comparison_page import comparison_headline, gain_rows, render_comparison
from isometry.report.records.data import common_part
from isometry.report.records.groups import group_runs
from isometry.report.records.intervals import comparison_row
from isometry.report.tables import comparison_grid

OWN = ("growth", "pruning", "cka", "times", "facts")


def page_of(runs, baseline="soft") -> Page:
    return Page(render_comparison(group_runs(runs), baseline, command="isometry report runs"))


def rich_runs():
    """Two variants, the second with everything that a run can show."""
    runs = two_variants()
    extra = {"stages": GROWN, "pruning": PRUNED, "times": ROWS, "marks": [(2.0, "depth 2")]}
    return [with_data(run, **extra) if "whole" in str(run.folder) else run for run in runs]


def test_every_section_is_there_and_in_order():
    page = page_of(rich_runs())
    top = [name for name in page.sections if not name.startswith("run-")]
    assert top == [
        "accuracy", "models", "training", "cost", "relations", "differences", "runs", "command",
    ]  # fmt: skip
    own = [name for name in page.sections if name.startswith("run-2-")]
    assert own == [f"run-2-{name}" for name in (*OWN, "commands", "config")]
    for text in (
        "2 variants, 6 runs",
        "Highest top-1 on the test part: whole with 94.0\u00a0%\u00a0± 0.0, above every other’s interval.",
        "+6.0 ± 5.0",
        "+6.0  +8.0  +4.0",
        "whole: depth 2 (epoch 2)",
        "losses.whole",
        "isometry distill --seed 2",
        "isometry report runs",
        "runs/soft/seed-1",
    ):
        assert text in page.text


def test_names_of_elements_are_unique_and_every_reference_finds_one():
    page = page_of(rich_runs())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {attributes["xlink:href"][1:] for tag, attributes in page.tags if tag == "use"}
    wanted |= {attributes["clip-path"][5:-1] for _, attributes in page.tags if "clip-path" in attributes}
    wanted |= {attributes["for"] for tag, attributes in page.tags if tag == "label"}
    assert any(name.startswith("run-2-") for name in wanted)
    assert wanted <= set(ids)


def test_headings_go_down_one_level_at_a_time():
    levels = [int(tag[1]) for tag, _ in page_of(rich_runs()).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_one_group_of_seeds_is_a_page_too():
    page = page_of([run for run in two_variants() if "soft" in str(run.folder)])
    assert "3 runs" in page.text
    assert "soft reaches 88.0\u00a0%\u00a0± 5.0 top-1 on the test part." in page.text
    assert "differences" not in page.sections
    assert page.text.count("block 1 ◄ 2") == 2


def test_blocks_and_runs_are_chosen_by_radio_buttons_without_a_script():
    page = page_of(two_variants())
    radios = [attributes for tag, attributes in page.tags if tag == "input"]
    assert all(radio["type"] == "radio" for radio in radios)
    assert [radio["id"] for radio in radios if "checked" in radio] == ["block-2", "run-2"]
    assert {radio["name"] for radio in radios} == {"block", "run"}
    assert page.count("script") == 0
    legends = [tag for tag, _ in page.tags if tag in ("fieldset", "legend")]
    assert legends == ["fieldset", "legend"] * 2


def test_every_picture_has_a_text_alternative():
    page = page_of(rich_runs())
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert all(attributes["aria-label"] for tag, attributes in page.tags if tag == "svg")
    assert sum(tag == "img" and "student after" in a["alt"] for tag, a in page.tags) == 4


def test_runs_with_nothing_make_a_page():
    runs = [with_data(run, epochs=[], models=[], relations=[], facts=[]) for run in two_variants()]
    page = page_of(runs)
    assert "No accuracy was measured in these runs." in page.text
    assert page.sections[0] == "differences"


def test_a_run_without_accuracy_takes_its_group_out_of_the_table_alone():
    runs = two_variants()
    runs[0] = with_data(runs[0], models=[])
    rows, unpaired = gain_rows(group_runs(runs), "soft")
    assert [row["name"] for row in rows] == ["whole"]
    assert unpaired == []
    assert "Top-1 accuracy" in page_of(runs).text


def test_gains_are_paired_by_seed_or_not_shown():
    runs = two_variants()
    rows, unpaired = gain_rows(group_runs(runs), "soft")
    assert rows[1]["gains"] == [6.0, 8.0, 4.0]
    assert unpaired == []
    rows, unpaired = gain_rows(group_runs(runs[:-1]), "soft")
    assert (rows[0]["gains"], rows[1]["gains"]) == (None, [])
    assert len(unpaired) == 1
    assert unpaired[0].startswith("whole has other seeds than soft")


def test_uneven_classes_have_their_mean_wherever_top1_is():
    runs = two_variants()
    for run in runs:
        run.data.models[1]["top1_by_class"] = run.data.models[1]["top1"] - 30.0
    rows, _ = gain_rows(group_runs(runs), "soft")
    assert [row["by_class_mean"] for row in rows] == [58.0, 64.0]
    table = comparison_grid(rows)
    place = table.header.index("mean of classes, %")
    assert [cells[place] for cells in table.rows] == ["58.0", "64.0"]
    assert "94.0 % ± 0.0 (mean of classes 64.0 %)" in comparison_headline(rows, None)
    assert "top-1 88.0 % (mean of classes 58.0 %)" in page_of(runs).text.replace("\u00a0", " ")
    assert (
        "mean of classes, %" not in comparison_grid(gain_rows(group_runs(two_variants()), "soft")[0]).header
    )


def test_figures_of_different_parts_are_not_compared():
    runs = [compared_run("r/a", 90.0), compared_run("r/b", 80.0, aa="rand")]
    runs[1].data.models[1]["top1_part"] = "val"
    groups = group_runs(runs)
    assert common_part([row for group in groups for row in group.students()]) is None
    rows, unpaired = gain_rows(groups, "a")
    assert rows[1]["gains"] == []
    assert len(unpaired) == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": [90, 91, 92], "b": [50, 51, 52]}, "above every other's interval"),
        ({"a": [90, 91, 92], "b": [89, 90, 91]}, "its interval overlaps that of b"),
        ({"a": [90, 91, 92], "b": [80, 85], "c": [10, 80]}, "its interval overlaps that of b and c"),
        ({"a": [90, 95], "b": [80, 95], "c": [80, 94], "d": [80, 93]}, "that of b, c and 1 more"),
        ({"a": [90, 91], "b": [50]}, "no interval over seeds, with one seed of b"),
        ({"a": [90], "b": [50, 51]}, "no interval over seeds, with one seed of a"),
        ({"a": [90, 91]}, "a reaches 90.5 % ± 6.4 top-1"),
        ({"a": [float("nan")]}, "No accuracy"),
    ],
)
def test_the_sentence_claims_no_more_than_the_intervals_do(values, expected):
    rows = [comparison_row(name, tops) for name, tops in values.items()]
    assert expected in comparison_headline(rows, None)


def test_hostile_names_stay_text():
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(2)>$\\frac$'
    runs = [compared_run(f"r/{name}{hostile}", 90.0, aa=name + hostile) for name in "ab"]
    runs = [
        with_data(
            replace(run, options=run.options | {hostile: hostile + name}),
            facts=[(hostile, hostile), ("Command", hostile)],
            relations=[replace(run.data.relations[0], block=hostile)],
            epochs=[row | {f"train/{hostile}": 1.0} for row in run.data.epochs],
            notes=[hostile],
            config_yaml=hostile,
            stages=[dict(row, model=hostile, by=hostile) for row in GROWN],
        )
        for run, name in zip(runs, "ab", strict=True)
    ]
    page = Page(render_comparison(group_runs(runs), hostile, command=hostile))
    assert page.count("script") == 0
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count("<script>alert(1)</script>") >= 20


def test_same_runs_same_characters():
    one, two = (render_comparison(group_runs(rich_runs()), "soft") for _ in range(2))
    assert one == two
