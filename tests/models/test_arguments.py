"""Arguments of networks that are refused before anything is built."""

import pytest

from isometry.errors import UserError
from isometry.models.arguments import check_arguments


def test_sizes_that_no_network_has():
    check_arguments({"depth": 2**20, "dims": [1, -5], "act": "relu", "rate": 1e30}, "place, ")
    with pytest.raises(UserError, match=r"^place, dims: must be at most 1,048,576"):
        check_arguments({"depth": 1, "dims": [4, 2**20 + 1]}, "place, ")
    with pytest.raises(UserError, match=r"^place, a: \\x1bb: must be"):
        check_arguments({"a": {"\x1bb": 10**400}}, "place, ")


def test_arguments_that_name_files_or_devices():
    for name in ("checkpoint_path", "pretrained", "device"):
        with pytest.raises(UserError, match=rf"^here: {name}: is no argument of a network"):
            check_arguments({"depth": 1, name: "x"}, "here: ")
