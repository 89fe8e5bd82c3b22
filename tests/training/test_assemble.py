"""Assembling a run: open options are filled in, and options that cannot work are refused before any step."""

import math
from dataclasses import replace

import pytest
import torch

from helpers.runs import plan_of
from isometry.config import RANGES, PruneConfig, RunConfig
from isometry.data import find_sources
from isometry.distributed import World
from isometry.errors import UserError
from isometry.models.build import save_model
from isometry.models.spec import label_names
from isometry.recipes import config_to_yaml
from isometry.training.assemble import assemble

ALONE = World(0, 1, torch.device("cpu"))
TINY = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
CONFIG = RunConfig(
    model="vit_tiny_patch16_224",
    model_kwargs=TINY,
    img_size=8,
    dataset="digits",
    epochs=20,
    batch_size=64,
    workers=0,
)
TAUGHT = replace(CONFIG, teacher="vit_tiny_patch16_224", teacher_kwargs=TINY, teacher_weights="none")


def test_open_options_are_filled_in():
    run = assemble(
        replace(TAUGHT, grad_accum_steps=2, lr_base=1e-3, lr_base_size=256), replace(ALONE, size=3)
    )
    config = run.config
    assert (config.num_classes, config.in_chans, config.img_size) == (10, 3, 8)
    assert config.losses == {"soft": 1.0, "whole": 4.0}
    assert config.lr == pytest.approx(1e-3 * 64 * 2 * 3 / 256)
    assert (config.taps.student, config.taps.teacher) == ([0, 1], [0, 1])
    assert config.validation_batch_size == 64
    assert config.device == "cpu"
    assert assemble(config, replace(ALONE, size=3)).config == config, "resolving twice changes nothing"


def test_without_a_teacher_the_loss_is_cross_entropy():
    run = assemble(CONFIG, ALONE)
    assert run.config.losses == {"ce": 1.0}
    assert run.teacher is None
    assert run.objective.pairs == []
    assert run.notes == []


def test_a_range_of_pixels_that_a_run_found_is_kept_when_it_goes_on(tmp_path):
    config = replace(CONFIG, out=str(tmp_path), pixel_range="auto")
    assert assemble(config, ALONE).config.pixel_range is None
    (tmp_path / "config.yaml").write_text(config_to_yaml(replace(config, pixel_range="0,4071")))
    assert assemble(replace(config, resume=True), ALONE).config.pixel_range == "0,4071"


def test_a_random_teacher_is_noted_and_has_the_classes_of_the_data():
    run = assemble(TAUGHT, ALONE)
    assert run.teacher is not None
    assert run.teacher.num_classes == 10
    assert any(note.startswith("--teacher-weights none") for note in run.notes)


def notes_on_the_teacher(folder, **options):
    config = replace(TAUGHT, teacher=f"local-dir:{folder}", teacher_weights="pretrained", teacher_kwargs={})
    notes = assemble(replace(config, **options), ALONE).notes
    return [note for note in notes if note.startswith(f"the teacher {folder} was trained with ")]


def test_a_teacher_that_saw_images_in_another_way_is_noted(tmp_path):
    teacher = assemble(TAUGHT, ALONE).teacher
    told = {"isometry_images": {"exif": "ignore", "pixel_range": "0,4095"}}
    save_model(teacher, tmp_path / "taught", None, {"input_size": (3, 224, 224)}, told)
    (note,) = notes_on_the_teacher(tmp_path / "taught")
    assert "--exif ignore and --pixel-range 0,4095 and sees" in note
    assert "with --exif upright and no --pixel-range here" in note
    (note,) = notes_on_the_teacher(tmp_path / "taught", exif="ignore", pixel_range="0,255")
    assert "trained with --pixel-range 0,4095 and sees images with --pixel-range 0,255 here" in note
    assert notes_on_the_teacher(tmp_path / "taught", exif="ignore", pixel_range="0,4095") == []


def test_of_a_teacher_of_an_older_version_its_run_says_how_it_saw_images(tmp_path):
    folder, config = tmp_path / "student", tmp_path / "config.yaml"
    save_model(assemble(TAUGHT, ALONE).teacher, folder, None, {"input_size": (3, 224, 224)})
    assert notes_on_the_teacher(folder) == []
    config.write_text("dataset: digits\n")
    (note,) = notes_on_the_teacher(folder)
    assert "trained with --exif ignore and sees images with --exif upright here" in note
    assert notes_on_the_teacher(folder, exif="ignore") == []
    config.write_text("no: run\n")
    assert notes_on_the_teacher(folder) == []


def test_a_warm_up_longer_than_the_run_is_shortened_with_a_note():
    run = assemble(replace(CONFIG, epochs=3, warmup_epochs=5), ALONE)
    assert run.config.warmup_epochs == 0
    assert any("warm-up shortened" in note for note in run.notes)


def test_the_seed_decides_the_student():
    def weights(config):
        return plan_of(config).build()[0].state_dict()

    one, again, other = weights(CONFIG), weights(CONFIG), weights(replace(CONFIG, seed=7))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_assembling_twice_gives_the_same_bits():
    first, second = assemble(TAUGHT, ALONE), assemble(TAUGHT, ALONE)
    for one, two in ((first.student, second.student), (first.teacher, second.teacher)):
        assert one is not None
        assert two is not None
        for key, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[key])


@pytest.mark.parametrize("name", ["epochs", "lr", "drop_path", "seed"])
def test_numbers_out_of_range_are_refused_by_their_option(name):
    """Also in a config that was not read from a command line."""
    for value in (RANGES[name].most + 1, math.nan, math.inf):
        with pytest.raises(UserError, match=rf"--{name.replace('_', '-')} .*must be"):
            assemble(replace(CONFIG, **{name: value}), ALONE)


@pytest.mark.parametrize("losses", [{"soft": 1}, {"hard": 1, "ce": 1}])
def test_names_of_classes_are_compared_where_the_teachers_labels_are_used(tmp_path, losses):
    run = assemble(CONFIG, ALONE)
    names = [str(digit) for digit in range(10)]
    for wrong, folder in ((False, tmp_path / "same"), (True, tmp_path / "other")):
        save_model(run.student, folder, names[::-1] if wrong else names, {"input_size": (3, 8, 8)})
        config = replace(CONFIG, teacher=f"local-dir:{folder}", losses=losses)
        if wrong:
            with pytest.raises(UserError, match=r"'9' .*'0'"):
                assemble(config, ALONE)
            assert assemble(replace(config, losses={"whole": 1, "ce": 1}), ALONE).teacher is not None
        else:
            teacher = assemble(config, ALONE).teacher
            assert teacher is not None
            assert label_names(teacher) == names


def test_nothing_is_printed(capsys):
    assemble(TAUGHT, ALONE)
    said = capsys.readouterr()
    assert said.out + said.err == ""


PRUNED = PruneConfig(0.5, from_scratch=True)
UNTRAINED = replace(CONFIG, model="cifar_resnet20", model_kwargs={}, img_size=16, prune=PRUNED)


@pytest.mark.parametrize(
    ("more", "losses"),
    [
        ({}, {"ce": 1.0, "sparsity": 5e-3, "similarity": 1.0}),
        ({"method": "l1"}, {"ce": 1.0}),
    ],
)
def test_gates_bring_their_terms_along(more, losses):
    config = replace(UNTRAINED, prune=replace(UNTRAINED.prune, **more))
    assert assemble(config, ALONE).config.losses == losses


@pytest.mark.parametrize("losses", [{"ce": 1.0}, {"soft": 1.0, "sparsity": 1.0}])
def test_the_term_that_needs_labels_is_named(losses, monkeypatch):
    def without_labels(config):
        return replace(find_sources(config), labelled=False)

    monkeypatch.setattr("isometry.training.assemble.find_sources", without_labels)
    teacher = {"teacher": "cifar_resnet20", "teacher_weights": "none"}
    config = replace(UNTRAINED, losses=losses, **teacher)
    asking = list(losses)[-1]
    told = f"^digits: the images have no labels, and losses.{asking} needs them; --losses.{asking} 0, or"
    with pytest.raises(UserError, match=told):
        assemble(config, ALONE)
    # Without it there are gates, and no image is easy.
    run = assemble(replace(config, losses={"soft": 1.0, "similarity": 1.0}), ALONE)
    assert run.objective.needs_cross_entropy
    assert not run.objective.needs_labels


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"global_pool": ""}, "the student .* answers an image with 5×10 numbers .*global_pool"),
        ({"num_classes": 3}, "--model-kwargs num_classes=3: .* says 10"),
        ({"num_classes": "x"}, "--model-kwargs num_classes=x: .* says 10"),
        ({"drop_rate": 0.3}, "--model-kwargs drop_rate=0.3: .* says 0.1"),
    ],
)
def test_arguments_of_a_network_that_would_mean_nothing_or_break(kwargs, message):
    config = replace(CONFIG, model_kwargs=TINY | kwargs, drop=0.1)
    with pytest.raises(UserError, match=message):
        assemble(config, ALONE)
