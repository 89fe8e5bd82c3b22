"""Number formats of the terminal, Markdown files and the report."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeGuard

MISSING = "–"
MINUS = "−"


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite real number, Python's or numpy's (a bool is not)."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _three_digits(value: float) -> str:
    rounded = float(f"{value:.3g}")
    return f"{rounded:g}" if abs(rounded) < 1000 else f"{rounded:,.0f}"


def _scaled(value: float) -> tuple[float, str]:
    # Rounded first, so that 999,960 becomes 1 M and not 1000 k.
    rounded = float(f"{value:.3g}")
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if rounded >= size:
            return rounded / size, unit
    return rounded, ""


def params(count: float | None) -> str:
    """A number of parameters, to a tenth of its unit: 5,717,416 -> "5.7 M", 520,812 -> "521 k"."""
    if not is_number(count):
        return MISSING
    scaled, unit = _scaled(count)
    return f"{scaled:.{1 if unit and scaled < 100 else 0}f}{unit}"


def macs(count: float | None) -> str:
    """A number of multiply-accumulates, to three digits: 1,258,000,000 -> "1.26 G"."""
    if not is_number(count):
        return MISSING
    scaled, unit = _scaled(count)
    decimals = (2 if scaled < 10 else 1 if scaled < 100 else 0) if unit else 0
    return f"{scaled:.{decimals}f}{unit}"


def fixed(value: float | None, decimals: int = 1, unit: str = "") -> str:
    """A figure with so many decimals: 91.42 -> "91.4", and -0.04 -> "0.0"."""
    if not is_number(value):
        return MISSING
    text = f"{value:.{decimals}f}"
    return f"{text.removeprefix('-') if float(text) == 0 else text}{unit}"


def percent(value: float | None, decimals: int = 1) -> str:
    """A figure that is already in percent: 91.42 -> "91.4 %"."""
    return fixed(value, decimals, " %")


def top1(row: Mapping[str, Any], prefix: str = "") -> str:
    """A row's accuracy, with the mean of its classes' accuracies where it has one: "90.0 % (mean of classes 55.0 %)".
    ``prefix`` is what the keys of both begin with, such as "val/"."""
    by_class = row.get(f"{prefix}top1_by_class")
    beside = f" (mean of classes {percent(by_class)})" if is_number(by_class) else ""
    return percent(row.get(f"{prefix}top1")) + beside


def rate(value: float | None) -> str:
    """Images a second, to two or three digits: 6.24 -> "6.2", 1238 -> "1,240"."""
    if not is_number(value):
        return MISSING
    return f"{value:.2g}" if abs(value) < 10 else _three_digits(value)


def duration(seconds: float | None) -> str:
    """A time: 0.84 -> "0.84 s", 72 -> "1 min 12 s", 7,500 -> "2 h 05 min", 273,600 -> "3 d 04 h"."""
    if not is_number(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(whole / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def milliseconds(seconds: float | None) -> str:
    """A time in milliseconds, to three digits and without the unit: 0.0123 -> "12.3", 12.34 -> "12,300"."""
    return _three_digits(1000 * seconds) if is_number(seconds) else MISSING


def number(value: float | None) -> str:
    """Any other figure, to three digits: 0.08341 -> "0.0834"."""
    # Adding 0 takes the sign off -0.0.
    return f"{value + 0.0:.3g}".replace("-", MINUS) if is_number(value) else MISSING


def times(value: float | None) -> str:
    """A ratio: 1.274 -> "1.27×"."""
    return fixed(value, 2, "×")


def signed(value: float | None, decimals: int = 1) -> str:
    """A difference with its sign: "+2.6", "−0.4", "0.0"."""
    if not is_number(value):
        return MISSING
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def margin(low: float | None, high: float | None, decimals: int = 1) -> str:
    """Half the width of an interval as " ± 0.6"; empty where there is no interval."""
    if not (is_number(low) and is_number(high)):
        return ""
    return f" ± {(high - low) / 2:.{decimals}f}"


def correlation(row: Mapping[str, Any]) -> str:
    """ρ with its interval: "0.87 (0.70 to 0.95)"."""
    if not is_number(row["rho"]):
        return MISSING
    rho, low, high = (f"{row[key]:.2f}".replace("-", MINUS) for key in ("rho", "low", "high"))
    return f"{rho} ({low} to {high})"
