"""Segmentation networks: logits of every pixel, and a loss that pixels with 255 have no part in."""

import pytest
import torch
from torch.nn import functional as F

from helpers.dense_networks import BACKBONES, CLASSES, dense_network, images_of


def masks_of(count, seed=2):
    return torch.randint(0, len(CLASSES), (count, 96, 96), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_every_pixel_has_logits(name, channels):
    network = dense_network("segment", name, channels=channels)
    images = images_of(2, channels)
    logits_BKHW = network(images)
    assert logits_BKHW.shape == (2, len(CLASSES), 96, 96)
    assert torch.equal(logits_BKHW, network.raw(images))


def test_the_loss_is_the_mean_over_pixels_that_are_not_ignored():
    network, images, masks = dense_network("segment").train(), images_of(2), masks_of(2)
    masks[0, :50] = 255
    torch.manual_seed(0)
    found = network(images, masks)["loss"]
    torch.manual_seed(0)
    logits = network.raw(images).movedim(1, 3)
    counted = masks != 255
    torch.testing.assert_close(found, F.cross_entropy(logits[counted], masks[counted]))


def test_masks_that_are_ignored_altogether_cost_nothing():
    network = dense_network("segment").train()
    loss = network(images_of(2), torch.full((2, 96, 96), 255))["loss"]
    assert loss == 0
    loss.backward()
    assert all(value.grad is None or not value.grad.any() for value in network.parameters())


def test_a_segmentation_network_in_training_mode_needs_masks():
    with pytest.raises(ValueError, match="needs masks"):
        dense_network("segment").train()(images_of(1))


def test_a_few_steps_separate_two_halves():
    network, images = dense_network("segment"), images_of(2)
    images[:, :, :48] += 1
    masks = torch.zeros(2, 96, 96, dtype=torch.int64)
    masks[:, :48] = 2
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    torch.manual_seed(0)
    for _ in range(15):
        optimizer.zero_grad()
        network.train()(images, masks)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        right = network.eval()(images).argmax(1) == masks
    assert right.double().mean() > 0.9
