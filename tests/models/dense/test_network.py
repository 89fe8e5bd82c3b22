"""A frozen backbone stays as it is, whatever the rest learns."""

import pytest
import torch

from helpers.dense_networks import dense_network, images_of, targets_of


def train(network, task, steps=3):
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    torch.manual_seed(0)
    for step in range(steps):
        optimizer.zero_grad()
        masks = torch.zeros(2, 96, 96, dtype=torch.int64)
        targets = targets_of([[10, 10, 40, 40]], [[5, 5, 60, 60]]) if task == "detect" else masks
        sum(network.train()(images_of(2, seed=step), targets).values()).backward()
        optimizer.step()


@pytest.mark.parametrize("task", ["detect", "segment"])
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_nothing_of_a_frozen_backbone_changes_and_everything_else_does(task, name):
    network = dense_network(task, name).freeze_backbone()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    train(network, task)
    after = network.state_dict()
    frozen = [key for key in before if key.startswith("backbone.")]
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    assert all(value.grad is None for value in network.backbone.parameters())
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert {*before} == {*frozen, *changed}


def test_without_freezing_weights_and_running_means_change():
    network = dense_network("detect", "resnet18")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    train(network, "detect")
    after = network.state_dict()
    same = [key for key in before if key.startswith("backbone.") and torch.equal(before[key], after[key])]
    assert same == []


def test_a_frozen_backbone_is_in_eval_mode_in_training():
    network = dense_network("detect").train().freeze_backbone()
    for _ in range(2):
        assert network.training
        assert not any(module.training for module in network.backbone.modules())
        assert all(module.training for module in network.pyramid.modules())
        network.eval()
        assert not any(module.training for module in network.modules())
        network.train()
