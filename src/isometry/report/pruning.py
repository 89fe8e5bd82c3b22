"""A pruned network: its forms as a table and in words, and the channels that its images used, drawn."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup
from rich.table import Table

from isometry.report import formats
from isometry.report.drawing.charts import colour_range, map_png, picture_png, shares_svg
from isometry.report.records.data import ImageGroup, PruningData, Row, SaliencyMaps
from isometry.report.tables import PARTS, Grid, rich_table

UNCUT = ("dense", "masked")
"""Forms that promise no speed: the one that others are measured against, and the one that trains."""


class Shares(NamedTuple):
    """How many channels easy and hard images kept, layer by layer: in words and drawn for a wide and a narrow page."""

    sentence: str
    svg: Markup
    narrow_svg: Markup


class Shown(NamedTuple):
    """Example images of one group: (data URI, MACs, loss)."""

    group: str
    examples: list[tuple[str, str, str]]


class MapPair(NamedTuple):
    """The two maps of one layer under one colour scale."""

    layer: str
    maps: list[tuple[str, str, str]]
    """(of what, data URI, what the gap is)."""
    low: str
    high: str


class PruningSection(NamedTuple):
    """What the page shows of a pruned network."""

    sentence: str
    slower: list[str]
    grid: Grid
    conditions: str
    shares: Shares | None
    shown: list[Shown]
    maps: list[MapPair]


def pruning_section(data: PruningData, wide: tuple[int, int], narrow: tuple[int, int]) -> PruningSection:
    """The section, with pictures for a wide and a narrow page, (width, height) in CSS pixels each."""
    groups = [("easy images", data.easy), ("hard images", data.hard)]
    return PruningSection(
        saving_sentence(data.forms),
        slower_sentences(data.forms),
        forms_grid(data.forms),
        data.conditions,
        _shares(data, wide, narrow),
        [_shown(name, group) for name, group in groups if group is not None and group.examples],
        [_map_pair(maps) for maps in data.maps],
    )


def forms_grid(forms: Sequence[Row]) -> Grid:
    """A column a form, with the keys of `PruningData.forms`: what it gets right and computes, and a row a batch size
    with its measured speed, each with its ratio to dense's; rows that no form fills are left out."""
    parts = {form.get("top1_part") for form in forms if formats.is_number(form.get("top1"))}
    on = f" on {PARTS.get(part, part)}" if len(parts) == 1 and (part := next(iter(parts))) else ""
    dense = _dense(forms)
    rows = [
        [f"top-1{on}", *(formats.percent(form.get("top1")) for form in forms)],
        ["params", *(formats.params(form.get("params")) for form in forms)],
        [
            "MACs",
            *(_over_dense(formats.macs(form.get("macs")), form, _macs_ratio(form, dense)) for form in forms),
        ],
        ["over images", *(_spread(form) for form in forms)],
    ]
    for place, size in enumerate(speed["batch_size"] for speed in (forms[0]["speeds"] if forms else [])):
        unit = "ms" if size == 1 else "images/s"
        rows.append([f"batch {size}, {unit}", *(_speed(form, place) for form in forms)])
    filled = [row for row in rows if any(cell != formats.MISSING for cell in row[1:])]
    return Grid(["", *(form["form"] for form in forms)], filled)


def forms_table(forms: Sequence[Row]) -> Table:
    """`forms_grid` for the terminal."""
    return rich_table(forms_grid(forms))


def slower_sentences(forms: Sequence[Row]) -> list[str]:
    """A sentence for each form that is there to be faster than dense, and each batch size at which it is not."""
    return [
        f"{form['form']} is not faster at batch {speed['batch_size']}: {speed['ratio']:.2f} times dense"
        for form in forms
        if form["form"] not in UNCUT
        for speed in form["speeds"]
        # As it is written: what reads 1.00 is no gain.
        if formats.is_number(speed.get("ratio")) and round(speed["ratio"], 2) <= 1
    ]


def saving_sentence(forms: Sequence[Row]) -> str:
    """What the last form saves of dense's multiply-accumulates, and beside it what the clock says; empty
    where there is no other form."""
    dense, last = _dense(forms), forms[-1] if forms else None
    if dense is None or last is None or last is dense:
        return ""
    share = _macs_ratio(last, dense)
    if not formats.is_number(share):
        return ""
    used = f"An image takes {formats.macs(last['macs'])} multiply-accumulates"
    if formats.is_number(last.get("macs_low")):
        used += f" on average, {formats.macs(last['macs_low'])} to {formats.macs(last['macs_high'])} for nine in ten,"
    used += f" where dense takes {formats.macs(dense['macs'])} ({formats.signed(100 * (share - 1), 0)} %)."
    speeds = ", ".join(
        f"{formats.times(speed['ratio'])} at batch {speed['batch_size']}"
        for speed in last["speeds"]
        if formats.is_number(speed.get("ratio"))
    )
    return (
        f"{used} Measured on the clock, the speed of {last['form']} over that of dense is {speeds}."
        if speeds
        else used
    )


def _dense(forms: Sequence[Row]) -> Row | None:
    return next((form for form in forms if form["form"] == "dense"), None)


def _macs_ratio(form: Row, dense: Row | None) -> float | None:
    if dense is None or not (formats.is_number(form.get("macs")) and formats.is_number(dense.get("macs"))):
        return None
    return form["macs"] / dense["macs"] if dense["macs"] > 0 else None


def _over_dense(text: str, form: Row, ratio: float | None) -> str:
    if form["form"] == "dense" or not formats.is_number(ratio):
        return text
    return f"{text} · {formats.times(ratio)}"


def _spread(form: Row) -> str:
    if not formats.is_number(form.get("macs_std")):
        return formats.MISSING
    return f"± {formats.macs(form['macs_std'])}, {formats.macs(form['macs_low'])}–{formats.macs(form['macs_high'])}"


def _speed(form: Row, place: int) -> str:
    speed = form["speeds"][place]
    text = formats.number(speed["ms"]) if speed["batch_size"] == 1 else formats.rate(speed["images_per_s"])
    return _over_dense(text, form, speed.get("ratio"))


def _shares(data: PruningData, wide: tuple[int, int], narrow: tuple[int, int]) -> Shares | None:
    if data.easy is None or data.hard is None or not data.layers:
        return None
    groups = [("easy images", data.easy.shares), ("hard images", data.hard.shares)]
    drawn = [Markup(shares_svg(data.layers, groups, size)) for size in (wide, narrow)]
    return Shares(_easy_and_hard(data.easy, data.hard), *drawn)


def _easy_and_hard(easy: ImageGroup, hard: ImageGroup) -> str:
    told = (
        "Easy are the quarter of the images with the lowest cross-entropy, hard the quarter with the highest. "
        f"An easy one took {formats.macs(easy.macs)} multiply-accumulates on average, "
        f"a hard one {formats.macs(hard.macs)}"
    )
    change = 100 * (hard.macs / easy.macs - 1) if easy.macs > 0 else None
    return f"{told} ({formats.signed(change)} %)." if formats.is_number(change) else f"{told}."


def _shown(name: str, group: ImageGroup) -> Shown:
    return Shown(
        name,
        [
            (
                picture_png(example.pixels),
                f"{formats.macs(example.macs)} MACs",
                f"loss {formats.number(example.loss)}",
            )
            for example in group.examples
        ],
    )


def _map_pair(maps: SaliencyMaps) -> MapPair:
    low, high = colour_range([maps.saliencies, maps.features])
    drawn = [
        ("saliencies", map_png(maps.saliencies, low, high), f"gap {formats.number(maps.gap)}"),
        ("pooled features", map_png(maps.features, low, high), ""),
    ]
    return MapPair(maps.layer, drawn, formats.number(low), formats.number(high))
