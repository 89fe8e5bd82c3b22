"""What can carry a head, and what is refused."""

import pytest
import timm
import torch

from helpers.dense_networks import BACKBONES, CLASSES, backbone_of
from helpers.exported import gated_network
from helpers.pruned_runs import small_network
from isometry.data import ImageSpec
from isometry.errors import UserError
from isometry.models.dense.build import backbone_arguments, build_dense
from isometry.prune.cutting import cut

SPEC = ImageSpec((3, 96, 96), (0.5,) * 3, (0.5,) * 3)
SPEC_1 = ImageSpec((1, 96, 96), (0.5,), (0.5,))
GREY = ImageSpec((1, 16, 16), (0.5,), (0.5,))


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_the_backbone_keeps_its_weights_and_loses_its_classifier(task):
    backbone = backbone_of("resnet18")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    network = build_dense(task, backbone, CLASSES, SPEC)
    assert (network.task, network.class_names, network.spec) == (task, CLASSES, SPEC)
    assert network.backbone is backbone
    after = network.backbone.state_dict()
    assert before.keys() - after.keys() == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, before[key]) for key, value in after.items())


def test_building_draws_the_heads_from_the_seed_alone():
    def head():
        torch.manual_seed(0)
        return build_dense("detect", backbone_of("resnet18"), CLASSES, SPEC).fcos.state_dict()

    first, second = head(), head()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("name", BACKBONES)
def test_arguments_build_the_same_backbone(name):
    network = build_dense("detect", backbone_of(name, channels=1), CLASSES, SPEC_1)
    again = timm.create_model(name, **backbone_arguments(network.backbone))
    again.load_state_dict(network.backbone.state_dict())


def cut_network():
    network = small_network()
    cut(network, {"layer2.0.conv1": torch.arange(16) % 2 == 0})
    return network


@pytest.mark.parametrize("pruned", [gated_network, cut_network])
def test_pruned_backbones_are_refused(pruned):
    with pytest.raises(UserError, match=r"cifar_resnet20: was pruned, .* from before pruning"):
        build_dense("detect", pruned(), CLASSES, GREY)


def test_a_backbone_without_feature_maps_is_refused():
    backbone = backbone_of("resnet18")
    del backbone.feature_info
    with pytest.raises(UserError, match="ResNet: timm gives no feature maps of this architecture"):
        build_dense("segment", backbone, CLASSES, SPEC)
