"""Growth operators by name: which there are, what they declare, and which names are refused."""

import pytest

from isometry.config import GrowConfig
from isometry.errors import UserError
from isometry.grow.operators import DepthOperator, WidthOperator, available, find_operators


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
