"""Where patches lie in tokens and maps, told from changes of corners."""

import pytest
import torch
from torch import Tensor, nn

from isometry.errors import UserError
from isometry.models.patch_layout import PatchLayout, noise, probe_layout

SIZE = (3, 32, 48)
IMAGE = noise(SIZE, torch.zeros(()))


def stem(patch: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 5, patch, patch)


def tokens(before: int, after: int = 0) -> Tensor:
    """A function image -> tokens in rows, with others before and after them."""
    embed = stem()

    def entering(image: Tensor) -> Tensor:
        patches = embed(image).flatten(2).mT
        return torch.cat([torch.ones(1, before, 5), patches, torch.ones(1, after, 5)], dim=1)

    return entering


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (5, 0), (0, 4), (2, 3)])
def test_tokens_before_and_after_the_patches_are_told(before, after):
    assert probe_layout(tokens(before, after), IMAGE) == PatchLayout("BNC", (4, 6), before)


def test_tokens_of_which_each_sees_all_are_told_by_the_largest_change():
    plain = tokens(1)

    def mixed(image):
        found = plain(image)
        return found + 0.01 * found.mean(1, keepdim=True)

    assert probe_layout(mixed, IMAGE) == PatchLayout("BNC", (4, 6), 1)


def test_maps_are_told_from_maps_with_channels_last():
    embed = stem()
    assert probe_layout(embed, IMAGE) == PatchLayout("BCHW", (4, 6))
    assert probe_layout(lambda image: embed(image).permute(0, 2, 3, 1), IMAGE) == PatchLayout("BHWC", (4, 6))


def test_a_map_of_as_many_channels_as_rows_is_told_too():
    embed = nn.Conv2d(3, 4, 8, 8)
    square = noise((3, 32, 32), torch.zeros(()))
    assert probe_layout(embed, square).axes == "BCHW"
    assert probe_layout(lambda image: embed(image).permute(0, 2, 3, 1), square).axes == "BHWC"


def test_overlapping_kernels_before_the_first_block_are_no_hindrance():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 5, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    assert probe_layout(layers, IMAGE) == PatchLayout("BCHW", (8, 12))


@pytest.mark.parametrize(
    ("entering", "why"),
    [
        (lambda image: torch.ones(1, 7, 5), "does not reach"),
        (lambda image: image.flatten(1), "1×4608 enter"),
        (lambda image: torch.cat([image[:, :, :1, :1].flatten(2).mT] * 3, dim=1), "does not reach|no grid"),
        (lambda image: tokens(0)(image).flip(1), "no grid in rows"),
    ],
)
def test_what_tells_nothing_is_refused(entering, why):
    with pytest.raises(UserError, match=f"patches can't be found.*({why})"):
        probe_layout(entering, IMAGE)


def test_features_become_maps_and_tokens_of_patches_alone():
    patches = torch.arange(24.0).view(1, 24, 1)
    given = torch.cat([torch.full((1, 2, 1), -1.0), patches, torch.full((1, 1, 1), -2.0)], dim=1)
    layout = PatchLayout("BNC", (4, 6), 2)
    assert torch.equal(layout.as_map(given).flatten(2).mT, patches)
    assert torch.equal(layout.as_map(given)[0, 0], torch.arange(24.0).view(4, 6))
    assert PatchLayout("BHWC", (4, 6)).as_map(torch.zeros(2, 4, 6, 3)).shape == (2, 3, 4, 6)


def test_later_blocks_may_have_a_coarser_grid_and_no_other():
    layout = PatchLayout("BNC", (8, 12))
    assert layout.as_map(torch.zeros(1, 24, 3)).shape == (1, 3, 4, 6)
    for shape in ((1, 25, 3), (1, 3)):
        with pytest.raises(UserError, match="grid is not known"):
            layout.as_map(torch.zeros(shape))
    with pytest.raises(UserError, match="where maps were expected"):
        PatchLayout("BCHW", (8, 12)).as_map(torch.zeros(1, 96, 3))
