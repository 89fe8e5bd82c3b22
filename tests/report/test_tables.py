import io

from rich.console import Console

from isometry.report.records.intervals import comparison_row, comparison_times, gains_over_untrained
from isometry.report.tables import (
    comparison_grid,
    comparison_table,
    correlations_grid,
    figures_grid,
    markdown_table,
    models_grid,
    models_shown,
    rich_table,
)

BASE = [92.0, 93.0, 94.0]
ROWS = [comparison_row("soft", BASE), comparison_row("soft+whole", [94.0, 96.0, 96.0], BASE)]


def shown(table, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_models(full):
    grid = models_grid(full.models)
    assert grid.header == ["model", "top-1 on test", "params", "MACs", "images/s", "training"]
    assert grid.rows[0] == ["cait", "96.4 %", "5.7 M", "363 M", "201", "1 min 04 s"]
    assert grid.rows[1] == ["KD alone", "92.8 %", "521 k", "30.1 M", "–", "–"]


def test_terminal_and_markdown_show_the_same_cells(full):
    grid = models_grid(full.models)
    terminal, markdown = shown(rich_table(models_grid(full.models))), markdown_table(models_grid(full.models))
    for row in grid.rows:
        for cell in row:
            assert cell in terminal
            assert cell in markdown


def test_parts_that_differ_are_named_in_each_cell():
    rows = [
        {"model": "a", "top1": 90.0, "top1_part": "test"},
        {"model": "b", "top1": 91.0, "top1_part": "val"},
    ]
    grid = models_grid(rows)
    assert grid.header == ["model", "top-1"]
    assert grid.rows == [["a", "90.0 % (test)"], ["b", "91.0 % (validation)"]]


def test_other_keys_become_columns():
    grid = models_grid(
        [{"model": "a", "role": "student", "top5": 99.12, "depth": 12, "head": "avg", "x": None}]
    )
    assert grid.header == ["model", "top5", "depth", "head"]
    assert grid.rows == [["a", "99.1", "12", "avg"]]


def test_comparison_markdown():
    assert markdown_table(comparison_grid(ROWS)) == (
        "| variant | seeds | top-1, % | gain over soft | gain of each seed |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| soft | 3 | 93.0 ± 2.5 | – | – |\n"
        "| soft+whole | 3 | 95.3 ± 2.9 | +2.3 ± 1.4 | +2.0 +3.0 +2.0 |\n"
    )


def test_comparison_table_in_the_terminal():
    text = shown(comparison_table(ROWS))
    for cell in ("soft+whole", "95.3 ± 2.9", "+2.3 ± 1.4", "gain over soft"):
        assert cell in text


def test_figures_stay_whole_in_a_narrow_terminal():
    long = [60.0, 700.0, 65.0]
    rows = [
        comparison_row("full size", BASE) | comparison_times(long),
        comparison_row("identity, moments reset", [94.0, 96.0, 96.0], BASE) | comparison_times(BASE, long),
    ]
    text = shown(comparison_table(rows), width=80)
    for line in comparison_grid(rows).rows:
        for cell in line[1:-1]:
            assert cell in text
    assert max(map(len, text.splitlines())) <= 80


def test_one_seed_has_no_interval():
    rows = [comparison_row("soft", [92.0]), comparison_row("whole", [91.5], [92.0])]
    assert "| whole | 1 | 91.5 | −0.5 | −0.5 |" in markdown_table(comparison_grid(rows))


def test_measured_times_stand_beside_the_gains():
    rows = [
        ROWS[0] | comparison_times([60.0, 61.0, 62.0]),
        ROWS[1] | comparison_times([48.0, 50.0, 50.0], [60.0, 61.0, 62.0]),
    ]
    assert (
        markdown_table(comparison_grid(rows))
        .splitlines()[0]
        .endswith("| training | speed-up over soft | gain of each seed |")
    )
    assert markdown_table(comparison_grid(rows)).splitlines()[2].endswith("| 1 min 01 s | – | – |")
    assert (
        markdown_table(comparison_grid(rows))
        .splitlines()[3]
        .endswith("| +2.3 ± 1.4 | 49 s | 1.24× ± 0.04 | +2.0 +3.0 +2.0 |")
    )
    assert "1.24× ± 0.04" in shown(comparison_table(rows))


def test_the_speed_up_of_one_seed_is_a_ratio_alone():
    rows = [
        comparison_row("full", [92.0]) | comparison_times([50.0]),
        comparison_row("grown", [91.5], [92.0]) | comparison_times([40.0], [50.0]),
    ]
    assert "| grown | 1 | 91.5 | −0.5 | 40 s | 1.25× | −0.5 |" in markdown_table(comparison_grid(rows))


def test_names_are_text_and_not_markup():
    name = "[red]a[/red] | <b>\nc"
    rows = [{"model": name, "top1": 1.0}]
    assert "[red]a[/red] | <b>" in shown(rich_table(models_grid(rows)))
    assert markdown_table(models_grid(rows)).splitlines()[2] == r"| \[red\]a\[/red\] \| &lt;b&gt; c | 1.0 % |"


def test_another_score_has_its_name_and_the_mean_of_ap50():
    rows = [{**comparison_row("soft", [40.0]), "ap50": 60.0}]
    assert markdown_table(comparison_grid(rows, "AP")).splitlines()[0] == (
        "| variant | seeds | AP, % | gain over soft | AP50, % | gain of each seed |"
    )


def test_gains_over_the_untrained_are_one_more_column():
    begun = [80.0, 82.0, 81.0]
    rows = [
        comparison_row("random", begun, BASE) | gains_over_untrained(begun, None),
        comparison_row("soft", BASE) | gains_over_untrained(BASE, begun),
    ]
    lines = markdown_table(comparison_grid(rows, "AP")).splitlines()
    assert lines[0] == "| variant | seeds | AP, % | gain over soft | gain over random | gain of each seed |"
    assert [line.split(" | ")[4] for line in lines[2:]] == ["–", "+12.0 ± 2.5"]


def test_figures_side_by_side_and_dashes_where_a_network_has_none():
    grid = figures_grid({"mAP": ROWS, "kept": ROWS[1:]})
    assert grid.header == ["variant", "mAP, %", "kept, %"]
    assert grid.rows == [["soft", "93.0 ± 2.5", "–"], ["soft+whole", "95.3 ± 2.9", "95.3 ± 2.9"]]


def test_figures_side_by_side_fit_a_terminal_without_their_intervals():
    names = ["recall@1", "recall@5", "mAP", "correspondence"]
    names += [f"kept neighbours, {what}" for what in ("images", "patches", "all patches")]
    table = figures_grid(dict.fromkeys(names, ROWS), short=True)
    assert table.rows[1] == ["soft+whole", *["95.3"] * 7]
    text = shown(rich_table(table), 80)
    assert "…" not in text
    assert text.count("95.3") == 7
    assert max(map(len, text.splitlines())) <= 80


def test_correlations_are_told_with_their_intervals_and_numbers():
    found = {"n": 35, "rho": 0.874, "low": -0.1, "high": 0.95}
    none = {"n": 2, "rho": None, "low": None, "high": None}
    grid = correlations_grid(
        {"boxes": {"figure": "kept", "score": "AP", "students": found, "variants": none}}
    )
    assert grid.rows == [["boxes: AP", "0.87 (−0.10 to 0.95)", "35", "–", "2"]]


DETECTOR = {
    "model": "vit_tiny_patch16_224",
    "role": "student",
    "task": "detect",
    **{"ap": 100.0, "ap50": 21.7, "ap75": 1.2, "ap_small": 0.4, "ap_medium": 7.1, "ap_large": None},
    **{
        "ap_low": 3.1,
        "ap_high": 9.2,
        "part": "val",
        "params": 419_852,
        "macs": 176_000_000,
        "seconds": 723.0,
    },
}


def test_a_narrow_terminal_shows_the_main_columns_whole_and_the_others_below():
    table, rest = models_shown([DETECTOR], 80)
    lines = shown(table, 80).splitlines()
    assert max(map(len, lines)) <= 80
    cells = [[cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in lines]
    assert ["model", "AP", "AP50", "params", "MACs", "training"] in cells
    assert ["vit_tiny_patch16_224", "100.0 %", "21.7 %", "420 k", "176 M", "12 min 03 s"] in cells
    assert rest == ["vit_tiny_patch16_224: AP75 1.2 %, AP small 0.4 %, AP medium 7.1 %, part validation"]


def test_a_wide_terminal_shows_all_columns():
    table, rest = models_shown([DETECTOR], 140)
    assert rest == []
    for name in ("AP75", "AP medium", "part", "training"):
        assert name in shown(table)


def test_a_table_of_classifiers_is_whole_at_80_columns():
    row = {"model": "deit_tiny_patch16_224", "top1": 91.4, "top1_part": "test", "params": 5_717_416}
    assert (
        models_shown([{**row, "macs": 1_258_000_000, "images_per_s": 1234.0, "seconds": 64.0}], 80)[1] == []
    )
