"""`python -m reproduction tables`: what it trains, keeps and refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from reproduction.__main__ import main
from reproduction.command import PAGE, PLAN, RESULTS, ReproduceConfig, command_line
from reproduction.pool import MEASURED

ROOT = Path(__file__).parents[2]
SMALL = ["--tables", "6", "--seeds", "1", "--overrides", "epochs=1", "warmup_epochs=0", "batch_size=300"]
ROWS = ["without-rs", "manifold-s24-tiny", "k-twice", "k-fourfold"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Table 6 with one seed and one epoch, from the repository's root."""
    out = tmp_path_factory.mktemp("reproduced") / "out"
    command = [sys.executable, "-m", "reproduction", "tables", *SMALL, "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "5 runs, 0 finished" in ended.stdout
    first, last = (next(line for line in ended.stdout.splitlines() if f"{n}/5" in line) for n in (1, 5))
    assert "teacher s24" in first
    assert "seed 0" in last
    assert "0 s left" in last
    return out


@pytest.mark.slow
def test_a_row_has_the_results_of_its_run(finished):
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
def test_the_page_is_marked_as_a_test_run_and_names_no_folder(finished):
    text = (finished / PAGE).read_text(encoding="utf-8")
    assert any(line.startswith("**") and "--overrides epochs=1" in line for line in text.splitlines())
    assert "python -m reproduction tables --tables 6 --seeds 1 --overrides epochs=1" in text
    assert str(finished) not in text + (finished / RESULTS).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_same_command_again_trains_nothing_and_rewrites_the_page(finished, capsys):
    wanted = (finished / PAGE).read_text(encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in finished.rglob(MEASURED)}
    (finished / PAGE).unlink()
    assert main(["tables", *SMALL, "--out", str(finished)]) == 0
    assert "5 runs, 5 finished" in capsys.readouterr().out
    assert (finished / PAGE).read_text(encoding="utf-8") == wanted
    assert {path: path.stat().st_mtime_ns for path in finished.rglob(MEASURED)} == before


@pytest.mark.slow
def test_a_folder_of_runs_with_other_settings_is_refused(finished, capsys):
    before = (finished / PLAN).read_text(encoding="utf-8")
    options = ["--tables", "6", "--seeds", "1", "--overrides", "epochs=2", "--out", str(finished)]
    assert main(["tables", *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"--out {finished}" in line
    assert PLAN in line
    assert (finished / PLAN).read_text(encoding="utf-8") == before


@pytest.mark.slow
def test_a_damaged_result_is_reported_in_one_line(finished, capsys):
    summary = finished / "runs" / "k-twice" / "seed-0" / "summary.json"
    kept = summary.read_text(encoding="utf-8")
    summary.write_text(kept[:40], encoding="utf-8")
    try:
        assert main(["tables", *SMALL, "--out", str(finished)]) == 2
    finally:
        summary.write_text(kept, encoding="utf-8")
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(summary) in line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["figures"], "figures: "),
        (["--seeds", "5"], "--seeds: "),
        (["tables", "--tables", "1", "2"], "--tables 1 2: "),
        (["tables", "--seeds", "0"], "--seeds 0: "),
        (["tables", "--processes", "0"], "--processes 0: "),
        (["tables", "--sedes", "3"], "--seeds"),
        (["tables", "--overrides", "epochz=3"], "epochz"),
        (["tables", "--out", ""], "--out: "),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(words, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert named in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["--help"], ["tables", "-h"]])
def test_help_has_the_options_and_an_example(words, capsys):
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "python -m reproduction tables" in out
    for name in ("--out", "--tables", "--seeds", "--processes", "--overrides"):
        assert name in out


def test_the_command_on_the_page_has_the_options_that_change_results():
    given = ReproduceConfig(out="somewhere", seeds=7, processes=4)
    assert command_line(given) == "python -m reproduction tables --seeds 7"
    some = ReproduceConfig(tables=[6, 3], overrides={"epochs": 2})
    assert command_line(some) == "python -m reproduction tables --tables 3 6 --seeds 5 --overrides epochs=2"
