"""`isometry compare`: the same seeds for every variant, finished runs kept, figures that add up."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from helpers.messages import mentions
from helpers.runs import STUDENT_KWARGS, TEACHER_KWARGS, Ended, run, trainer_of
from isometry.cli.compare_results import OUTPUTS, summarise
from isometry.cli.main import main

COMMON = {
    "dataset": "digits",
    "img_size": 8,
    "in_chans": 1,
    "epochs": 1,
    "batch_size": 150,
    "validation_batch_size": 500,
    "workers": 0,
    "warmup_epochs": 0,
    "device": "cpu",
}


def kwargs(pairs):
    return {key: float(value) if "." in value else int(value) for key, value in (p.split("=") for p in pairs)}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    student = {**COMMON, "student": "vit_tiny_patch16_224", "student_kwargs": kwargs(STUDENT_KWARGS)}
    teacher = {
        **COMMON,
        "model": "cait_xxs24_224",
        "model_kwargs": kwargs(TEACHER_KWARGS),
        "losses": {"ce": 1},
    }
    comparison = {
        "base": "student.yaml",
        "teacher_recipe": "teacher.yaml",
        "baseline": "soft",
        "variants": {
            # Of another size than the rest, in depth, width and grid.
            "none": {
                "losses": {"ce": 1},
                "student_kwargs": {**kwargs(STUDENT_KWARGS), "patch_size": 2, "embed_dim": 24, "depth": 3},
            },
            "soft": {"losses": {"soft": 1}},
            "whole": {"losses": {"soft": 1, "whole": 4}},
        },
    }
    for name, content in (("student", student), ("teacher", teacher), ("comparison", comparison)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder / "comparison.yaml"


def lines_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def compared(recipe: Path, out: Path, *words: str, report: bool = False) -> Ended:
    words = ("compare", "--config", str(recipe), "--out", str(out), *words)
    return run(*words, said=out.with_name("said"), report=report)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "out"
    ended = compared(recipe, out, "--seeds", "2", report=True)
    assert ended.code == 0, ended.err
    for heading in ("top-1, %", "gain over", "speed-up"):
        assert heading in ended.out
    assert "teacher" in ended.out
    assert "geometry.png" in ended.out
    return out


def test_every_variant_ran_with_the_same_seeds(finished):
    for name in ("none", "soft", "whole"):
        assert sorted(path.name for path in (finished / name).iterdir()) == ["seed-0", "seed-1"]
    seeds = {
        yaml.safe_load((finished / name / "seed-1" / "config.yaml").read_text())["seed"]
        for name in ("none", "soft")
    }
    assert seeds == {1}


def test_the_csv_holds_each_seeds_figures_and_gain_over_the_baseline(finished):
    rows = lines_of(finished / "comparison.csv")
    assert len(rows) == 6
    top1 = {(row["variant"], row["seed"]): float(row["top1"]) for row in rows}
    for row in rows:
        if row["variant"] == "soft":
            assert row["gain"] == ""
        else:
            expected = top1[row["variant"], row["seed"]] - top1["soft", row["seed"]]
            assert float(row["gain"]) == pytest.approx(expected)


def test_the_csv_holds_measured_times_and_paired_speed_ups(finished):
    rows = lines_of(finished / "comparison.csv")
    seconds = {(row["variant"], row["seed"]): float(row["seconds"]) for row in rows}
    for row in rows:
        summary = json.loads((finished / row["variant"] / f"seed-{row['seed']}" / "summary.json").read_text())
        assert summary[-1]["seconds"] == seconds[row["variant"], row["seed"]]
        if row["variant"] == "soft":
            assert row["speed_up"] == ""
        else:
            expected = seconds["soft", row["seed"]] / seconds[row["variant"], row["seed"]]
            assert float(row["speed_up"]) == pytest.approx(expected)


def test_table_csv_and_json_tell_the_same_speed_ups(finished):
    saved = json.loads((finished / "comparison.json").read_text())
    table = (finished / "comparison.md").read_text()
    csv_rows = lines_of(finished / "comparison.csv")
    assert "speed-up over soft" in table
    for row in saved["rows"]:
        if row["name"] != "soft":
            speed_ups = [float(line["speed_up"]) for line in csv_rows if line["variant"] == row["name"]]
            assert row["speed_ups"] == speed_ups
            assert f"{row['speed_up_mean']:.2f}× ± " in table
    assert not any("speed" in key for row in saved["models"] for key in row)


def test_the_csv_says_what_the_runs_said(finished):
    rows = {(r["variant"], r["seed"]): float(r["top1"]) for r in lines_of(finished / "comparison.csv")}
    for (name, number), value in rows.items():
        summary = json.loads((finished / name / f"seed-{number}" / "summary.json").read_text())
        assert summary[-1]["top1"] == value
        assert summary[-1]["top1_part"] == "test"


def test_pictures_and_markdown_are_there(finished):
    for name in ("comparison.png", "geometry.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    assert (finished / "comparison.md").read_text().count("|") > 10


def test_the_last_variants_report_shows_the_others_beside_it(finished):
    page = (finished / "whole" / "seed-0" / "report.html").read_text(encoding="utf-8")
    for name in ("none", "soft"):
        assert f">{name}<" in page


def test_a_second_call_runs_nothing_again_and_more_seeds_are_added(recipe, finished):
    kept = finished / "soft" / "seed-0" / "last" / "checkpoint.json"
    before = kept.stat().st_mtime_ns
    ended = compared(recipe, finished, "--seeds", "3")
    assert ended.code == 0, ended.err
    assert kept.stat().st_mtime_ns == before
    assert (finished / "whole" / "seed-2" / "summary.json").is_file()


def test_another_comparison_does_not_take_the_finished_runs_for_its_own(recipe, finished):
    ended = compared(recipe, finished, "--seeds", "2", "--overrides", "epochs=2")
    assert ended.code == 2
    assert mentions(ended.err, "--out … plan.yaml … another --out")


def test_without_a_teacher_student_and_data_are_the_same_for_a_seed(finished):
    """A variant changes what it names and nothing else: the first epoch's learning rate and steps agree."""
    rows = [
        json.loads((finished / name / "seed-0" / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("none", "soft", "whole")
    ]
    assert len({(row["step"], row["lr"]) for row in rows}) == 1


FIGURES = {
    "soft": [{"top1": 90.0, "seconds": 10.0}, {"top1": 80.0, "seconds": 20.0}],
    "whole": [{"top1": 91.0, "seconds": 8.0}, {"top1": 83.0, "seconds": 16.0}],
}


def test_gains_and_speed_ups_are_paired_by_seed():
    soft, whole = summarise(FIGURES, "soft")
    assert soft["gains"] is None
    assert soft["speed_ups"] is None
    assert whole["gains"] == [1.0, 3.0]
    assert whole["mean"] == 87.0
    assert whole["speed_ups"] == [1.25, 1.25]
    assert whole["seconds_mean"] == 12.0


def test_without_a_baseline_nothing_is_gained_over_it():
    assert all(row["gains"] is None and row["speed_ups"] is None for row in summarise(FIGURES, ""))


def test_variants_without_a_teacher_have_no_map_to_be_measured_against(recipe, tmp_path):
    """Of different sizes too, and with one seed: the table says gain and speed-up, without intervals."""
    content = yaml.safe_load(recipe.read_text())
    del content["teacher_recipe"]
    small = {**kwargs(STUDENT_KWARGS), "depth": 1}
    content["baseline"] = "full"
    content["variants"] = {
        "full": {"losses": {"ce": 1}},
        "small": {"losses": {"ce": 1}, "student_kwargs": small},
    }
    alone = recipe.with_name("alone.yaml")
    alone.write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    ended = compared(alone, out, "--seeds", "1")
    assert ended.code == 0, ended.err
    assert not (out / "geometry.png").exists()
    assert "geometry" not in ended.out
    assert "teacher" not in ended.out
    assert "×" in (out / "comparison.md").read_text()
    assert "±" not in (out / "comparison.md").read_text()
    assert "×" in ended.out
    assert (out / "comparison.png").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": {}}, "has no variants"),
        ({"baseline": "sotf"}, "baseline sotf is none of the variants"),
        ({"variants": {"a": {"lossez": {"ce": 1}}}, "baseline": "a"}, "lossez"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml"),
        ({"variantz": {}}, "variantz"),
    ],
)
def test_a_comparison_that_can_not_be_is_refused_in_one_line(recipe, tmp_path, change, message):
    content = {**yaml.safe_load(recipe.read_text()), **change}
    broken = recipe.with_name("broken.yaml")
    broken.write_text(yaml.safe_dump(content))
    ended = compared(broken, tmp_path / "out")
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(OUTPUTS))
def test_a_file_of_the_users_is_not_replaced(recipe, tmp_path, capsys, name):
    (tmp_path / name).write_text("theirs")
    assert main(["compare", "--config", str(recipe), "--out", str(tmp_path)]) == 2
    assert f"{name}: isometry has no record of writing this file" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "theirs")]


# --- variants that start from one network


PRUNED = {"keep_rate": 0.5}


@pytest.fixture(scope="module")
def pruning_recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pruning")
    shared = {**COMMON, "img_size": 16, "batch_size": 450, "opt": "sgd", "lr": 0.01}
    first = {"model": "cifar_resnet20", "model_kwargs": {"layers": [1, 1, 1], "channels": [4, 8, 8]}}
    contents = {
        "first": {**shared, **first, "losses": {"ce": 1}},
        "second": {**shared, "model": "cifar_resnet20"},
        "comparison": {
            "base": "second.yaml",
            "start_recipe": "first.yaml",
            "teacher_recipe": "first.yaml",
            "baseline": "dense",
            "variants": {
                "dense": {"losses": {"ce": 1}},
                "cut, L1": {"losses": {"ce": 1}, "prune": {**PRUNED, "method": "l1"}},
                "gates": {"losses": {"soft": 1, "sparsity": 0.01, "similarity": 1}, "keep_rate": 0.5},
            },
        },
    }
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "comparison.yaml"


@pytest.fixture(scope="module")
def pruned(pruning_recipe, tmp_path_factory) -> tuple[Path, Ended]:
    out = tmp_path_factory.mktemp("pruned") / "out"
    ended = compared(pruning_recipe, out, "--seeds", "2")
    assert (ended.code, ended.err) == (0, "")
    return out, ended


VARIANTS = ("dense", "cut, L1", "gates")


@pytest.mark.parametrize("seed", [0, 1])
def test_every_variant_starts_from_the_network_of_its_seed(seed, pruned):
    out, _ = pruned
    start = out / "start" / f"seed-{seed}" / "student"
    wanted = load_file(start / "model.safetensors")
    for variant in VARIANTS:
        trainer = trainer_of("--config", str(out / variant / f"seed-{seed}" / "config.yaml"))
        assert (trainer.config.model, trainer.config.seed) == (f"local-dir:{start}", seed)
        assert trainer.run.student_weights.description == f"file {start}/model.safetensors"
        found = trainer.run.student.state_dict()
        assert torch.equal(found["conv1.weight"], wanted["conv1.weight"])
        assert torch.equal(found["fc.weight"], wanted["fc.weight"])
        if variant == "dense":
            assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_the_networks_that_variants_start_from_differ_by_seed(pruned):
    out, _ = pruned
    first, second = (
        load_file(out / "start" / f"seed-{seed}" / "student" / "model.safetensors") for seed in (0, 1)
    )
    assert not torch.equal(first["conv1.weight"], second["conv1.weight"])


def test_the_start_has_its_rows_beside_the_variants(pruned):
    out, ended = pruned
    rows = lines_of(out / "comparison.csv")
    assert [(row["variant"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("start", *VARIANTS) for seed in ("0", "1")
    ]
    for row in rows:
        summary = json.loads((out / row["variant"] / f"seed-{row['seed']}" / "summary.json").read_text())
        assert float(row["top1"]) == summary[-1]["top1"]
        assert (row["gain"] == "") is (row["variant"] == "dense")
    saved = json.loads((out / "comparison.json").read_text())
    assert [row["name"] for row in saved["rows"]] == ["start", *VARIANTS]
    spent = {row["model"]: row["macs"] for row in saved["models"]}
    assert spent["start"] == spent["dense"] == spent["teacher"]
    assert spent["cut, L1"] < spent["dense"]
    assert spent["gates"] < spent["dense"]
    # Networks of shapes that timm does not know, too.
    assert (out / "geometry.png").read_bytes().startswith(b"\x89PNG")
    for name in ("start", *VARIANTS):
        assert name in ended.out


def test_starts_that_are_trained_are_not_trained_again(pruning_recipe, pruned):
    out, _ = pruned
    kept = sorted(out.rglob("checkpoint.json"))
    assert len(kept) == 2 * (1 + 2 * 4)
    before = [path.stat().st_mtime_ns for path in kept]
    table = (out / "comparison.csv").read_text()
    ended = compared(pruning_recipe, out, "--seeds", "2")
    assert ended.code == 0, ended.err
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert (out / "comparison.csv").read_text() == table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": {"start": {}, "dense": {}}}, "a variant can't be called start"),
        ({"start_recipe": "nowhere.yaml"}, "nowhere.yaml: can't be read"),
        ({"baseline": "start"}, "baseline start is none of the variants"),
        (
            {"variants": {"dense": {"kep_rate": 0.5}}},
            "variants.dense: kep_rate: no such key; did you mean keep_rate",
        ),
    ],
)
def test_a_comparison_with_a_start_that_can_not_be_is_refused_in_one_line(
    pruning_recipe, tmp_path, change, message
):
    broken = pruning_recipe.with_name("broken.yaml")
    broken.write_text(yaml.safe_dump({**yaml.safe_load(pruning_recipe.read_text()), **change}))
    ended = compared(broken, tmp_path / "out", "--seeds", "1")
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
