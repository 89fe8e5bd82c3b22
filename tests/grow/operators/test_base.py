"""Growth operators by name: their declarations, their orders of blocks, and unknown names."""

import pytest

from isometry.config import GrowConfig
from isometry.errors import UserError
from isometry.grow.operators import DepthOperator, Placed, WidthOperator, available, find_operators
from oracles import growth as oracle

DEPTH = available(DepthOperator)


@pytest.mark.parametrize(
    ("kind", "names", "preserving"),
    [
        (DepthOperator, {"identity", "insert", "stack"}, {"identity"}),
        (WidthOperator, {"duplicate", "interpolate"}, {"duplicate"}),
    ],
)
def test_operators_that_there_are(kind, names, preserving):
    found = available(kind)
    assert names <= set(found)
    assert {name for name in names if found[name].preserves} == preserving
    assert all(operator.name == name for name, operator in found.items())


def test_the_options_name_one_of_each_kind():
    depth, width = find_operators(GrowConfig(depth_operator="stack", width_operator="interpolate"))
    assert (depth.name, width.name) == ("stack", "interpolate")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth_operator": "insrt"}, r"^--grow.depth-operator insrt: .* insert"),
        ({"depth_operator": "duplicate"}, r"^--grow.depth-operator duplicate: .* identity, insert, .*stack$"),
        ({"width_operator": "copy"}, r"^--grow.width-operator copy: .* duplicate, interpolate$"),
    ],
)
def test_unknown_operators_are_refused_with_those_of_their_kind(options, message):
    with pytest.raises(UserError, match=message):
        find_operators(GrowConfig(**options))


def test_the_published_example():
    """4→6 = [1, 2, 3, ema3, 4, ema4]; stacked it is [1, 2, 3, 4, ema3, ema4]."""
    assert DEPTH["insert"].order(4, 6) == [
        Placed(0),
        Placed(1),
        Placed(2),
        Placed(2, averaged=True),
        Placed(3),
        Placed(3, averaged=True),
    ]
    assert DEPTH["stack"].order(4, 6) == [
        *map(Placed, range(4)),
        Placed(2, averaged=True),
        Placed(3, averaged=True),
    ]
    assert DEPTH["identity"].order(4, 6) == [*map(Placed, range(4)), Placed(None), Placed(None)]


@pytest.mark.parametrize("name", ["insert", "stack", "identity"])
def test_orders_are_the_oracles(name):
    for depth in range(1, 13):
        for larger in range(depth, 2 * depth + 1):
            order = DEPTH[name].order(depth, larger)
            assert [tuple(placed) for placed in order] == oracle.ORDERS[name](depth, larger), (depth, larger)
            assert len(order) == larger


@pytest.mark.parametrize("name", ["insert", "stack"])
def test_more_blocks_than_there_are_to_copy_are_refused(name):
    with pytest.raises(ValueError, match=r"4 .*3"):
        DEPTH[name].order(3, 7)


def test_new_blocks_need_no_source():
    assert [placed.source for placed in DEPTH["identity"].order(1, 4)] == [0, None, None, None]
