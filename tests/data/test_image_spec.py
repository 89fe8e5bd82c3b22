"""The images that a network expects, from a ``pretrained_cfg`` of timm or a damaged one."""

import pytest

from isometry.data import ImageSpec
from isometry.errors import UserError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("mean", value) for value in ([], [0.5], [0.5] * 4, [float("nan")] * 3, [1e300] * 3, 0.5, "abc")],
        *[("std", value) for value in ([], [0.5], [1e-300] * 3, [0, 1, 1], [-1, 1, 1], [float("inf")] * 3)],
        *[("crop_mode", value) for value in ("foo", "", 1, [])],
        *[("crop_pct", value) for value in (0, 0.0, -1, 1e-9, float("nan"), "1", [])],
        *[("interpolation", value) for value in ("foo", "", [])],
    ],
)
def test_values_that_no_image_can_have_are_refused(name, value):
    with pytest.raises(UserError, match=rf"config\.json has the invalid {name} .*: correct it there"):
        ImageSpec.from_pretrained_cfg({"input_size": (3, 8, 8), name: value})


def test_values_of_timm_and_those_left_out():
    left_out = ImageSpec.from_pretrained_cfg({"input_size": (3, 8, 8), "mean": None, "crop_pct": None})
    assert left_out == ImageSpec((3, 8, 8), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    small = {"std": [1 / 255] * 3, "mean": [0.0] * 3, "crop_mode": "squash", "crop_pct": 1}
    assert ImageSpec.from_pretrained_cfg(small).crop_mode == "squash"
    # timm has three values also for one channel, or for five.
    for channels in (1, 5):
        found = ImageSpec.from_pretrained_cfg({"input_size": (channels, 8, 8), "mean": [0.25, 0.5, 0.75]})
        assert found.mean == (0.5,) * channels
