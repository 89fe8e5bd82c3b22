"""What `isometry bench` measured, as tables: what each network is, and how fast it is under each runtime."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.table import Table

from isometry.files import format_bytes
from isometry.report import formats
from isometry.report.records.data import Row
from isometry.report.tables import Grid, models_table, rich_table


class Measured(NamedTuple):
    """A form of a network under a runtime."""

    network: str
    form: Row
    runtime: str
    speeds: list[Row]

    @property
    def first(self) -> Row:
        """At batch 1."""
        return self.speeds[0]


def labelled_forms(networks: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    """Every form of every network under a name that tells it from the others: the network's, where it has one form;
    the form's, where there is one network."""
    for network in networks:
        for form in network["forms"]:
            if len(network["forms"]) == 1:
                yield str(network["name"]), form
            else:
                yield form["form"] if len(networks) == 1 else f"{network['name']}, {form['form']}", form


def measured(networks: Sequence[Row]) -> Iterator[Measured]:
    """Every form of every network under every runtime that it was measured in."""
    for label, form in labelled_forms(networks):
        for row in form["runtimes"]:
            yield Measured(label, form, row["runtime"], row["speeds"])


def networks_table(networks: Sequence[Row]) -> Table:
    """Accuracy, parameters and multiply-accumulates, a row a form of a network."""
    kept = ("top1", "top1_part", "params", "macs")
    rows = [
        {"model": label, **{key: form[key] for key in kept if key in form}}
        for label, form in labelled_forms(networks)
    ]
    return models_table(rows)


def runtimes_grid(networks: Sequence[Row]) -> Grid:
    """A row a form of a network and runtime: latency at batch 1 (median, quartiles), and at the largest batch images a
    second and peak memory; dashes where a runtime could not run it."""
    sizes = [row.speeds[-1]["batch_size"] for row in measured(networks)]
    header = ["", "runtime", "batch 1, ms", "quartiles", f"batch {max(sizes, default=1)}, images/s", "memory"]
    cells = []
    for label, form in labelled_forms(networks):
        lines = [[row["runtime"], *_figures(row["speeds"])] for row in form["runtimes"]]
        lines += [[runtime, *[formats.MISSING] * 4] for runtime in form.get("refused", {})]
        cells += [[label if place == 0 else "", *line] for place, line in enumerate(lines)]
    return Grid(header, cells)


def _figures(speeds: Sequence[Row]) -> list[str]:
    first, last = speeds[0], speeds[-1]
    peak = last.get("peak_bytes")
    return [
        formats.number(first["ms"]),
        f"{formats.number(first['ms_low'])}–{formats.number(first['ms_high'])}",
        formats.rate(last["images_per_s"]),
        format_bytes(peak) if formats.is_number(peak) else formats.MISSING,
    ]


def runtimes_table(networks: Sequence[Row]) -> Table:
    """`runtimes_grid` for the terminal."""
    table = rich_table(runtimes_grid(networks))
    # The end of a path tells it from others.
    table.columns[0].overflow = "fold"
    return table
