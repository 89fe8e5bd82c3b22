import numpy as np
import pytest

from isometry.report import formats


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (formats.params, 5_717_416, "5.7 M"),
        (formats.params, 520_812, "521 k"),
        (formats.params, 46_900_000, "46.9 M"),
        (formats.params, 999_960, "1.0 M"),
        (formats.params, 12, "12"),
        (formats.macs, 1_258_000_000, "1.26 G"),
        (formats.macs, 15_900_000_000, "15.9 G"),
        (formats.macs, 363_000_000, "363 M"),
        (formats.macs, 0, "0"),
        (formats.percent, 91.44, "91.4 %"),
        (formats.percent, -0.04, "0.0 %"),
        (formats.fixed, -0.0, "0.0"),
        (formats.fixed, -0.06, "-0.1"),
        (formats.percent, np.float32(91.44), "91.4 %"),
        (formats.rate, 6.24, "6.2"),
        (formats.rate, 83.42, "83.4"),
        (formats.rate, 415.3, "415"),
        (formats.rate, 1238, "1,240"),
        (formats.rate, 1_234_567, "1,230,000"),
        (formats.duration, 0.843, "0.84 s"),
        (formats.duration, 9.96, "10 s"),
        (formats.duration, 59.6, "1 min 00 s"),
        (formats.duration, 72, "1 min 12 s"),
        (formats.duration, 3599.7, "1 h 00 min"),
        (formats.duration, 7500, "2 h 05 min"),
        (formats.duration, 86_399, "1 d 00 h"),
        (formats.duration, 273_600, "3 d 04 h"),
        (formats.milliseconds, 0.01234, "12.3"),
        (formats.milliseconds, 0.9996, "1,000"),
        (formats.milliseconds, 12.34, "12,300"),
        (formats.number, 0.08341, "0.0834"),
        (formats.number, -0.5, "−0.5"),
        (formats.times, 1.274, "1.27×"),
        (formats.signed, 2.64, "+2.6"),
        (formats.signed, -0.44, "−0.4"),
        (formats.signed, -0.04, "0.0"),
    ],
)
def test_each_kind_of_number_has_its_format(write, value, text):
    assert write(value) == text


@pytest.mark.parametrize(
    "write",
    [
        formats.params,
        formats.macs,
        formats.percent,
        formats.rate,
        formats.duration,
        formats.milliseconds,
        formats.number,
        formats.times,
        formats.signed,
    ],
)
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), True])
def test_a_value_that_is_no_number_is_a_dash(write, value):
    assert write(value) == "–"


def test_margin():
    assert formats.margin(90.8, 92.0) == " ± 0.6"
    assert formats.margin(None, None) == ""
    assert formats.margin(float("nan"), 1.0) == ""
