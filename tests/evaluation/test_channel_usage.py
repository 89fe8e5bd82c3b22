"""Easy and hard images in the report, against sorting and counting images one at a time."""

import math

import pytest
import torch
from torch.nn import functional as F

from helpers.small_gated import SMALL
from isometry.data import ImageSpec
from isometry.evaluation.channel_usage import PICTURE_SIDE, pruning_data
from isometry.prune.cost import channel_use
from isometry.prune.gates import gated_convs, take_gate_outputs

SPEC = ImageSpec((3, 32, 32), (0.5, 0.4, 0.3), (0.25, 0.2, 0.5))
SMALL_ONE = SMALL["cifar"]


def pictures(count: int, side: int = 32) -> torch.Tensor:
    """uint8 (N, 3, side, side)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (SPEC.mean, SPEC.std))
    return (pixels / 255 - mean) / std


def batches(
    images: torch.Tensor, labels: torch.Tensor, size: int = 5
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(images.split(size), labels.split(size), strict=True))


@torch.no_grad()
def test_groups_are_the_quarters_of_the_images_by_loss():
    network, pixels, labels = SMALL_ONE.gated(), pictures(22), torch.arange(22) % 5
    images = normalised(pixels)
    found = pruning_data(network, batches(images, labels), SPEC)
    losses = [
        -float(F.log_softmax(network(image[None]).double(), 1)[0, label])
        for image, label in zip(images, labels.tolist(), strict=True)
    ]
    use = channel_use(network, [images], SPEC.input_size)
    order = sorted(range(22), key=losses.__getitem__)
    assert found.layers == use.layers
    for group, members in ((found.easy, order[:5]), (found.hard, order[-5:])):
        for layer, share in enumerate(group.shares):
            kept = [int(use.kept[member, layer]) / int(use.channels[layer]) for member in members]
            assert share == pytest.approx(sum(kept) / 5, rel=1e-5)
        assert group.macs == pytest.approx(sum(int(use.macs[member]) for member in members) / 5)
    assert found.easy.shares != found.hard.shares
    for group, members in ((found.easy, order[:3]), (found.hard, order[:-4:-1])):
        for example, member in zip(group.examples, members, strict=True):
            assert torch.equal(torch.from_numpy(example.pixels).permute(2, 0, 1), pixels[member])
            assert example.loss == pytest.approx(losses[member], rel=1e-4)
            assert example.macs == int(use.macs[member])


def test_batch_size_does_not_matter():
    network, images, labels = SMALL_ONE.gated(), normalised(pictures(12)), torch.arange(12) % 5
    one, other = (pruning_data(network, batches(images, labels, size), SPEC) for size in (12, 5))
    assert one.easy.shares == pytest.approx(other.easy.shares)
    assert one.hard.macs == other.hard.macs
    assert [example.macs for example in one.hard.examples] == [
        example.macs for example in other.hard.examples
    ]


@torch.no_grad()
def test_maps_are_cosines_between_images_sorted_by_class():
    network, images = SMALL_ONE.gated(), normalised(pictures(5))
    labels = torch.tensor([3, 0, 4, 1, 2])
    found = pruning_data(network, batches(images, labels), SPEC)
    convs = gated_convs(network)
    network(images[[1, 3, 4, 0, 2]])
    glances = dict(zip(convs, take_gate_outputs(list(convs.values())), strict=True))
    names = list(convs)
    assert [maps.layer for maps in found.maps] == [names[0], names[4], names[-1]]
    for maps in found.maps:
        sides = []
        for rows, drawn in zip(glances[maps.layer], (maps.features, maps.saliencies), strict=True):
            cosines = [[cosine(a, b) for b in rows.tolist()] for a in rows.tolist()]
            assert drawn == pytest.approx(torch.tensor(cosines).numpy(), abs=1e-5)
            sides.append(cosines)
        squares = [
            (a - b) ** 2 for one, two in zip(*sides, strict=True) for a, b in zip(one, two, strict=True)
        ]
        assert maps.gap == pytest.approx(sum(squares) / 25, rel=1e-3)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_large_images_are_scaled_down():
    large = ImageSpec((3, 128, 128), SPEC.mean, SPEC.std)
    found = pruning_data(
        SMALL_ONE.gated(), batches(normalised(pictures(2, 128)), torch.zeros(2).long()), large
    )
    assert {example.pixels.shape for example in found.hard.examples} == {(PICTURE_SIDE, PICTURE_SIDE, 3)}


def test_the_network_is_unchanged():
    network = SMALL_ONE.gated()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pruning_data(network, batches(normalised(pictures(4)), torch.zeros(4).long()), SPEC)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(conv.gate_output is None for conv in gated_convs(network).values())


def test_one_image_is_easy_and_hard():
    found = pruning_data(SMALL_ONE.gated(), batches(normalised(pictures(1)), torch.zeros(1).long()), SPEC)
    assert found.easy.shares == found.hard.shares
    assert len(found.easy.examples) == 1


def test_unsuitable_networks_and_empty_splits_are_refused():
    for network in (SMALL_ONE.gated().train(), SMALL_ONE.plain()):
        with pytest.raises(ValueError, match=r"gates|eval"):
            pruning_data(network, [], SPEC)
    with pytest.raises(ValueError, match="images"):
        pruning_data(SMALL_ONE.gated(), [], SPEC)
