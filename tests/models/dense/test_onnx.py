"""ONNX files of detectors and segmentation networks: the answers of the network before NMS."""

import pytest
import torch

from helpers.dense_networks import BACKBONES, dense_network, images_of
from isometry.models.dense.onnx import dense_to_onnx
from isometry.models.onnx import library, onnx_run_all

QUICK = ("vit_tiny_patch16_224",)
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["detect", "segment"])
@torch.no_grad()
def test_answers_are_those_of_the_network_within_a_ten_thousandth(tmp_path, task, name):
    """Boxes in pixels; the file takes batches of any size."""
    network = dense_network(task, name)
    dense_to_onnx(network, images_of(2), tmp_path / "network.onnx")
    model = library("onnx").load(tmp_path / "network.onnx")
    outputs = ["boxes", "scores"] if task == "detect" else ["logits"]
    assert [output.name for output in model.graph.output] == outputs
    run = onnx_run_all(tmp_path / "network.onnx", 1)
    for count in (1, 3):
        images = images_of(count, seed=count)
        wanted = network.raw(images) if task == "detect" else (network.raw(images),)
        for found, right in zip(run(images), wanted, strict=True):
            torch.testing.assert_close(found, right, rtol=0, atol=1e-4)
