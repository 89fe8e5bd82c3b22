"""`python -m reproduction tables` as a person gives it."""

import json
from pathlib import Path

import pytest
from reproduction.command import PAGE, PLAN, RESULTS, ReproduceConfig, command_line
from reproduction.pool import MEASURED

from helpers.runs import start
from isometry.cli.main import main

SHRUNK = ["--tables", "6", "--seeds", "1", "--overrides", "epochs=1", "warmup_epochs=0", "batch_size=300"]
ROWS = ["without-rs", "manifold-s24-tiny", "k-twice", "k-fourfold"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Table 6 with one seed and one epoch."""
    out = tmp_path_factory.mktemp("reproduced") / "out"
    ended = start("reproduce", "tables", *SHRUNK, "--out", str(out), said=out.with_name("said")).wait(600)
    assert (ended.code, ended.err) == (0, "")
    assert "5 runs, 0 finished already" in ended.out
    assert "1/5 · teacher s24" in ended.out
    assert "5/5 · k-fourfold · seed 0" in ended.out or "5/5 · k-twice · seed 0" in ended.out
    assert ended.out.count("about 0 s left") == 1
    return out


@pytest.mark.slow
def test_a_row_has_what_its_run_left(finished):
    results = json.loads((finished / RESULTS).read_text(encoding="utf-8"))
    assert list(results["runs"]) == ROWS
    assert results["measured"]["runs"] == 5
    assert results["overrides"] == {"epochs": 1, "warmup_epochs": 0, "batch_size": 300}
    for name in ROWS:
        rows = json.loads((finished / "runs" / name / "seed-0" / "summary.json").read_text(encoding="utf-8"))
        assert results["runs"][name]["top1"] == [rows[-1]["top1"]]
        assert [len(curve) for curve in results["runs"][name]["curves"]] == [1]
    assert results["networks"]["s24"]["top1"] == rows[0]["top1"]


@pytest.mark.slow
def test_the_page_says_that_it_is_a_shrink(finished):
    text = (finished / PAGE).read_text(encoding="utf-8")
    assert "**A shrink, whose figures say nothing" in text
    assert "python -m reproduction tables --tables 6 --seeds 1 --overrides epochs=1" in text
    assert str(finished) not in text + (finished / RESULTS).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_same_command_again_trains_nothing_and_writes_the_page_anew(finished, capsys):
    wanted = (finished / PAGE).read_text(encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in finished.rglob(MEASURED)}
    (finished / PAGE).unlink()
    assert main(["reproduce", "tables", *SHRUNK, "--out", str(finished)]) == 0
    assert "5 runs, 5 finished already" in capsys.readouterr().out
    assert (finished / PAGE).read_text(encoding="utf-8") == wanted
    assert {path: path.stat().st_mtime_ns for path in finished.rglob(MEASURED)} == before


@pytest.mark.slow
def test_finished_runs_of_another_plan_are_not_taken_for_ones_own(finished, capsys):
    words = ["--tables", "6", "--seeds", "1", "--overrides", "epochs=2", "--out", str(finished)]
    before = (finished / PLAN).read_text(encoding="utf-8")
    assert main(["reproduce", "tables", *words]) == 2
    assert "holds runs of another plan" in capsys.readouterr().err
    assert (finished / PLAN).read_text(encoding="utf-8") == before


@pytest.mark.slow
def test_a_damaged_result_is_said_in_one_line(finished, capsys):
    summary = finished / "runs" / "k-twice" / "seed-0" / "summary.json"
    kept = summary.read_text(encoding="utf-8")
    summary.write_text(kept[:40], encoding="utf-8")
    try:
        assert main(["reproduce", "tables", *SHRUNK, "--out", str(finished)]) == 2
    finally:
        summary.write_text(kept, encoding="utf-8")
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "summary.json: can't be read" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reproduce"], "there is only reproduce tables"),
        (["reproduce", "figures"], "reproduce figures: there is only reproduce tables"),
        (["reproduce", "tables", "--tables", "1", "2"], "--tables 1 2: give some of 2 3 4 5 6 7"),
        (["reproduce", "tables", "--seeds", "0"], "--seeds 0: must be at least 1"),
        (["reproduce", "tables", "--processes", "0"], "--processes 0: must be at least 1"),
        (["reproduce", "tables", "--sedes", "3"], "--sedes: no such option; did you mean --seeds"),
        (["reproduce", "tables", "--overrides", "epochz=3"], "--overrides: epochz: no such key"),
        (["reproduce", "tables", "--out", ""], "--out: no folder given"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_the_command_on_the_page_has_what_changes_the_results_and_no_place():
    given = ReproduceConfig(out="somewhere", seeds=7, processes=4)
    assert command_line(given) == "python -m reproduction tables --seeds 7"
    some = ReproduceConfig(tables=[6, 3], overrides={"epochs": 2})
    assert command_line(some) == "python -m reproduction tables --tables 3 6 --seeds 5 --overrides epochs=2"
