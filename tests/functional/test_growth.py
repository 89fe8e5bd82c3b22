"""Stretched axes: copies, shares, interpolation."""

import pytest
import torch

from isometry.functional.growth import (
    along,
    interpolated,
    repeats,
    tiled,
    uneven_shares,
)
from oracles import growth as oracle


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("sizes", [(3, 6), (3, 7), (4, 5), (5, 5), (1, 4)])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_tiled_units_are_copies_in_turn(sizes, dim):
    old, new = sizes
    shape = [2, 2, 2]
    shape[dim] = old
    x = torch.randn(shape)
    sources = oracle.unit_sources(old, new)
    assert torch.equal(tiled(x, dim, new), oracle.copied(x, sources, dim))
    assert repeats(old, new).tolist() == oracle.counts(sources)


def test_parts_of_an_axis_are_tiled_by_themselves():
    """Queries, keys and values of 2 heads of 2 channels, grown to 3 heads."""
    x = torch.arange(12.0)
    sources = oracle.head_sources(old_heads=2, new_heads=3, head_width=2)
    assert tiled(x, 0, 18, groups=3).tolist() == [float(unit) for unit in sources]
    assert repeats(12, 18, groups=3).tolist() == oracle.counts(sources)


@pytest.mark.parametrize(("old", "new", "groups"), [(3, 6, 1), (3, 8, 1), (6, 15, 3), (4, 4, 1)])
def test_shares_of_a_units_copies_add_up_to_one_and_differ(old, new, groups):
    """For every reader anew; all positive, and whole where there is one copy."""
    weight = torch.zeros(5, new, 2, dtype=torch.float64)
    shares = uneven_shares(new, old, weight, 1, groups, generator())
    part = oracle.unit_sources(old // groups, new // groups)
    sources = [group * (old // groups) + unit for group in range(groups) for unit in part]
    torch.testing.assert_close(
        oracle.added_up(shares, sources, old), torch.ones(5, old, 2, dtype=torch.float64)
    )
    assert (shares > 0).all()
    numbers = oracle.counts(sources)
    for place, unit in enumerate(sources):
        twins = [other for other, its in enumerate(sources) if its == unit and other > place]
        assert all((shares[:, place] != shares[:, other]).all() for other in twins)
        if numbers[place] == 1:
            assert (shares[:, place] == 1).all()
    if new > old:
        assert shares[0].ne(shares[1]).any()


def test_shares_are_even_on_average():
    weight = torch.zeros(20_000, 5, dtype=torch.float64)
    shares = uneven_shares(5, 2, weight, 1, 1, generator())
    torch.testing.assert_close(shares.mean(0), 1 / repeats(2, 5), atol=3e-3, rtol=0)


def test_shares_are_those_of_the_seed():
    weight = torch.zeros(3, 4)
    first, again = (uneven_shares(4, 2, weight, 1, 1, generator()) for _ in range(2))
    assert torch.equal(first, again)
    other = uneven_shares(4, 2, weight, 1, 1, torch.Generator().manual_seed(4))
    assert not torch.equal(first, other)


def test_interpolation_by_hand():
    """2 units to 4: the middles of quarters, between the middles of halves."""
    assert interpolated(torch.tensor([0.0, 1.0]), 0, 4).tolist() == [0.0, 0.25, 0.75, 1.0]
    assert interpolated(torch.tensor([[2.0, 4.0, 8.0]]), 1, 2).tolist() == [[2.5, 7.0]]


@pytest.mark.parametrize(("old", "new"), [(2, 5), (3, 4), (4, 8), (5, 5), (1, 3)])
def test_interpolation_is_the_oracles(old, new):
    x = torch.randn(old, 3, dtype=torch.float64)
    expected = torch.tensor([oracle.interpolated(column, new) for column in x.T.tolist()]).T
    torch.testing.assert_close(interpolated(x, 0, new), expected.double(), atol=1e-6, rtol=0)


def test_parts_of_an_axis_are_interpolated_by_themselves():
    x = torch.tensor([0.0, 1.0, 10.0, 20.0])
    assert interpolated(x, 0, 8, groups=2).tolist() == [0.0, 0.25, 0.75, 1.0, 10.0, 12.5, 17.5, 20.0]


def test_along_makes_a_factor_of_an_axis():
    assert along(torch.tensor([1.0, 2.0]), torch.zeros(3, 2, 4, dtype=torch.float64), 1).shape == (1, 2, 1)
    assert along(torch.ones(2), torch.zeros(2, dtype=torch.float64), 0).dtype == torch.float64
