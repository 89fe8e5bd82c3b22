"""The same images in a step for any number of processes."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from isometry.config import RunConfig
from isometry.distributed import World
from isometry.errors import UserError
from isometry.recipes import config_to_yaml
from isometry.training.batch_size import check_batch_norms, share_batch
from isometry.training.checkpoint.run_folder import begun_as


def world(size: int) -> World:
    return World(0, size, torch.device("cpu"))


def begun(out: Path, **options: int) -> RunConfig:
    """A run that was begun with two processes of 64 images."""
    config, notes = share_batch(RunConfig(out=str(out), batch_size=64, **options), world(2))
    assert notes == []
    (out / "config.yaml").write_text(config_to_yaml(replace(config, validation_batch_size=64)))
    return config


def resumed(config: RunConfig, processes: World) -> tuple[RunConfig, list[str]]:
    return share_batch(config, processes, begun_as(config))


def test_each_process_takes_its_batch() -> None:
    config, notes = share_batch(RunConfig(batch_size=32), world(4))
    assert (config.batch_size, config.global_batch_size, notes) == (32, 128, [])


def test_a_global_batch_is_shared() -> None:
    config, _ = share_batch(RunConfig(global_batch_size=96), world(4))
    assert (config.batch_size, config.global_batch_size) == (24, 96)


@pytest.mark.parametrize("whole", [2, 97])
def test_a_global_batch_that_can_not_be_shared_is_refused(whole: int) -> None:
    with pytest.raises(UserError, match=f"--global-batch-size {whole}.* 4 "):
        share_batch(RunConfig(global_batch_size=whole), world(4))


@pytest.mark.parametrize(("processes", "share"), [(1, 128), (4, 32), (8, 16)])
def test_a_resumed_run_keeps_its_global_batch_size(processes: int, share: int, tmp_path: Path) -> None:
    begun(tmp_path)
    again = RunConfig(out=str(tmp_path), batch_size=64, resume=True)
    config, (note,) = resumed(again, world(processes))
    assert (config.batch_size, config.global_batch_size) == (share, 128)
    assert config.validation_batch_size == 64
    assert f"begun with 2 processes, resumed with {processes} process" in note
    assert f"the batch size of each is {share} instead of 64" in note


def test_the_same_number_of_processes_needs_no_note(tmp_path: Path) -> None:
    config = begun(tmp_path)
    again, notes = resumed(RunConfig(out=str(tmp_path), batch_size=64, resume=True), world(2))
    assert notes == []
    assert (again.batch_size, again.global_batch_size) == (config.batch_size, config.global_batch_size)


def test_a_remainder_is_noted(tmp_path: Path) -> None:
    begun(tmp_path)
    config, (note,) = resumed(RunConfig(out=str(tmp_path), batch_size=64, resume=True), world(3))
    assert (config.batch_size, config.global_batch_size) == (42, 128)
    assert "2 images of a batch are left out" in note


def test_another_batch_size_with_the_same_total_is_accepted(tmp_path: Path) -> None:
    begun(tmp_path)
    config, (note,) = resumed(RunConfig(out=str(tmp_path), batch_size=32, resume=True), world(4))
    assert (config.batch_size, config.global_batch_size) == (32, 128)
    assert "in the same order" in note


def test_another_total_shows_in_the_config(tmp_path: Path) -> None:
    """The run's folder then refuses it by name."""
    begun(tmp_path)
    config, _ = resumed(RunConfig(out=str(tmp_path), batch_size=32, resume=True), world(2))
    assert config.global_batch_size == 64


@pytest.mark.parametrize(
    ("name", "side", "batch", "notes"),
    [
        ("resnet18", 64, 1, 1),
        ("resnet18", 32, 2, 0),
        ("vit_tiny_patch16_224", 224, 1, 0),
    ],
)
def test_norms_over_a_batch_of_one_image_are_told(name, side, batch, notes):
    student = timm.create_model(name).eval()
    before = {key: value.clone() for key, value in student.state_dict().items()}
    found = check_batch_norms(student, (3, side, side), batch)
    assert [note.partition(":")[0] for note in found] == ["--batch-size 1"] * notes
    assert not student.training
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


def test_norms_that_would_get_one_value_are_refused():
    with pytest.raises(UserError, match=r"--batch-size 1: .*give at least 2"):
        check_batch_norms(timm.create_model("resnet18"), (3, 32, 32), 1)
