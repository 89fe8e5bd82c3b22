"""`isometry report`: a run's page again without data, and one page of several; as a person would ask for them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from helpers.compared_runs import compared_run
from helpers.runs import TINY_STUDENT, run
from isometry.cli.main import main
from isometry.cli.report import ReportConfig, other_tasks, report
from isometry.errors import UserError
from isometry.files import OUTPUTS
from isometry.report.records.data import TaskData

CONSOLE = Console(quiet=True)


@pytest.fixture(scope="module")
def runs(tiny_teacher, tmp_path_factory) -> Path:
    """A folder with two seeds of a distilled student and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    teacher = ["--teacher", f"local-dir:{tiny_teacher}", "--epochs", "1"]
    for name, seed, losses in (
        ("whole", 0, ["whole", "4"]),
        ("whole", 1, ["whole", "4"]),
        ("soft", 0, ["soft", "1"]),
    ):
        out = folder / "all" / name / f"seed-{seed}"
        ended = run(
            "distill", *TINY_STUDENT, *teacher, f"--losses.{losses[0]}", losses[1], "--seed", str(seed),
            "--out", str(out), said=folder / f"said-{name}-{seed}", report=True,
        )  # fmt: skip
        assert ended.code == 0, ended.err
    return folder / "all"


def test_a_page_is_drawn_again_to_the_last_character(runs, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(runs / "whole" / "seed-0", moved)
    page = (moved / "report.html").read_bytes()
    # Nothing but the record is needed: no data, no weights, no config.
    for path in moved.iterdir():
        if path.name not in ("report.json", "report.safetensors"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert report([str(moved)], ReportConfig(), CONSOLE) == moved / "report.html"
    assert (moved / "report.html").read_bytes() == page


def test_a_page_that_is_a_link_is_refused_and_not_written(tmp_path, capsys):
    for name in ("report.html", "report.html.new"):
        folder = tmp_path / name / "run"
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text('{"epoch": 1, "loss": 1.0}\n')
        (tmp_path / name / "keys").write_text("theirs")
        (folder / name).symlink_to(tmp_path / name / "keys")
        refused = name == "report.html"
        assert main(["report", str(folder)]) == (2 if refused else 0)
        assert (f"{folder / name}: is a link" in capsys.readouterr().err) is refused
        assert (tmp_path / name / "keys").read_text() == "theirs"


def test_the_record_holds_the_environment_and_a_command_for_a_shell(runs):
    page = (runs / "whole" / "seed-0" / "report.html").read_text(encoding="utf-8")
    for name in ("Machine", "Versions", "Command", "Seed"):
        assert f"<dt>{name}</dt>" in page


def test_runs_are_compared_from_the_command_line(runs, tmp_path):
    place = tmp_path / "page.html"
    ended = run("report", str(runs), "--out", str(place), "--baseline", "soft", said=tmp_path / "said")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == ["soft: 1 run, seed 0", "whole: 2 runs, seeds 0, 1", f"Report   {place}"]
    page = place.read_text(encoding="utf-8")
    for words in (
        "2 variants, 3 runs",
        "losses.whole",
        "Relation maps",
        "Layer by layer",
        "whole: relation map",
    ):
        assert words in page


def test_several_pages_go_to_where_one_stands(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert report([str(runs / "whole"), str(runs / "soft")], ReportConfig(), CONSOLE) == Path("report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == [OUTPUTS, "report.html"]
    assert "gain over whole" in Path("report.html").read_text(encoding="utf-8")


def test_a_page_of_the_users_and_one_that_was_edited_stay(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["report", str(runs / "whole"), str(runs / "soft")]
    page = Path("report.html")
    for content in ("", "<!doctype html><title>My report</title>"):
        page.write_text(content)
        assert main(words) == 2
        assert "report.html: isometry has no record of writing this file" in capsys.readouterr().err
        assert page.read_text() == content
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    page.unlink()
    assert main(words) == main(words) == 0
    page.write_text(page.read_text(encoding="utf-8") + "<!-- my notes -->", encoding="utf-8")
    assert main(words) == 2
    assert "report.html: was changed since isometry wrote it" in capsys.readouterr().err
    Path(OUTPUTS).unlink()
    assert main(words) == 2
    assert "report.html: isometry has no record of writing this file" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8").endswith("<!-- my notes -->")
    page.unlink()
    assert main(words) == 0


def test_bad_input_gets_one_line(runs, tmp_path):
    assert main(["report"]) == 2
    with pytest.raises(UserError, match="folder"):
        report([str(tmp_path / "missing")], ReportConfig(), CONSOLE)
    with pytest.raises(UserError, match=r"--baseline hard: .*soft, whole"):
        report([str(runs)], ReportConfig(baseline="hard", out=str(tmp_path / "x.html")), CONSOLE)
    with pytest.raises(UserError, match="could not save: there is no folder"):
        report([str(runs)], ReportConfig(out=str(tmp_path / "no" / "x.html")), CONSOLE)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_said_aloud_and_still_makes_a_page(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs / "soft" / "seed-0", folder)
    record = folder / "report.json"
    record.write_text(record.read_text()[:-30])
    ended = run("report", str(folder), "--out", str(tmp_path / "x.html"), said=tmp_path / "said")
    assert ended.code == 0, ended.err
    assert "report.json: " in ended.out
    assert "report.json: " in (tmp_path / "x.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("out", "page"), [("both", "both.html"), ("there", "there/report.html"), ("b.c", "b.c")]
)
def test_a_page_has_an_ending_or_a_folder(out, page, runs, tmp_path):
    (tmp_path / "there").mkdir()
    assert report([str(runs)], ReportConfig(out=str(tmp_path / out)), CONSOLE) == tmp_path / page
    assert (tmp_path / page).read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_runs_of_different_tasks_are_noted():
    plain = compared_run("a", 90.0)
    boxes, masks = (
        replace(plain, data=replace(plain.data, task=TaskData(task, "test", 3, {}, [])))
        for task in ("detect", "segment")
    )
    assert other_tasks([boxes, boxes]) == other_tasks([plain, plain]) == []
    (note,) = other_tasks([boxes, masks, plain])
    assert note.endswith("whose scores don't compare: boxes, masks, classes")
