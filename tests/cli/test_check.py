"""`isometry check`: what it says, that it is right, and that it trains and writes nothing."""

import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import ExifTags, Image
from rich.console import Console

from helpers.image_files import write_classes
from helpers.messages import mentions
from isometry.cli.check import (
    check,
    figures,
    growth_text,
    labels_text,
    plan_rows,
    weights_text,
)
from isometry.cli.main import main
from isometry.config import GrowConfig, RunConfig
from isometry.distributed import World
from isometry.errors import UserError
from isometry.files import sha256_of
from isometry.models.build import save_model
from isometry.training.assemble import assemble
from isometry.training.run_memory import memory

ALONE = World(0, 1, torch.device("cpu"))
TINY = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
CONFIG = RunConfig(
    model="vit_tiny_patch16_224",
    model_kwargs=TINY,
    teacher="cait_xxs24_224",
    teacher_kwargs={
        "img_size": 8,
        "patch_size": 2,
        "embed_dim": 48,
        "depth": 3,
        "num_heads": 3,
        "depth_token_only": 1,
    },
    teacher_weights="none",
    img_size=8,
    dataset="digits",
    batch_size=64,
    epochs=20,
    workers=0,
)

TABLE_1 = {
    "deit_tiny_patch16_224": (6e6, 1.2e9),
    "deit_small_patch16_224": (22e6, 4.6e9),
    "cait_xxs24_224": (12e6, 2.5e9),
    "cait_s24_224": (46.9e6, 9.4e9),
    "regnety_160": (84e6, 15.9e9),
}
"""Parameters and FLOPs (multiply-accumulates) at 224 pixels in Table 1 of arXiv:2107.01378v1."""


def output_of(config: RunConfig, capsys) -> str:
    check(config, Console(width=200))
    return capsys.readouterr().out


def test_it_says_what_the_run_would_do(capsys):
    output = output_of(replace(CONFIG, model_ema=True), capsys)
    for part in (
        "digits (scikit-learn): 900 training",
        r"student\s+vit_tiny_patch16_224\s+3×8×8",
        r"teacher\s+cait_xxs24_224\s+3×8×8",
        "Weights of the student  random",
        "10 classes; the teacher has as many",
        r"0\s+2×2\s+24\s+0\s+4×4\s+48\s+teacher pooled to 2×2",
        r"1\s+2×2\s+24\s+2\s+4×4\s+48\s+teacher pooled to 2×2",
        r"loss = 1 soft \+ 4 whole \(mean over entries and blocks\)",
        r"Memory of a step  [\d.]+ [KMG]iB: activations [\d.]+ [KMG]iB, ",
        *(
            rf", {part} [\d.]+ [KMG]iB"
            for part in ("weights", "gradients", "optimizer", "moving average", "teacher")
        ),
        "--teacher-weights none: .*random weights",
        "can start once --out",
    ):
        assert re.search(part.replace("(scikit-learn)", r"\(scikit-learn\)"), output), f"{part}\n{output}"


def test_it_says_where_the_teachers_weights_come_from(tmp_path, capsys):
    teacher = timm.create_model(CONFIG.teacher, **CONFIG.teacher_kwargs, num_classes=10)
    save_model(teacher, tmp_path / "teacher", [str(digit) for digit in range(10)], {"input_size": (3, 8, 8)})
    path = tmp_path / "teacher" / "model.safetensors"
    for given in (
        {"teacher": f"local-dir:{path.parent}", "teacher_kwargs": {}, "teacher_weights": "pretrained"},
        {"teacher_kwargs": {**CONFIG.teacher_kwargs, "img_size": 8}, "teacher_weights": str(path)},
    ):
        output = output_of(replace(CONFIG, **given), capsys)
        assert f"Weights of the teacher  file {path} (SHA-256 {sha256_of(path)})" in output
        assert (
            ("with the same names" in output) == given["teacher"].startswith("local-dir")
            if "teacher" in given
            else True
        )


def test_it_says_which_label_spaces_do_not_agree():
    config = replace(
        CONFIG, teacher_kwargs={**CONFIG.teacher_kwargs, "num_classes": 7}, losses={"whole": 1, "ce": 1}
    )
    assert mentions(labels_text(assemble(config, ALONE)), "10 classes … teacher … 7")


def test_it_warns_of_what_may_not_be_meant(capsys):
    output = output_of(replace(CONFIG, batch_size=500, losses={"ce": 1}), capsys)
    assert re.search(r"only 1 step at --batch-size 500\b", output)
    assert "no term needs the teacher: it is not run" in output


def test_steps_of_a_small_epoch(capsys):
    assert re.search(
        r"an epoch has only 1 step: the 900 training images .*--batch-size 1000\b",
        output_of(replace(CONFIG, batch_size=1000), capsys),
    )
    assert "an epoch has only 9 steps" in output_of(replace(CONFIG, batch_size=100), capsys)
    assert "an epoch" not in output_of(replace(CONFIG, batch_size=90), capsys)


def test_one_process_sends_nothing(capsys):
    assert not re.search("every process|sends", output_of(CONFIG, capsys))


def test_a_run_with_a_folder_can_start(tmp_path, capsys):
    assert output_of(replace(CONFIG, out=str(tmp_path / "new")), capsys).endswith("This run can start.\n")


def test_it_trains_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = assemble(CONFIG, ALONE)
    before = {name: value.clone() for name, value in run.objective.state_dict().items()}
    memory(run, ALONE)
    assert all(torch.equal(value, before[name]) for name, value in run.objective.state_dict().items())
    output_of(replace(CONFIG, out="runs/new"), capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_the_run_would_refuse_is_said_last(tmp_path, capsys):
    (tmp_path / "mine").touch()
    with pytest.raises(UserError, match="empty"):
        check(replace(CONFIG, out=str(tmp_path)), Console(width=200))
    output = capsys.readouterr().out
    assert "Memory of a step" in output
    assert "can start" not in output


def test_weights_without_a_file_have_no_hash():
    run = assemble(CONFIG, ALONE)
    assert weights_text(run.student_weights) == "random, from the seed"


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1_of_the_paper(name):
    found = figures(timm.create_model(name), 224)
    parameters, flops = TABLE_1[name]
    assert found["params"] == pytest.approx(parameters, rel=0.06)
    assert found["macs"] == pytest.approx(flops, rel=0.06)
    assert found["input"] == (3, 224, 224)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("deit_tiny_patch16_224", "cait_xxs24_224"),
        ("deit_small_patch16_224", "cait_s24_224"),
    ],
)
def test_table_1_as_printed(student, teacher, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    models = f"--student {student} --teacher {teacher} --teacher-weights none --num-classes 1000"
    assert main(["check", *shlex.split(models), "--dataset", "digits", "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    for name in (student, teacher):
        parameters, flops = TABLE_1[name]
        row = re.search(rf"{name} +3×224×224 +([\d.]+) M +([\d.]+) G", output)
        assert row, output
        assert float(row[1]) * 1e6 == pytest.approx(parameters, rel=0.06)
        assert float(row[2]) * 1e9 == pytest.approx(flops, rel=0.06)


# --- growth
# --------------------------------------------------------------------------------------------------------

GROWING = replace(CONFIG, model_kwargs={**TINY, "depth": 4}, epochs=12)


def macs_of(depth: int, width: int = 24) -> int:
    """Multiply-accumulates of the student, from its layers: 8 × 8 images in patches of 4, one class token."""
    patches, tokens = 4, 5
    attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    block = attention + 2 * tokens * width * 4 * width
    return patches * width * 3 * 4**2 + depth * block + width * 10


def test_it_prints_the_stages_of_growth_and_the_full_size_model(capsys):
    config = replace(
        GROWING, grow=GrowConfig(depth="2,3,4", width="12,12,24", at="0,3,9", depth_operator="identity")
    )
    # Twelve channels have one and a half heads of eight.
    config = replace(config, model_kwargs={**config.model_kwargs, "num_heads": 4})
    output = output_of(config, capsys)
    full = timm.create_model(config.model, **config.model_kwargs, img_size=8, num_classes=10)
    wanted = [
        (1, "depth 2, width 12", "new", "1-3", 25, macs_of(2, 12)),
        (2, "depth 3, width 12", "identity", "4-9", 50, macs_of(3, 12)),
        (3, "depth 4, width 24", "identity \\+ duplicate", "10-12", 25, macs_of(4)),
    ]
    for number, network, by, epochs, share, macs in wanted:
        parameters = r"([\d.]+) k"
        row = re.search(
            rf"{number}\s+{network}\s+{by}\s+{epochs}\s+{share} %\s+{parameters}\s+([\d.]+) k", output
        )
        assert row, output
        assert float(row[2]) * 1e3 == pytest.approx(macs, rel=0.01)
    assert float(row[1]) * 1e3 == pytest.approx(sum(p.numel() for p in full.parameters()), rel=0.01)
    assert re.search(rf"student\s+vit_tiny_patch16_224\s+3×8×8\s+{re.escape(row[1])} k", output), output
    assert re.search(r"Weights of the student  random", output)


@pytest.mark.parametrize("teacher", [True, False])
def test_the_ideal_speed_up_counts_three_passes_of_the_student_and_one_of_the_teacher(teacher, capsys):
    """A teacher costs the same at every stage, and makes growing the student worth less."""
    config = replace(GROWING, grow=GrowConfig(depth="2,4", at="0,8", depth_operator="identity"))
    asked = 0
    if teacher:
        asked = figures(timm.create_model(CONFIG.teacher, **CONFIG.teacher_kwargs), 8)["macs"]
    else:
        config = replace(config, teacher="", teacher_kwargs={})
    small, full = 3 * macs_of(2) + asked, 3 * macs_of(4) + asked
    times = full / (8 / 12 * small + 4 / 12 * full)
    output = output_of(config, capsys)
    assert f"Growth  {times:.2f} times faster than full size throughout" in output
    assert 1.02 < times < 1.5


def test_the_ideal_speed_up_of_the_published_schedule():
    """6 to 12 blocks in equal segments: 1 / (1/2 · 1/2 + 1/2) = 1.33 (arXiv's figure for DeiT at 224 pixels)."""
    config = RunConfig(
        model="deit_tiny_patch16_224", dataset="digits", grow=GrowConfig(depth="6,12"), epochs=300
    )
    rows = plan_rows(assemble(config, ALONE))
    assert [row["share"] for row in rows] == [0.5, 0.5]
    assert rows[0]["macs"] / rows[1]["macs"] == pytest.approx(0.5, abs=0.02)
    assert growth_text(rows).startswith("1.3")


def test_it_says_what_growth_does_not_keep(capsys):
    output = output_of(replace(GROWING, grow=GrowConfig(depth="2,4")), capsys)
    assert "insert" in output
    assert "does not preserve the function" in output
    assert "--model-ema" in output
    kept = replace(GROWING, grow=GrowConfig(depth="2,4", depth_operator="identity"))
    assert "preserve" not in output_of(kept, capsys)


def test_the_taps_that_it_shows_are_those_of_the_full_size_model(capsys):
    output = output_of(replace(GROWING, grow=GrowConfig(depth="2,4")), capsys)
    for student, teacher in ((0, 0), (1, 1), (3, 2)):
        assert re.search(rf"^ *{student} +2×2 +24 +{teacher} +4×4 +48", output, re.MULTILINE), output
    assert not re.search(r"^ *2 +2×2 +24", output, re.MULTILINE), output


def test_a_run_that_does_not_grow_has_no_plan(capsys):
    output = output_of(GROWING, capsys)
    assert "stage" not in output
    assert "Growth" not in output


def test_a_look_at_the_images_and_at_what_the_teacher_sees(tmp_path, capsys):
    data = {"dataset": "", "data_dir": str(write_classes(tmp_path, {"a": 12, "b": 12}, ".jpg"))}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    for name in ("a", "b"):
        for number in range(12):
            path = tmp_path / name / f"{number}.jpg"
            Image.open(path).copy().save(path, exif=exif)
    output = output_of(replace(CONFIG, **data, in_chans=3), capsys)
    assert "Images  all 22 training images: 22 turned by EXIF, seen upright" in output
    assert "scaled up" not in output
    larger = replace(CONFIG, teacher_kwargs={**CONFIG.teacher_kwargs, "img_size": 16})
    said = " ".join(output_of(larger, capsys).split())
    assert "scaled up from 8×8 to 16×16 pixels" in said
    assert (
        "--teacher-pixels original reads the images at 16×16 and shows it the same crops of the original"
        in said
    )
    said = " ".join(output_of(replace(larger, teacher_pixels="original"), capsys).split())
    assert "scaled up" not in said
    assert "teacher images 192 KiB" in said
    smaller = replace(CONFIG, teacher_kwargs={**CONFIG.teacher_kwargs, "img_size": 4})
    assert "scaled up" not in output_of(smaller, capsys)


def test_dark_greys_are_a_warning_and_auto_is_what_was_found(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            values = np.linspace(0, 4000, 64).reshape(8, 8).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / name / f"{number}.png")
    config = replace(CONFIG, dataset="", data_dir=str(tmp_path), in_chans=1)
    output = output_of(config, capsys)
    assert "4 grey of 16 bits, values 0 to 4000 (black and white: 0,65535)" in output
    assert re.search(
        r"Warning  grey images of 16 bits come out dark or flat: .* --pixel-range 0,4095, or", output
    )
    output = output_of(replace(config, pixel_range="auto"), capsys)
    assert "values 0 to 4000 (black and white: 0,4000)" in output
    assert "come out dark" not in output


@pytest.mark.parametrize("channels", [2, 4, 12])
def test_channels_that_image_files_lack_are_refused_with_the_reason(channels):
    config = replace(CONFIG, teacher="", in_chans=channels)
    with pytest.raises(
        UserError, match=f"images of {channels} channels.*grey .1. or RGB .3.; give --in-chans 1 or 3"
    ):
        assemble(config, ALONE)


@pytest.mark.parametrize("share", [1e-3, 0.0999, 0.0, -1.0, 1.01, float("inf"), float("nan")])
def test_a_share_of_the_crop_that_would_scale_images_without_end_is_refused(share):
    with pytest.raises(UserError, match=r"--crop-pct .*at least 0.1 and at most 1"):
        assemble(replace(CONFIG, crop_pct=share), ALONE)
