"""The manifold terms against the paper's sums, and the laws that they obey."""

import pytest
import torch

from isometry.losses import InterImage, IntraImage, Loss, RandomPatches, WholeBatch
from oracles import manifold as oracle

B, N, CS, CT = 3, 5, 4, 7


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(B, N, CS, generator=generator),
        torch.randn(B, N, CT, generator=generator),
    )


ENTRIES = {"whole": (B * N) ** 2, "inter": B**2, "intra": N**2}
"""What makes a paper-sized value a mean over entries (eq. 10 and 11 are already divided by N and B)."""


@pytest.mark.parametrize(
    ("loss", "name"), [(WholeBatch, "whole"), (InterImage, "inter"), (IntraImage, "intra")]
)
def test_both_reductions_equal_the_papers_sums(tokens, loss, name):
    expected = getattr(oracle, name)(*tokens)
    torch.testing.assert_close(loss("paper")(*tokens).double(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(loss("mean")(*tokens).double(), expected / ENTRIES[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", [WholeBatch, InterImage, IntraImage])
def test_the_default_is_the_mean(tokens, loss):
    assert loss()(*tokens) == loss(reduction="mean")(*tokens)


def test_random_patches_draws_the_same_tokens_on_both_sides(tokens):
    drawn = torch.randperm(B * N, generator=torch.Generator().manual_seed(7))[:6]
    expected = oracle.random(*tokens, drawn)
    paper = RandomPatches(k=6, reduction="paper", generator=torch.Generator().manual_seed(7))(*tokens)
    mean = RandomPatches(k=6, generator=torch.Generator().manual_seed(7))(*tokens)
    torch.testing.assert_close(paper.double(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(mean.double(), expected / 36, rtol=1e-5, atol=1e-7)


def test_random_patches_follows_its_generator_alone(tokens):
    def value(seed):
        return RandomPatches(k=3, generator=torch.Generator().manual_seed(seed))(*tokens)

    torch.manual_seed(1)
    first = value(5)
    torch.manual_seed(2)
    assert value(5) == first
    assert any(value(seed) != first for seed in range(6, 12))


def test_random_patches_with_all_tokens_is_the_whole_map(tokens):
    everything = RandomPatches(k=10_000, generator=torch.Generator())(*tokens)
    torch.testing.assert_close(everything, WholeBatch()(*tokens), rtol=1e-5, atol=1e-7)


def test_the_papers_default_number_of_tokens_is_192():
    assert RandomPatches().k == 192


def test_random_patches_refuses_to_draw_nothing():
    with pytest.raises(ValueError, match="at least 1"):
        RandomPatches(k=0)


@pytest.mark.parametrize("loss", [WholeBatch(), InterImage(), IntraImage()])
def test_rotation_and_scale_of_either_side_change_nothing(tokens, loss: Loss):
    student, teacher = tokens
    rotation, _ = torch.linalg.qr(torch.randn(CT, CT, generator=torch.Generator().manual_seed(3)))
    torch.testing.assert_close(
        loss(3 * student, teacher @ rotation), loss(student, teacher), rtol=1e-4, atol=1e-6
    )


def test_permuting_all_tokens_of_both_sides_changes_the_whole_map_not_at_all(tokens):
    order = torch.randperm(B * N, generator=torch.Generator().manual_seed(4))
    mixed = [side.flatten(0, 1)[order].view(B, N, -1) for side in tokens]
    torch.testing.assert_close(WholeBatch()(*mixed), WholeBatch()(*tokens), rtol=1e-5, atol=1e-7)
    assert not torch.isclose(IntraImage()(*mixed), IntraImage()(*tokens), rtol=1e-3)


def test_the_whole_map_holds_the_two_partial_ones():
    """All of intra's squares and all of inter's (but for the diagonal, which is 0) are among the whole map's."""
    generator = torch.Generator().manual_seed(9)
    student, teacher = torch.randn(4, 3, 5, generator=generator), torch.randn(4, 3, 6, generator=generator)
    parts = 4 * IntraImage("paper")(student, teacher) + 3 * InterImage("paper")(student, teacher)
    assert WholeBatch("paper")(student, teacher) >= parts * (1 - 1e-5)


@pytest.mark.parametrize("blocks", [0, 2])
def test_centred_tokens_are_compared_without_what_they_share(tokens, blocks):
    student, teacher = tokens
    shifted = student + torch.randn(CS), teacher + torch.randn(CT)
    expected = oracle.whole(student - student.mean((0, 1)), teacher - teacher.mean((0, 1)))
    given = [torch.stack([side] * blocks) if blocks else side for side in shifted]
    value = WholeBatch("paper", centre=True)(*given)
    torch.testing.assert_close(value.double(), expected.expand(value.shape), rtol=1e-4, atol=1e-5)
