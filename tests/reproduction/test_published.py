"""The transcribed figures of the paper: against a second transcription, and for consistency."""

import pytest
from reproduction.published import published

QUOTED = {
    "manifold-s24-tiny": 75.06,
    "manifold-s24-small": 81.48,
    "manifold-xxs24-tiny": 74.46,
    "manifold-xxs24-small": 80.25,
    "hard-s24-tiny": 74.39,
    "hard-s24-small": 81.27,
    "hard-regnety-tiny": 74.48,
    "hard-regnety-small": 81.16,
}
"""Figures of Table 2 that other files of this repository quote."""

COLUMNS = {
    2: [74.48, 81.16, 73.86, 80.11, 74.39, 81.27, 74.46, 80.25, 75.06, 81.48],
    3: [75.06, 74.62, 74.54, 74.63],
    4: [75.06, 74.72, 74.90, 74.73],
    5: [74.50, 75.06, 74.30, 74.31],
    6: [74.62, 75.06, 74.95, 74.81],
    7: [74.31, 74.46, 81.41, 81.48],
}
"""The last column of each table, from the top."""

TABLES = published().tables


def test_tables_2_to_7_have_the_printed_column():
    assert {number: [row.top1 for row in table.rows] for number, table in TABLES.items()} == COLUMNS


def test_figures_quoted_elsewhere_are_in_table_2():
    rows = {row.run: row.top1 for row in TABLES[2].rows}
    assert {run: rows[run] for run in QUOTED} == QUOTED


def test_a_run_has_the_same_figure_in_all_tables():
    found: dict[str, set[float]] = {}
    for table in TABLES.values():
        for row in table.rows:
            found.setdefault(row.run, set()).add(row.top1)
    assert {run: figures for run, figures in found.items() if len(figures) > 1} == {}


def test_a_teacher_has_the_same_accuracy_in_every_row():
    teachers = {(row.cells[0], row.cells[1]) for row in TABLES[2].rows}
    assert teachers == {("RegNetY-16GF", "82.9"), ("CaiT-XXS24", "77.6"), ("CaiT-S24", "82.7")}


@pytest.mark.parametrize("number", TABLES)
def test_rows_have_a_cell_per_column_and_distinct_runs(number):
    table = TABLES[number]
    assert all(len(row.cells) == len(table.columns) for row in table.rows)
    assert len(set(table.runs)) == len(table.rows)


@pytest.mark.parametrize("number", TABLES)
def test_orderings_are_those_of_the_printed_figures(number):
    table = TABLES[number]
    for ordering in table.orderings:
        assert {ordering.ahead, ordering.behind} <= set(table.runs)
        gain = table.gain(ordering)
        assert abs(gain) < 0.05 if ordering.close else gain > 0


def test_the_gains_in_the_papers_text_follow_from_its_table():
    """Section 4.2: 0.58 and 0.32 over the baseline."""
    gains = {(o.ahead, o.behind): TABLES[2].gain(o) for o in TABLES[2].orderings}
    assert gains["manifold-s24-tiny", "hard-regnety-tiny"] == pytest.approx(0.58)
    assert gains["manifold-s24-small", "hard-regnety-small"] == pytest.approx(0.32)


def test_every_other_row_of_an_ablation_is_behind_the_papers_method():
    for number in (3, 4, 5, 6):
        table = TABLES[number]
        behind = {ordering.behind for ordering in table.orderings}
        assert behind | {"manifold-s24-tiny"} == set(table.runs)


def test_figure_4_compares_its_own_curves():
    figure = published().figure
    assert (figure.number, len(figure.curves)) == (4, 3)
    assert all({ordering.ahead, ordering.behind} <= set(figure.runs) for ordering in figure.orderings)
    assert {ordering.measure for ordering in figure.orderings} == {"level", "steadiness"}


def test_the_specifications_are_those_of_table_1():
    rows = {row["name"]: (row["params"], row["macs"]) for row in published().networks}
    assert rows == {
        "RegNetY-16GF": ("84M", "15.9B"),
        "DeiT-Tiny": ("6M", "1.2B"),
        "DeiT-Small": ("22M", "4.6B"),
        "CaiT-XXS24": ("12M", "2.5B"),
        "CaiT-S24": ("46.9M", "9.4B"),
    }
