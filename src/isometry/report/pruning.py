"""The section on a pruned network: its forms as a table and as text, and the channels that its images used, drawn."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from isometry.report import formats
from isometry.report.drawing.charts import shares_chart
from isometry.report.drawing.images import colour_range, map_png, picture_png
from isometry.report.records.data import ImageGroup, PruningData, Row, SaliencyMaps
from isometry.report.records.rows import common_part, on_part
from isometry.report.relations import MapSet
from isometry.report.tables import Grid

NOT_FOR_SPEED = ("dense", "masked")
"""The form that others are measured against, and the one that trains."""


class Shares(NamedTuple):
    """Shares of channels that easy and hard images kept, by layer; the chart is ``width`` CSS pixels wide."""

    sentence: str
    svg: Markup
    width: int


class PruningSection(NamedTuple):
    """A pruned network."""

    sentence: str
    slower: list[str]
    grid: Grid
    conditions: str
    shares: Shares | None
    examples: list[tuple[str, list[tuple[str, str, str]]]]
    """(group, (PNG, MACs, loss) of each of its images)."""
    maps: list[MapSet]


def pruning_section(data: PruningData | None) -> PruningSection | None:
    """The section; None for a run that did not prune."""
    if data is None:
        return None
    groups = [("easy images", data.easy), ("hard images", data.hard)]
    return PruningSection(
        saving_sentence(data.forms),
        slower_sentences(data.forms),
        forms_grid(data.forms),
        data.conditions,
        _shares(data),
        [(name, _examples(group)) for name, group in groups if group is not None and group.examples],
        [_maps(maps) for maps in data.maps],
    )


def forms_grid(forms: Sequence[Row]) -> Grid:
    """A column for each form, with the keys of `PruningData.forms`: accuracy, size, cost, and a row for each batch size
    with its measured speed, each with its ratio to dense's; rows that no form fills are left out."""
    dense = _dense(forms)
    rows = [
        [f"top-1{on_part(common_part(forms))}", *(formats.percent(form.get("top1")) for form in forms)],
        ["params", *(formats.params(form.get("params")) for form in forms)],
        [
            "MACs",
            *(_with_ratio(formats.macs(form.get("macs")), form, _macs_ratio(form, dense)) for form in forms),
        ],
        ["over images", *(_spread(form) for form in forms)],
    ]
    for index, size in enumerate(speed["batch_size"] for speed in (forms[0]["speeds"] if forms else [])):
        unit = "ms" if size == 1 else "images/s"
        rows.append([f"batch {size}, {unit}", *(_speed(form, index) for form in forms)])
    filled = [row for row in rows if any(cell != formats.MISSING for cell in row[1:])]
    return Grid(["", *(form["form"] for form in forms)], filled)


def slower_sentences(forms: Sequence[Row]) -> list[str]:
    """A sentence for each form that is meant to be faster than dense, and each batch size at which it is not."""
    return [
        f"{form['form']} is not faster at batch {speed['batch_size']}: {speed['ratio']:.2f} times dense"
        for form in forms
        if form["form"] not in NOT_FOR_SPEED
        for speed in form["speeds"]
        # As written: what reads 1.00 is no gain.
        if formats.is_number(speed.get("ratio")) and round(speed["ratio"], 2) <= 1
    ]


def saving_sentence(forms: Sequence[Row]) -> str:
    """What the last form saves of dense's multiply-accumulates, and its measured speed beside it; empty where there is
    no other form."""
    dense, last = _dense(forms), forms[-1] if forms else None
    share = _macs_ratio(last, dense) if last is not None and last is not dense else None
    if last is None or dense is None or not formats.is_number(share):
        return ""
    text = f"An image takes {formats.macs(last['macs'])} multiply-accumulates"
    if formats.is_number(last.get("macs_low")):
        text += f" on average, {formats.macs(last['macs_low'])} to {formats.macs(last['macs_high'])} for nine in ten,"
    text += f" where dense takes {formats.macs(dense['macs'])} ({formats.signed(100 * (share - 1), 0)} %)."
    speeds = ", ".join(
        f"{formats.times(speed['ratio'])} at batch {speed['batch_size']}"
        for speed in last["speeds"]
        if formats.is_number(speed.get("ratio"))
    )
    return f"{text} The measured speed of {last['form']} over that of dense is {speeds}." if speeds else text


def _dense(forms: Sequence[Row]) -> Row | None:
    return next((form for form in forms if form["form"] == "dense"), None)


def _macs_ratio(form: Row, dense: Row | None) -> float | None:
    if dense is None or not (formats.is_number(form.get("macs")) and formats.is_number(dense.get("macs"))):
        return None
    return form["macs"] / dense["macs"] if dense["macs"] > 0 else None


def _with_ratio(text: str, form: Row, ratio: float | None) -> str:
    if form["form"] == "dense" or not formats.is_number(ratio):
        return text
    return f"{text} · {formats.times(ratio)}"


def _spread(form: Row) -> str:
    if not formats.is_number(form.get("macs_std")):
        return formats.MISSING
    return f"± {formats.macs(form['macs_std'])}, {formats.macs(form['macs_low'])}–{formats.macs(form['macs_high'])}"


def _speed(form: Row, index: int) -> str:
    speed = form["speeds"][index]
    text = formats.number(speed["ms"]) if speed["batch_size"] == 1 else formats.rate(speed["images_per_s"])
    return _with_ratio(text, form, speed.get("ratio"))


def _shares(data: PruningData) -> Shares | None:
    easy, hard = data.easy, data.hard
    if easy is None or hard is None or not data.layers:
        return None
    sentence = (
        "Easy are the quarter of the images with the lowest cross-entropy, hard the quarter with the highest. "
        f"An easy one took {formats.macs(easy.macs)} multiply-accumulates on average, a hard one "
        f"{formats.macs(hard.macs)}"
    )
    change = 100 * (hard.macs / easy.macs - 1) if easy.macs > 0 else None
    sentence += f" ({formats.signed(change)} %)." if formats.is_number(change) else "."
    chart = shares_chart(data.layers, [("easy images", easy.shares), ("hard images", hard.shares)])
    return Shares(sentence, *chart)


def _examples(group: ImageGroup) -> list[tuple[str, str, str]]:
    return [
        (picture_png(image.pixels), f"{formats.macs(image.macs)} MACs", f"loss {formats.number(image.loss)}")
        for image in group.examples
    ]


def _maps(maps: SaliencyMaps) -> MapSet:
    low, high = colour_range([maps.saliencies, maps.features])
    drawn = [
        ("saliencies", map_png(maps.saliencies, low, high), f"gap {formats.number(maps.gap)}"),
        ("pooled features", map_png(maps.features, low, high), ""),
    ]
    return MapSet(maps.layer, [("", drawn)], formats.number(low), formats.number(high))
