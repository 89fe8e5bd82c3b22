"""The parts of a run for boxes or masks: options as they are used are those that are saved."""

from dataclasses import replace

import pytest

from helpers.scenes import few_scenes
from isometry.config import RunConfig
from isometry.data.dense import digit_scenes
from isometry.data.dense.transforms import TrainTransform
from isometry.distributed import join_world
from isometry.recipes import config_to_yaml
from isometry.training.checkpoint.run_folder import RunFolder, config_path
from isometry.training.transfer.assemble import DenseRun, assemble_dense
from isometry.training.transfer.options import transfer_config

SIZES = {"patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2, "in_chans": 1, "img_size": 96}


@pytest.fixture(autouse=True)
def _few_scenes(monkeypatch):
    for name in ("TRAIN", "VALIDATION", "TEST"):
        monkeypatch.setattr(digit_scenes, name, getattr(digit_scenes, name))
    few_scenes()


def assembled(out, *, resume: bool = False, **overrides: object) -> DenseRun:
    network = {"model": "vit_tiny_patch16_224", "model_kwargs": SIZES}
    given = {"task": "segment", "dataset": "digit-scenes", "out": str(out), "device": "cpu", "resume": resume}
    return assemble_dense(transfer_config(network, given, overrides), join_world("cpu"))


def areas(run: DenseRun) -> tuple[float, ...]:
    return TrainTransform(run.config, run.spec).areas


def test_the_scale_that_is_used_is_saved(tmp_path):
    run = assembled(tmp_path)
    assert run.config.scale == [0.25, 1.0]
    assert areas(run) == (0.25, 1.0)
    assert run.notes == []
    other = assembled(tmp_path, scale=[0.5, 1.5])
    assert (other.config.scale, areas(other), other.notes) == ([0.5, 1.5], (0.5, 1.5), [])


def test_the_scale_of_classification_is_replaced_with_a_note(tmp_path):
    run = assembled(tmp_path, scale=RunConfig().scale)
    assert run.config.scale == [0.25, 1.0]
    assert run.notes == ["--scale 0.08 1 is for images of one object: 0.25 1 is used"]


def test_a_run_of_an_older_version_goes_on_as_before(tmp_path):
    begun = replace(assembled(tmp_path).config, scale=RunConfig().scale)
    config_path(str(tmp_path)).write_text(config_to_yaml(begun))
    run = assembled(tmp_path, resume=True)
    assert RunFolder(run.config).refuse_other_options(run.config) == []
    assert areas(run) == (0.25, 1.0)
    assert run.notes == []
