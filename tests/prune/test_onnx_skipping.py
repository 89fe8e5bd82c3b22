"""The graph that computes an image's kept channels alone, against the gated network that computes them all."""

import onnx
import pytest
import torch

from helpers.small_gated import SMALL, Small
from isometry.functional.gates import kept_gates
from isometry.models.onnx import onnx_run
from isometry.prune.gates import gated_convs
from isometry.prune.onnx_skipping import OneImage, skipping_to_onnx
from isometry.prune.skipping import skipping


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("kind", SMALL)
@torch.no_grad()
def test_outputs_are_those_of_the_gated_network_image_by_image(kind, group):
    small = SMALL[kind]
    network = small.gated(group)
    images = small.images(5)
    single = OneImage(skipping(network))
    found = torch.stack([single(image) for image in images])
    torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_image_whose_gates_are_all_under_the_threshold_keeps_its_largest():
    small = SMALL["basic"]
    network = small.gated()
    for conv in gated_convs(network).values():
        conv.gate.threshold.fill_(1e6)
    images = small.images(3)
    single = OneImage(skipping(network))
    found = torch.stack([single(image) for image in images])
    torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-4)
    gate_output = next(iter(gated_convs(network).values())).gate_output
    assert kept_gates(gate_output.saliency, torch.tensor(1e6)).sum(1).tolist() == [1, 1, 1]


@torch.no_grad()
def test_its_onnx_file_takes_any_number_of_images_and_skips(tmp_path):
    small = Small("cifar_resnet20", {"layers": (1, 1, 1), "num_classes": 5})
    network = small.gated(2)
    images = small.images(6)
    path = tmp_path / "skipping.onnx"
    skipping_to_onnx(skipping(network), images[0], path)
    run = onnx_run(path, 1)
    for size in (1, 4, 6):
        torch.testing.assert_close(run(images[:size]), network(images[:size]), rtol=1e-4, atol=1e-4)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (scan,) = model.graph.node
    (body,) = (each.g for each in scan.attribute if each.name == "body")
    constants = {tensor.name for tensor in body.initializer}
    gathered = [node for node in body.node if node.op_type == "Conv" and node.input[1] not in constants]
    assert len(gathered) == len(gated_convs(network))
