"""The section on a pruned network: its forms as a table and as text, and the channels that its images used, drawn."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from isometry.report import formats
from isometry.report.drawing.charts import shares_chart
from isometry.report.drawing.images import picture_png
from isometry.report.records.data import ImageGroup, PruningData, Row, SaliencyMaps, common_part, on_part
from isometry.report.relations import CaptionedMap, map_set
from isometry.report.tables import Column, Grid, figure, grid

NOT_FOR_SPEED = ("dense", "masked")
"""The form that others are measured against, and the one that trains."""


def pruning_section(data: PruningData | None) -> dict[str, Any] | None:
    """The section by its names in the template; None for a run that did not prune."""
    if data is None:
        return None
    groups = [(f"{name} images", group) for name, group in data.groups.items()]
    shares = [(name, group.shares) for name, group in groups]
    return {
        "sentence": saving_sentence(data.forms),
        "slower": slower_sentences(data.forms),
        "grid": forms_grid(data.forms),
        "conditions": data.conditions,
        "groups": [name for name, _ in groups],
        "shares_sentence": _shares_sentence(data),
        "shares": shares_chart(data.layers, shares) if data.layers and groups else None,
        "examples": [(name, _examples(group)) for name, group in groups if group.examples],
        "maps": [map_set(maps.layer, [("", _captioned(maps))]) for maps in data.maps],
    }


def forms_grid(forms: Sequence[Row]) -> Grid:
    """A column for each form, with the keys of `PruningData.forms`: accuracy, size, cost, and a row for each batch size
    with its measured speed, each with its ratio to dense's; rows that no form fills are left out."""
    if not forms:
        return Grid([""], [])
    dense = _dense(forms)
    sizes = [speed["batch_size"] for speed in forms[0]["speeds"]]

    def macs(form: Row) -> str:
        return _with_ratio(formats.macs(form.get("macs")), form, _macs_ratio(form, dense))

    columns = [
        figure("form", "", str),
        figure("top1", f"top-1{on_part(common_part(forms))}", formats.percent),
        figure("top1_by_class", "mean of classes", formats.percent),
        figure("params", "params", formats.params),
        Column("macs", "MACs", macs),
        Column("macs_std", "over images", _spread),
        *(
            Column("speeds", f"batch {size}, {'ms' if size == 1 else 'images/s'}", partial(_speed, index))
            for index, size in enumerate(sizes)
        ),
    ]
    table = grid(columns, forms)
    names, *lines = zip(table.header, *table.rows, strict=True)
    return Grid(list(names), [list(line) for line in lines])


def slower_sentences(forms: Sequence[Row]) -> list[str]:
    """A sentence for each form that is meant to be faster than dense, and each batch size at which it is not."""
    return [
        f"{form['form']} is {'slower' if round(speed['ratio'], 2) < 1 else 'not faster'} at batch "
        f"{speed['batch_size']}: {speed['ratio']:.2f} times as fast as dense"
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
    if last is None or dense is None or last is dense or (share := _macs_ratio(last, dense)) is None:
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
    compared = form["form"] != "dense" and formats.is_number(ratio)
    return f"{text} · {formats.times(ratio)}" if compared else text


def _spread(form: Row) -> str:
    if not formats.is_number(form.get("macs_std")):
        return formats.MISSING
    return f"± {formats.macs(form['macs_std'])}, {formats.macs(form['macs_low'])}–{formats.macs(form['macs_high'])}"


def _speed(index: int, form: Row) -> str:
    speed = form["speeds"][index]
    text = formats.number(speed["ms"]) if speed["batch_size"] == 1 else formats.rate(speed["images_per_s"])
    return _with_ratio(text, form, speed.get("ratio"))


def _shares_sentence(data: PruningData) -> str:
    if data.easy is None or data.hard is None:
        return ""
    easy, hard = data.easy.macs, data.hard.macs
    change = f" ({formats.signed(100 * (hard / easy - 1))} %)" if formats.is_number(hard) and easy > 0 else ""
    return (
        "Easy are the quarter of the images with the lowest cross-entropy, hard the quarter with the highest. An easy "
        f"one took {formats.macs(easy)} multiply-accumulates on average, a hard one {formats.macs(hard)}{change}."
    )


def _examples(group: ImageGroup) -> list[tuple[str, str, str]]:
    return [
        (picture_png(image.pixels), f"{formats.macs(image.macs)} MACs", f"loss {formats.number(image.loss)}")
        for image in group.examples
    ]


def _captioned(maps: SaliencyMaps) -> list[CaptionedMap]:
    gap = f"gap {formats.number(maps.gap)}"
    return [("saliencies", maps.saliencies, gap), ("pooled features", maps.features, "")]
