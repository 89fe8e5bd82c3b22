"""Networks that `isometry bench` refuses, rather than measure their backbones in their place."""

import shutil

import pytest
import torch

from helpers.dense_networks import dense_network
from isometry.errors import UserError
from isometry.evaluation.benchmark_inputs import benchmark_input
from isometry.evaluation.saved_network import ImagesConfig
from isometry.models.dense.saving import save_dense


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_network_of_boxes_or_masks_is_refused_and_its_backbone_named(task, tmp_path):
    network, device = dense_network(task), torch.device("cpu")
    save_dense(network, tmp_path / "run" / "model")
    backbone = tmp_path / "run" / "student"
    backbone.mkdir()
    for name in (str(tmp_path / "run"), f"local-dir:{tmp_path / 'run' / 'model'}"):
        with (
            pytest.raises(UserError, match=f"finds boxes or masks; give its backbone instead: {backbone};"),
            benchmark_input(name, ImagesConfig(), device),
        ):
            pass
    shutil.copytree(tmp_path / "run" / "model", tmp_path / "alone")
    with (
        pytest.raises(UserError, match="give its backbone alone"),
        benchmark_input(str(tmp_path / "alone"), ImagesConfig(), device),
    ):
        pass
