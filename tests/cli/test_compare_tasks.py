"""`isometry compare` with tasks: each variant's network, an untrained one, and that of a teacher made in steps."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from scipy.stats import spearmanr

from helpers.runs import Ended, run
from helpers.scenes import few_scenes
from isometry.cli.compare_results import OUTPUTS, TaskResults, score_rows
from isometry.files import check_replaceable

COMMON = {"dataset": "digit-scenes", "img_size": 96, "in_chans": 1, "workers": 0, "device": "cpu"}
SIZE = {"patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}
SHORT = {"epochs": 1, "batch_size": 10, "warmup_epochs": 0}
STUDENT = {
    **COMMON,
    **SHORT,
    "student": "vit_tiny_patch16_224",
    "student_kwargs": SIZE,
    "validation_batch_size": 20,
    "losses": {"soft": 1, "whole": 1},
}
DATA = {"dataset": "digit-scenes", "workers": 0, "device": "cpu"}
COMPARISON = {
    "base": "student.yaml",
    "teacher_recipe": [
        {
            **COMMON,
            **SHORT,
            "task": "segment",
            "model": "vit_tiny_patch16_224",
            "model_kwargs": {**SIZE, "embed_dim": 32},
        },
        {**DATA, **SHORT, "task": "classify", "freeze": True},
    ],
    "baseline": "soft",
    "variants": {
        "random": {"untrained": True},
        "soft": {"losses": {"soft": 1}},
        "whole": {},
    },
    "tasks": {
        "boxes": {**DATA, **SHORT, "task": "detect"},
        "masks, frozen": {**DATA, **SHORT, "task": "segment", "freeze": True},
    },
}
KEPT = "kept neighbours, all patches"
NAMES = ["random", "soft", "whole", "teacher"]


def write_recipes(folder: Path, **changes) -> Path:
    (folder / "student.yaml").write_text(yaml.safe_dump(STUDENT))
    path = folder / "scenes.yaml"
    path.write_text(yaml.safe_dump({**COMPARISON, **changes}, sort_keys=False))
    return path


def compared(recipe: Path, out: Path, *words: str) -> Ended:
    words = ("compare", "--config", str(recipe), "--out", str(out), *words)
    return run(*words, said=out.with_name("said"), prepare=few_scenes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Path, Ended]:
    folder = tmp_path_factory.mktemp("tasks")
    recipe, out = write_recipes(folder), folder / "out"
    ended = compared(recipe, out, "--seeds", "2")
    assert (ended.code, ended.err) == (0, "")
    return recipe, out, ended


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())[-1]


def lines_of(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (out / "comparison.csv").open(encoding="utf-8", newline="") as file:
        return {(row["variant"], row["seed"]): row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_the_csv_holds_what_every_run_of_a_task_reached(finished):
    _, out, _ = finished
    rows = lines_of(out)
    assert list(rows) == [(name, seed) for name in NAMES for seed in ("0", "1")]
    for (name, seed), row in rows.items():
        for task, key in (("boxes", "ap"), ("boxes", "ap50"), ("masks, frozen", "miou")):
            told = summary(out / "tasks" / task / name / f"seed-{seed}")
            assert float(row[f"{task} {key}"]) == told[key]
    for task, key in (("boxes", "ap"), ("masks, frozen", "miou")):
        for (name, seed), row in rows.items():
            gained = float(row[f"{task} {key}"]) - float(rows["soft", seed][f"{task} {key}"])
            assert row[f"{task} gain"] == "" if name == "soft" else float(row[f"{task} gain"]) == gained
    assert {(name, row["top1"] == "") for (name, _), row in rows.items()} == {
        (name, name in ("random", "teacher")) for name in NAMES
    }


@pytest.mark.slow
def test_a_task_starts_from_the_network_of_its_variant_and_seed(finished):
    _, out, _ = finished
    for name in NAMES:
        for seed in (0, 1):
            own = out / name / f"seed-{seed}" / "student"
            own = out / "teacher" / "2" / "student" if name == "teacher" else own
            begun = yaml.safe_load(
                (out / "tasks" / "masks, frozen" / name / f"seed-{seed}" / "config.yaml").read_text()
            )
            assert (begun["model"], begun["seed"]) == (f"local-dir:{own}", seed)
            # Its backbone is frozen.
            after = load_file(
                out / "tasks" / "masks, frozen" / name / f"seed-{seed}" / "student" / "model.safetensors"
            )
            before = load_file(own / "model.safetensors")
            assert all(torch.equal(before[key], after[key]) for key in after)


@pytest.mark.slow
def test_an_untrained_network_is_that_of_its_runs_first_step(finished, tmp_path):
    """Of the seed: a run whose learning rate is 0 ends with the same weights."""
    _, out, _ = finished
    recipe = tmp_path / "still.yaml"
    still = {"seed": 1, "losses": {"ce": 1}, "lr": 0, "min_lr": 0, "warmup_lr": 0}
    recipe.write_text(yaml.safe_dump(STUDENT | still))
    words = ["--config", str(recipe), "--out", str(tmp_path / "run")]
    ended = run("train", *words, said=tmp_path / "said", prepare=few_scenes)
    assert ended.code == 0, ended.err
    still = load_file(tmp_path / "run" / "student" / "model.safetensors")
    found = [load_file(out / "random" / f"seed-{seed}" / "student" / "model.safetensors") for seed in (0, 1)]
    assert all(torch.equal(still[name], found[1][name]) for name in still)
    assert not torch.equal(found[0]["patch_embed.proj.weight"], found[1]["patch_embed.proj.weight"])


@pytest.mark.slow
def test_the_teacher_of_the_students_is_the_last_step_with_the_firsts_weights(finished):
    _, out, _ = finished
    teachers = yaml.safe_load((out / "whole" / "seed-0" / "config.yaml").read_text())["teacher"]
    assert teachers == f"local-dir:{out}/teacher/2/student"
    first, last = (load_file(out / "teacher" / step / "student" / "model.safetensors") for step in ("1", "2"))
    assert all(torch.equal(first[name], last[name]) for name in first)
    assert {name for name in last if name not in first} == {"head.weight", "head.bias"}


@pytest.mark.slow
def test_tables_json_and_pictures_have_each_task(finished):
    _, out, ended = finished
    found = json.loads((out / "comparison.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["soft", "whole"]
    assert {name: (task["task"], task["score"]) for name, task in found["tasks"].items()} == {
        "boxes": ("detect", "ap"),
        "masks, frozen": ("segment", "miou"),
    }
    table = (out / "comparison.md").read_text()
    for task, heading in (("boxes", "AP, %"), ("masks, frozen", "mIoU, %")):
        assert [row["name"] for row in found["tasks"][task]["rows"]] == NAMES
        assert f"**{task}**" in table
        assert f"| {heading} | gain over soft |" in table
        assert task in ended.out
        assert heading in ended.out
    assert "AP50, %" in table
    for name in OUTPUTS:
        check_replaceable(out / name)
    assert (out / "geometry.png").is_file()


@pytest.mark.slow
def test_dense_figures_are_in_every_table_and_predict_scores_or_not(finished):
    _, out, ended = finished
    found = json.loads((out / "comparison.json").read_text())
    table, rows = (out / "comparison.md").read_text(), lines_of(out)
    figures = found["dense"]["figures"]
    assert {"mAP", "correspondence", "kept neighbours, images", KEPT} <= set(figures)
    for name in ("random", "soft", "whole"):
        for seed in ("0", "1"):
            told = json.loads((out / name / f"seed-{seed}" / "dense.json").read_text())["figures"]
            for row in told:
                if row["of"] == "trained":
                    assert float(rows[name, seed][f"dense {row['figure']}"]) == row["value"]
    assert [row["name"] for row in figures["mAP"]] == NAMES
    assert [row["name"] for row in figures[KEPT]] == NAMES[:-1]
    assert rows["teacher", "0"][f"dense {KEPT}"] == ""
    for (name, seed), row in rows.items():
        for what, other in (("gain", "soft"), ("gain over untrained", "random")):
            gained = float(row["dense mAP"]) - float(rows[other, seed]["dense mAP"])
            cell = row[f"dense mAP {what}"]
            assert cell == "" if name == other else float(cell) == gained
    assert f"| {KEPT}, % | gain over soft | gain over random |" in table
    assert "**Dense features**" in table
    for said in (
        "Dense features of whole · seed-1",
        f"Rank correlation of {KEPT}",
        "kept, all",
        "agreement.png",
    ):
        assert said in ended.out
    assert list(found["agreement"]) == ["boxes", "masks, frozen"]
    for task, key in (("boxes", "ap"), ("masks, frozen", "miou")):
        students = found["agreement"][task]["students"]
        pairs = [
            (float(row[f"dense {KEPT}"]), float(row[f"{task} {key}"]))
            for (name, _), row in rows.items()
            if name != "teacher"
        ]
        assert students["n"] == len(pairs) == 6
        if students["rho"] is not None:
            assert students["rho"] == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
        assert found["agreement"][task]["variants"]["n"] == 3
    assert (out / "agreement.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_tasks_show_gains_over_the_untrained_too(finished):
    _, out, ended = finished
    assert "| mIoU, % | gain over soft | gain over random |" in (out / "comparison.md").read_text()
    assert "gain over random" in " ".join(ended.out.split())
    rows = lines_of(out)
    for (name, seed), row in rows.items():
        gained = float(row["masks, frozen miou"]) - float(rows["random", seed]["masks, frozen miou"])
        cell = row["masks, frozen gain over untrained"]
        assert cell == "" if name == "random" else float(cell) == gained


@pytest.mark.slow
def test_a_second_call_trains_nothing_and_a_stopped_task_goes_on(finished):
    recipe, out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    dense = {path: path.stat().st_mtime_ns for path in out.rglob("dense.json")}
    assert len(dense) == 6
    table = (out / "comparison.csv").read_text()
    again = out / "tasks" / "boxes" / "whole" / "seed-1"
    (again / "summary.json").unlink()
    ended = compared(recipe, out, "--seeds", "2")
    assert (ended.code, ended.err) == (0, "")
    after = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("dense.json")} == dense
    assert "Dense features of" not in ended.out
    # The one without a summary had all its epochs: only its end is done again.
    assert {path for path in after if after[path] != before.get(path)} == {
        again / "model" / "model.safetensors",
        again / "student" / "model.safetensors",
    }
    assert lines_of(out).keys() == {(name, seed) for name in NAMES for seed in ("0", "1")}
    assert [line.split(",")[:3] for line in (out / "comparison.csv").read_text().splitlines()] == [
        line.split(",")[:3] for line in table.splitlines()
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": {"boxes": {**COMPARISON["tasks"]["boxes"], "epochs": 2}}},
        {"variants": {**COMPARISON["variants"], "random": {}}},
        {"teacher_recipe": COMPARISON["teacher_recipe"][:1]},
    ],
    ids=["task", "untrained", "teacher"],
)
def test_other_options_are_another_comparison(finished, tmp_path, changes):
    _, out, _ = finished
    (tmp_path / "plan").mkdir()
    ended = compared(write_recipes(tmp_path / "plan", **changes), out, "--seeds", "2")
    assert ended.code == 2
    assert "holds a comparison of other variants or options" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("damage", [{"tasks": "none"}, {"soft": "none"}])
def test_a_plan_that_is_damaged_is_said(finished, tmp_path, damage):
    recipe, out, _ = finished
    plan = yaml.safe_load((out / "plan.yaml").read_text())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.yaml").write_text(yaml.safe_dump(plan | damage))
    ended = compared(recipe, tmp_path / "out", "--seeds", "2")
    assert ended.code == 2
    assert "plan.yaml" in ended.err
    assert len(ended.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_report_of_the_folder_has_the_variants_alone(finished, tmp_path):
    _, out, _ = finished
    ended = run("report", str(out), "--out", str(tmp_path / "page.html"), said=tmp_path / "said")
    assert ended.code == 0, ended.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "2 variants, 4 runs" in page


TASK = COMPARISON["tasks"]["boxes"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"a": {"dataset": "digit-scenes"}}}, "tasks.a: has no task; give classify, detect or"),
        ({"tasks": {"a": {**TASK, "task": "find"}}}, "scenes.yaml: tasks.a: --task find: expected"),
        ({"tasks": {"a": {**TASK, "epoch": 2}}}, "tasks.a: epoch: no such key; did you mean epochs"),
        ({"tasks": {"a": {**TASK, "mixup": 1}}}, "tasks.a: mixup: --task detect has no such option"),
        ({"tasks": {"a": {**TASK, "dataset": "digits"}}}, "--dataset digits has no boxes"),
        ({"tasks": {"../a": TASK}}, "a task can't be called '../a'"),
        ({"variants": {"tasks": {}}, "baseline": "tasks"}, "a variant can't be called tasks"),
        ({"tasks": {}}, "variant random is not trained, and only tasks measure such a network"),
        (
            {"variants": {"a": {"untrained": "so"}}, "baseline": "a"},
            "variants.a.untrained: must be true or false, not 'so'",
        ),
        ({"teacher_recipe": [3]}, "teacher_recipe, step 1: 3 is neither a recipe nor options of"),
        ({"teacher_recipe": ["nowhere.yaml"]}, "nowhere.yaml: can't be read"),
        ({"teacher_recipe": [{**TASK}]}, "teacher_recipe, step 1: has no model"),
        (
            {"teacher_recipe": [*COMPARISON["teacher_recipe"], {**TASK, "model": "resnet18"}]},
            "teacher_recipe, step 3: names a model, and goes on with that of the step before",
        ),
    ],
)
def test_tasks_that_can_not_be_are_refused_before_anything_is_trained(tmp_path, changes, message):
    ended = compared(write_recipes(tmp_path, **changes), tmp_path / "out", "--seeds", "1")
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


FIGURES = {
    "soft": [{"ap": 40.0, "ap50": 60.0}, {"ap": 50.0, "ap50": 70.0}],
    "whole": [{"ap": 43.0, "ap50": 61.0}, {"ap": 55.0, "ap50": 75.0}],
}


def test_gains_of_a_task_are_paired_by_seed():
    soft, whole = TaskResults("boxes", "detect", FIGURES).rows("soft")
    assert (soft["mean"], soft["gains"], soft["ap50"]) == (45.0, None, 65.0)
    assert (whole["mean"], whole["gains"], whole["gain_mean"]) == (49.0, [3.0, 5.0], 4.0)
    # t(0.975, 1) = 12.706 from any table, times s/√2 = 1.
    assert whole["gain_high"] - whole["gain_mean"] == pytest.approx(12.706, abs=1e-3)


def test_gains_over_the_untrained_are_paired_by_seed():
    soft, whole = TaskResults("boxes", "detect", FIGURES).rows("", "soft")
    assert (soft["untrained_gains"], soft["gains"]) == (None, None)
    assert (whole["untrained_gains"], whole["untrained_gain_mean"]) == ([3.0, 5.0], 4.0)
    assert whole["untrained_gain_high"] - 4 == pytest.approx(12.706, abs=1e-3)
    assert "untrained_gains" not in score_rows(FIGURES, "soft", "ap")[0]


def test_without_a_baseline_no_gain_is_told():
    assert all(row["gains"] is None for row in score_rows(FIGURES, "", "ap"))
