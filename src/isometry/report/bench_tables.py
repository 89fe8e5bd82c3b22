"""What `isometry bench` measured, as tables: what each network is, and how fast it is under each runtime."""

from collections.abc import Iterator, Sequence

from isometry.files import format_bytes
from isometry.report import formats
from isometry.report.records.data import Row
from isometry.report.tables import Grid, models_grid


def labelled_forms(networks: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    """Every form of every network under a name that tells it from the others: the network's, where it has one form;
    the form's, where there is one network."""
    for network in networks:
        for form in network["forms"]:
            if len(network["forms"]) == 1:
                yield str(network["name"]), form
            else:
                yield form["form"] if len(networks) == 1 else f"{network['name']}, {form['form']}", form


def networks_grid(networks: Sequence[Row]) -> Grid:
    """Accuracy, parameters and multiply-accumulates of each form of each network."""
    shown = ("top1", "top1_part", "params", "macs")
    return models_grid(
        [
            {"model": label, **{key: form[key] for key in shown if key in form}}
            for label, form in labelled_forms(networks)
        ]
    )


def runtimes_grid(networks: Sequence[Row]) -> Grid:
    """A row for each form of a network and runtime: latency at batch 1 (median, quartiles), and at the largest batch
    images a second and peak memory; dashes where a runtime could not run it."""
    forms = list(labelled_forms(networks))
    sizes = [row["speeds"][-1]["batch_size"] for _, form in forms for row in form["runtimes"]]
    header = ["", "runtime", "batch 1, ms", "quartiles", f"batch {max(sizes)}, images/s", "memory"]
    cells = []
    for label, form in forms:
        lines = [[row["runtime"], *_figures(row["speeds"])] for row in form["runtimes"]]
        lines += [[runtime, *[formats.MISSING] * 4] for runtime in form.get("refused", {})]
        cells += [[label if index == 0 else "", *line] for index, line in enumerate(lines)]
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
