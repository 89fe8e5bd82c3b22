"""Runs that differ only in their seed are one group, with a name from their folders."""

import pytest

from helpers.compared_runs import compared_run, two_variants
from isometry.report.records.groups import differences, group_runs


def names(*folders: tuple[str, int, str]) -> list[str]:
    """Of the groups of runs in (folder, seed, model)."""
    return [g.name for g in group_runs([compared_run(f, 90.0, s, model=m) for f, s, m in folders])]


def test_seeds_of_one_config_are_one_group_in_order():
    runs = two_variants()
    soft, whole = group_runs([runs[4], runs[1], runs[0], runs[3], runs[2], runs[5]])
    assert (soft.name, whole.name) == ("soft", "whole")
    assert soft.seeds == whole.seeds == [0, 1, 2]
    assert soft.shown is runs[0]
    assert soft.values("top1") == [88.0, 86.0, 90.0]


def test_what_changes_no_result_makes_no_group():
    runs = [
        compared_run(f"r/{seed}", 90.0, seed, workers=seed, device="cpu" if seed else "") for seed in range(2)
    ]
    assert len(group_runs(runs)) == 1


def test_a_seed_within_a_path_is_no_difference():
    runs = [compared_run(f"r/{s}", 90.0, s, model=f"local-dir:r/start/seed-{s}/student") for s in (1, 12)]
    assert len(group_runs(runs)) == 1
    other = compared_run("r/3", 90.0, 3, model="local-dir:r/start/seed-1/student")
    assert len(group_runs([*runs, other])) == 2


def test_a_seed_that_comes_again_is_no_further_evidence():
    runs = [compared_run(name, 90.0, seed) for name, seed in (("r/a", 0), ("r/b", 0), ("r/c", 1))]
    assert [group.seeds for group in group_runs(runs)] == [[0, 1], [0]]


def test_runs_without_a_config_stand_alone():
    runs = [compared_run(f"r/{name}", 90.0) for name in "ab"]
    for run in runs:
        run.options.clear()
    assert [group.seeds for group in group_runs(runs)] == [[None], [None]]


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        ([("r/soft/seed-0", 0, "a"), ("r/soft/seed-1", 1, "a"), ("r/whole/seed-0", 0, "b")], ["soft", "whole"]),
        ([("r/soft-seed-0", 0, "a"), ("r/soft-seed-1", 1, "a"), ("r/b", 0, "b")], ["soft", "b"]),
        ([("r/soft_1", 1, "a"), ("r/soft_2", 2, "a"), ("r/whole_1", 1, "b")], ["soft", "whole_1"]),
        ([("r/run10", 0, "a"), ("r/run11", 1, "a"), ("r/b", 0, "b")], ["run", "b"]),
        ([("r/x/seed-0", 0, "a"), ("r/x/seed-1", 1, "a")], ["x"]),
        ([("r/first", 0, "a"), ("r/second", 1, "a"), ("r/third", 0, "b")], ["first, second", "third"]),
        ([("r/x", 0, "a"), ("r/x/more", 0, "b")], ["x", "more"]),
        ([("r/a/seed-0", 0, "a"), ("r/a/seed-1", 0, "b")], ["seed-0", "seed-1"]),
    ],
)  # fmt: skip
def test_groups_are_called_after_what_their_folders_share(folders, named):
    assert names(*folders) == named


def test_differences_are_those_between_groups_alone():
    runs = [
        compared_run("r/a", 90.0, 0, **{"losses.soft": 1.0, "aa": None, "epochs": 3, "log": ["wandb"]}),
        compared_run("r/b", 90.0, 1, **{"losses.soft": 2.0, "aa": "rand", "epochs": 3, "taps": [0, 1]}),
    ]
    grid = differences(group_runs(runs))
    assert grid.header == ["option", "a", "b"]
    assert grid.rows == [["losses.soft", "1.0", "2.0"], ["aa", "–", "rand"], ["taps", "–", "[0, 1]"]]
