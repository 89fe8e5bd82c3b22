"""Results of a finished run, read by timm and from its files."""

import csv
import json
import math
import re
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

from helpers.runs import TINY_STUDENT, run
from isometry.evaluation.representations import drawn_map
from isometry.evaluation.timing import images_per_second
from isometry.training import results
from isometry.training.checkpoint.files import load_checkpoint


@pytest.fixture(scope="module")
def finished(tiny_teacher, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outcome")
    words = [
        "--teacher",
        f"local-dir:{tiny_teacher}",
        "--losses.whole",
        "4",
        "--losses.soft",
        "1",
        "--losses.ce",
        "1",
    ]
    ended = run(
        "distill", *TINY_STUDENT, *words, "--epochs", "2", "--out", str(folder / "run"),
        said=folder / "said", report=True,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    for line in ("Folder", "Student", "Report"):
        assert line in ended.out
    return folder / "run"


def test_every_promised_file_is_there(finished):
    names = {
        "config.yaml",
        "metrics.csv",
        "metrics.jsonl",
        "last",
        "best",
        "student",
        "report.html",
        "report.json",
        "report.safetensors",
        "summary.json",
    }
    assert names <= {path.name for path in finished.iterdir()}
    kept = {path.name for path in (finished / "student").iterdir()}
    assert kept == {"config.json", "model.safetensors", ".isometry.json"}


@torch.no_grad()
def test_plain_timm_loads_the_student_and_gives_the_best_epochs_logits(finished):
    model = timm.create_model(f"local-dir:{finished / 'student'}", pretrained=True).eval()
    assert model.num_classes == 10
    best = load_checkpoint(finished / "best").parts["model"]
    twin = timm.create_model(f"local-dir:{finished / 'student'}").eval()
    twin.load_state_dict(best)
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(model(images), twin(images))


def test_the_student_carries_its_classes_and_its_preprocessing(finished):
    config = json.loads((finished / "student" / "config.json").read_text())
    assert config["label_names"] == [str(digit) for digit in range(10)]
    assert config["pretrained_cfg"]["input_size"] == [1, 8, 8]
    assert config["model_args"]["embed_dim"] == 16


def test_metrics_hold_every_term_by_name_in_both_forms(finished):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    table = list(csv.DictReader((finished / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == [1, 2]
    for row, cells in zip(rows, table, strict=True):
        assert {"train/loss", "train/whole", "train/soft", "train/ce", "val/top1", "lr", "step"} <= set(row)
        assert {key: float(value) for key, value in cells.items()} == row
        total = 4 * row["train/whole"] + row["train/soft"] + row["train/ce"]
        assert math.isclose(row["train/loss"], total, rel_tol=1e-5)


def test_the_config_is_resolved(finished):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["taps"] == {"student": [0, 1], "teacher": [0, 1]}
    assert config["num_classes"] == 10
    assert config["lr"] == pytest.approx(1e-3)


def test_the_summary_reports_the_test_part(finished):
    teacher, student = json.loads((finished / "summary.json").read_text())
    assert (teacher["role"], student["role"]) == ("teacher", "student")
    assert {teacher["top1_part"], student["top1_part"]} == {"test"}
    assert 0 <= student["top1"] <= 100
    assert student["params"] < teacher["params"]
    assert student["seconds"] > 0


def test_the_report_shows_maps_layers_and_table(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    for heading in ("Relation maps", "Layer by layer", "Models", "Training"):
        assert heading in page
    assert page.count("student before") >= 2


def test_a_saved_student_trains_on_in_another_run(finished, tmp_path):
    """`isometry train --model local-dir:...`: fine-tuning starts from the saved weights."""
    from helpers.runs import DIGITS

    words = ["--model", f"local-dir:{finished / 'student'}", "--epochs", "1", "--lr", "1e-9", "--min-lr", "0"]
    ended = run("train", *DIGITS, *words, "--out", str(tmp_path / "run"), said=tmp_path / "said")
    assert ended.code == 0, ended.err
    before, after = (load_file(f / "student" / "model.safetensors") for f in (finished, tmp_path / "run"))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-5)


def time_it() -> None:
    """For ``prepare``: passes are timed, which other runs here have no use for."""
    results.images_per_second = lambda model, size, **_: images_per_second(model, size, seconds=0)


def test_a_teacher_that_no_term_needs_may_take_images_of_another_size(tmp_path):
    teacher = [
        "vit_tiny_patch16_224",
        "--teacher-kwargs",
        "img_size=32",
        "patch_size=8",
        "embed_dim=24",
        "depth=1",
    ]
    words = ["--teacher", *teacher, "--teacher-weights", "none", "--losses.ce", "1", "--epochs", "1"]
    ended = run(
        "distill", *TINY_STUDENT, *words, "--out", str(tmp_path / "run"),
        said=tmp_path / "said", prepare=time_it,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    first, _ = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert first["role"] == "teacher"
    assert "top1" not in first


def test_a_drawn_map_is_small_enough_to_be_seen_and_holds_cosines():
    features = torch.randn(8, 12, 14, 14)
    values = drawn_map(features, (14, 14))
    assert values.shape[0] == values.shape[1] <= 200
    assert values.min() >= -1.0001
    assert values.max() <= 1.0001
    assert values.diagonal() == pytest.approx(1.0, abs=1e-5)


# --- of a run that grew
# --------------------------------------------------------------------------------------------------------

GROWN = (
    "--epochs 3 --grow.depth 1,2 --grow.width 8,16 --grow.at 0,1 --lr 3e-3 --model-ema --model-ema-decay 0.9"
)


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run of three epochs that grew after its first, and what it said."""
    folder = tmp_path_factory.mktemp("grown")
    words = ["grow", *TINY_STUDENT, *GROWN.split(), "--out", str(folder / "run")]
    ended = run(*words, said=folder / "said", report=True)
    assert ended.code == 0, ended.err
    return folder / "run", ended.out


def stages_of(folder: Path) -> list[dict]:
    return json.loads((folder / "stages.json").read_text())


@torch.no_grad()
def test_plain_timm_loads_what_has_grown_at_full_size(grown):
    folder, _ = grown
    model = timm.create_model(f"local-dir:{folder / 'student'}", pretrained=True).eval()
    assert (len(model.blocks), model.embed_dim, model.num_classes) == (2, 16, 10)
    best = load_checkpoint(folder / "best").parts["model"]
    sizes = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    twin = timm.create_model("vit_tiny_patch16_224", **sizes, img_size=8, in_chans=1, num_classes=10).eval()
    twin.load_state_dict(best)
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(model(images), twin(images))
    assert json.loads((folder / "best" / "checkpoint.json").read_text())["epoch"] > 1


def test_metrics_say_which_stage_an_epoch_belongs_to(grown):
    folder, _ = grown
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    table = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [row["stage"] for row in rows] == [1, 2, 2]
    assert [row["stage"] for row in table] == ["1", "2", "2"]
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_stages_are_timed_and_add_up_to_the_run(grown):
    folder, _ = grown
    first, second = stages_of(folder)
    assert (first["first_epoch"], first["epochs"], second["first_epoch"], second["epochs"]) == (0, 1, 1, 2)
    assert (first["model"], second["model"]) == ("depth 1, width 8", "depth 2, width 16")
    assert (first["by"], second["by"]) == ("", "insert + duplicate")
    assert first["params"] < second["params"]
    assert first["macs"] < second["macs"]
    (student,) = json.loads((folder / "summary.json").read_text())
    assert min(first["seconds"], second["seconds"]) > 0
    assert first["seconds"] + second["seconds"] == pytest.approx(student["seconds"])
    # The full-size time is that of the epochs at full size, each as long as those measured.
    assert second["full_seconds"] == pytest.approx(second["seconds"])
    assert first["full_seconds"] == pytest.approx(second["seconds"] / 2)
    assert student["params"] == second["params"]


def test_stages_hold_the_scores_around_growth(grown):
    folder, _ = grown
    first, second = stages_of(folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert (first["before"], first["after"]) == (None, None)
    assert second["before"] == rows[0]["val/top1"]
    assert 0 <= second["after"] <= 100
    assert {first["score"], second["score"]} == {"top-1"}


def test_the_report_shows_the_growth(grown):
    page = (grown[0] / "report.html").read_text(encoding="utf-8")
    assert re.search(r"<h2[^>]*>\s*Growth", page)
    curves = page[: page.index("Growth")] + page[page.index("Training") :]
    assert "depth 2, width 16" in curves
    assert "insert + duplicate" in page
    assert "does not preserve the function" in page


def test_the_stage_and_the_time_are_printed(grown):
    assert "epoch 3/3 · stage 2/2 (depth 2, width 16) ·" in grown[1]
    assert re.search(r"full-size model would have taken for all 3 epochs", grown[1])


def test_the_config_holds_the_whole_schedule(grown):
    config = yaml.safe_load((grown[0] / "config.yaml").read_text())
    assert config["grow"]["depth"] == "1,2"
    assert config["grow"]["width"] == "8,16"
    assert config["grow"]["at"] == "0,1"
    assert config["model_kwargs"]["depth"] == 2


def test_a_run_that_does_not_grow_leaves_nothing_about_stages(finished):
    assert not (finished / "stages.json").exists()
    assert "stage" not in (finished / "metrics.csv").read_text()
    assert not re.search(r"<h2[^>]*>\s*Growth", (finished / "report.html").read_text(encoding="utf-8"))
