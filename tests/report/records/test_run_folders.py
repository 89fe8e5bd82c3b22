"""The folders of runs, found and read: with their record, without it, and damaged."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.compared_runs import compared_run
from helpers.growth_stages import GROWN
from isometry.errors import UserError
from isometry.report.page import render_report
from isometry.report.records.record import RECORD, write_record
from isometry.report.records.run_folders import find_runs, notes_of, read_run

FORM = {"form": "dense", "params": 9, "macs": 7, "top1": 90.0, "top1_part": "test"}
SPEED = {"batch_size": 1, "ms": 2.0, "ms_low": 1.9, "ms_high": 2.2, "images_per_s": 500.0, "peak_bytes": None}


def old_folder(folder: Path) -> Path:
    """A run as versions without a record left it."""
    data = compared_run("x", 90.0).data
    folder.mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in data.epochs)
    (folder / "metrics.jsonl").write_text(lines)
    (folder / "summary.json").write_text(json.dumps(data.models))
    (folder / "stages.json").write_text(json.dumps(GROWN))
    (folder / "config.yaml").write_text(
        "seed: 3\nlosses:\n  soft: 1\nmodel_kwargs: {}\ngrow:\n  depth: null\n"
    )
    return folder


def test_a_folder_of_folders_stands_for_its_runs(tmp_path):
    for name in ("a/seed-10", "a/seed-9", "b"):
        old_folder(tmp_path / name)
    (tmp_path / "b" / "student").mkdir()
    (tmp_path / "again").symlink_to(tmp_path / "b")
    found = find_runs([str(tmp_path), str(tmp_path / "b")])
    assert found == [tmp_path / "a/seed-9", tmp_path / "a/seed-10", tmp_path / "b"]
    assert find_runs([str(tmp_path / "b"), str(tmp_path)])[0] == tmp_path / "b"


def test_a_comparisons_teacher_is_no_variant_unless_it_is_named(tmp_path):
    for name in ("teacher", "soft/seed-0"):
        old_folder(tmp_path / name)
    (tmp_path / "plan.yaml").write_text("soft: {}\n")
    assert find_runs([str(tmp_path)]) == [tmp_path / "soft/seed-0"]
    assert find_runs([str(tmp_path / "teacher")]) == [tmp_path / "teacher"]


def test_what_holds_no_run_is_said(tmp_path):
    with pytest.raises(UserError, match="folder"):
        find_runs([str(tmp_path / "missing")])
    with pytest.raises(UserError, match="no run"):
        find_runs([str(tmp_path)])


def test_a_record_is_all_that_is_needed(full, tmp_path):
    write_record(
        tmp_path, replace(full, config_yaml="seed: 5\nlosses: {soft: 1, whole: {weight: 2, k: 3}}\n")
    )
    run = read_run(tmp_path)
    assert run.seed == 5
    assert run.options.items() >= {
        "losses.soft": 1, "losses.whole.weight": 2, "losses.whole.k": 3, "grow.ema": "restart"
    }.items()  # fmt: skip
    assert run.data.notes == full.notes
    assert run.data.relations


def test_an_older_run_has_its_tables_and_curves_and_a_note(tmp_path):
    run = read_run(old_folder(tmp_path / "run"))
    assert run.data.title == "student vit_tiny ◄ teacher cait"
    assert len(run.data.epochs) == 5
    assert run.data.stages == GROWN
    assert (
        run.options.items()
        >= {"seed": 3, "losses.soft": 1, "grow.depth": None, "grow.ema": "restart"}.items()
    )
    (note,) = run.data.notes
    assert "older version" in note
    page = render_report(run.data)
    assert "seed: 3" in page
    assert "87.6" not in page
    assert 'id="growth"' in page
    assert 'id="relations"' not in page


def test_a_run_that_is_not_finished_shows_its_curves(tmp_path):
    folder = old_folder(tmp_path / "run")
    (folder / "summary.json").unlink()
    run = read_run(folder)
    assert run.data.title == "run"
    assert run.data.notes == ["not finished, so only tables and curves are shown"]
    assert "Top-1 accuracy" in render_report(run.data)


def test_a_damaged_record_leaves_tables_and_curves_and_says_so(full, tmp_path):
    folder = old_folder(tmp_path / "run")
    write_record(folder, full)
    path = folder / RECORD
    path.write_bytes(path.read_bytes()[:-100])
    run = read_run(folder)
    (note,) = run.data.notes
    assert note.startswith("report.json: ")
    assert note.endswith("so its maps and pictures are not shown, only tables and curves")
    assert len(run.data.epochs) == 5


@pytest.mark.parametrize(
    "content", [b'{"epoch": 1', b"[1]\n", b"\xff\xfe\n", b'{"epoch": {}}\n', b"1" * 5000 + b"\n"]
)
def test_a_table_that_can_not_be_read_is_left_out_and_named(tmp_path, content):
    folder = old_folder(tmp_path / "run")
    (folder / "metrics.jsonl").write_bytes(content)
    run = read_run(folder)
    assert run.data.epochs == []
    assert [note for note in run.data.notes if note.startswith("metrics.jsonl: can't be read")]
    render_report(run.data)


def test_a_config_of_an_earlier_version_has_its_options_under_their_present_names(tmp_path):
    folder = old_folder(tmp_path / "run")
    (folder / "config.yaml").write_text("seed: 3\nlog_tensorboard: true\nlog_wandb: false\n")
    options = read_run(folder).options
    assert options["log"] == ["tensorboard"]
    assert "log_tensorboard" not in options


def test_a_config_with_an_option_that_no_longer_exists_names_it(tmp_path):
    folder = old_folder(tmp_path / "run")
    (folder / "config.yaml").write_text("seed: 3\nno_longer_known: 1\n")
    run = read_run(folder)
    assert run.options == {}
    assert [note for note in run.data.notes if "no_longer_known" in note]


def test_a_config_that_is_none_is_named(tmp_path):
    folder = old_folder(tmp_path / "run")
    (folder / "config.yaml").write_text("seed: !!python/object/apply:os.getcwd []\n")
    run = read_run(folder)
    assert run.options == {}
    assert any(note.startswith("config.yaml: ") for note in run.data.notes)


@pytest.mark.parametrize("text", ["- 1\n", "just text\n"])
def test_a_config_without_options_is_none(tmp_path, text):
    folder = old_folder(tmp_path / "run")
    (folder / "config.yaml").write_text(text)
    assert read_run(folder).options == {}


def bench_file(folder: Path, **changed) -> None:
    forms = [FORM | {"speeds": [SPEED], "runtimes": [{"runtime": "eager", "speeds": [SPEED]}]} | changed]
    (folder / "bench.json").write_text(json.dumps({"name": "run", "forms": forms, "conditions": {}}))


def test_what_bench_measured_is_read(tmp_path):
    folder = old_folder(tmp_path / "run")
    bench_file(folder)
    run = read_run(folder)
    assert run.bench["name"] == "run"
    assert run.bench["forms"][0]["runtimes"][0]["speeds"] == [SPEED]


def test_what_bench_could_not_run_has_dashes(tmp_path):
    folder = old_folder(tmp_path / "run")
    bench_file(folder, refused={"onnx": "no such operator"}, another={"version": ["says", "more"]})
    run = read_run(folder)
    page = render_report(run.data, run.bench)
    assert list(run.bench["forms"][0]["refused"]) == ["onnx"]
    assert "<td>onnx</td><td>–</td>" in page


@pytest.mark.parametrize(
    "changed", [{"runtimes": []}, {"runtimes": 3}, {"runtimes": [{"runtime": "eager"}]}, {"form": None}]
)
def test_a_bench_that_can_not_be_read_is_left_out_and_named(tmp_path, changed):
    folder = old_folder(tmp_path / "run")
    bench_file(folder, **changed)
    run = read_run(folder)
    assert run.bench == {}
    assert any(note.startswith("bench.json: can't be read") for note in run.data.notes)


def test_a_note_of_many_runs_is_said_once(tmp_path):
    runs = [read_run(old_folder(tmp_path / name)) for name in "abc"]
    runs[0].data.notes.append("burnt")
    assert [note.partition(": ")[0] for note in notes_of(runs)] == ["3 of 3 runs", str(tmp_path / "a")]
    assert notes_of(runs[:1])[1] == "burnt"
