"""The Markdown page of `python -m reproduction tables`: a pure function of its results and the paper's figures."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from isometry.data.digits import TEST, TRAIN, VALIDATION
from isometry.report import formats
from isometry.report.records.intervals import CONFIDENCE, interval
from reproduction.experiments import experiments
from reproduction.published import Ordering, PublishedTable, published
from reproduction.results import Results
from reproduction.verdicts import CLOSE, DIFFERENT, HOLDS, REVERSED, UNDECIDED, Runs, Verdict, judge

PICTURE = "reproduction_figure4.png"
"""File in the folder of the page."""
AS_PRINTED = "as-printed"
"""The run whose terms are the paper's sums without scaling; it is in none of the paper's tables."""
WITH_AS_PRINTED = (
    Ordering("manifold-s24-tiny", AS_PRINTED, formats.MISSING),
    Ordering("hard-s24-tiny", AS_PRINTED, formats.MISSING),
)
LEAST_SEEDS = 5
VERDICTS = (HOLDS, REVERSED, UNDECIDED, DIFFERENT, CLOSE)


def page(results: Results) -> str:
    """The page as Markdown text."""
    paper, runs = published(), results["runs"]
    tables = {number: paper.tables[number] for number in results["tables"]}
    verdicts = {f"Table {number}": table_verdicts(table, runs) for number, table in tables.items()}
    if has_figure(results):
        verdicts[f"Figure {paper.figure.number}"] = [judge(o, None, runs) for o in paper.figure.orderings]
    every = [verdict for found in verdicts.values() for verdict in found]
    measured, epochs = results["measured"], len(next(iter(runs.values()))["curves"][0])
    context = {
        **results,
        "paper": paper,
        "overrides": " ".join(f"{key}={value}" for key, value in results["overrides"].items()),
        "seeds": len(results["seeds"]),
        "few": len(results["seeds"]) < LEAST_SEEDS,
        "least": LEAST_SEEDS,
        "first_to_last": " to ".join(sorted({measured["first"], measured["last"]})),
        "minutes": _minutes(measured["seconds"]),
        "cpu_minutes": _minutes(measured["cpu_seconds"]),
        "wall_minutes": _minutes(measured["seconds"] / results["processes"]),
        "cpu_wall_minutes": _minutes(measured["cpu_seconds"] / results["processes"]),
        "machines": [_machine(place) for place in measured["places"]],
        "summary": _summary(every),
        "counts": _counts(verdicts),
        "networks": _network_rows(results["networks"]),
        "epochs": epochs,
        "patches": (results["student"]["img_size"] // results["student"]["patch_size"]) ** 2,
        "train": TRAIN,
        "validation": VALIDATION,
        "test": TEST,
        "tables": [_table(table, runs, verdicts[f"Table {number}"]) for number, table in tables.items()],
        "as_printed": _as_printed(runs) if AS_PRINTED in runs else None,
        "figure": _figure(verdicts) if has_figure(results) else None,
        "picture": PICTURE,
        "params": _range([network["params"] for network in results["networks"].values()]),
        "small_gains": _small_gains(every),
        "total": len(every),
        "by_chance": formats.number((1 - CONFIDENCE) * len(every)),
        "full": [experiments().runs[name].full_command(name) for name in runs],
        "orderings": _orderings,
    }
    return _template().render(context)


def has_figure(results: Results) -> bool:
    """Whether the results include the runs of Figure 4."""
    return set(published().figure.runs) <= set(results["runs"])


def table_verdicts(table: PublishedTable, runs: Runs) -> list[Verdict]:
    """The verdict on each ordering that the table claims."""
    return [judge(ordering, table.gain(ordering), runs) for ordering in table.orderings]


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.md.j2")


def _table(table: PublishedTable, runs: Runs, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    rows = [
        [*row.cells, f"{row.top1:.2f}", _mean(runs[row.run]["top1"]), _seeds(runs[row.run]["top1"])]
        for row in table.rows
    ]
    return {
        "number": table.number,
        "title": table.title,
        "columns": table.columns,
        "rows": rows,
        "orderings": verdicts,
    }


def _figure(verdicts: dict[str, list[Verdict]]) -> dict[str, Any]:
    figure = published().figure
    return {
        "number": figure.number,
        "title": figure.title,
        "names": ", ".join(figure.curves.values()),
        "orderings": verdicts[f"Figure {figure.number}"],
    }


def _as_printed(runs: Runs) -> dict[str, Any]:
    names = (AS_PRINTED, *(ordering.ahead for ordering in WITH_AS_PRINTED))
    rows = [[name, _mean(runs[name]["top1"]), _seeds(runs[name]["top1"])] for name in names]
    return {"rows": rows, "orderings": [judge(ordering, None, runs) for ordering in WITH_AS_PRINTED]}


def _orderings(verdicts: Iterable[Verdict]) -> str:
    """Verdicts as a Markdown table."""
    lines = [
        "| the paper's ordering | source | paper's gain | gain here | verdict | paper's gain detectable? |",
        "|---|---|---:|---:|---|---|",
    ]
    for verdict in verdicts:
        ordering = verdict.ordering
        sign = "≈" if ordering.close else ">"
        measure = "" if ordering.measure == "top1" else f"{ordering.measure}: "
        detectable = {True: "yes", False: "no", None: formats.MISSING}[verdict.detectable]
        gain = formats.signed(verdict.gain, 2) + formats.margin(verdict.low, verdict.high, 2)
        cells = [f"{measure}{ordering.ahead} {sign} {ordering.behind}", ordering.source]
        cells += [formats.signed(verdict.paper, 2), gain, f"**{verdict.verdict}**", detectable]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _summary(verdicts: Sequence[Verdict]) -> list[str]:
    """The main results, in sentences."""
    ordered = [verdict for verdict in verdicts if not verdict.ordering.close]
    found = Counter(verdict.verdict for verdict in ordered)
    against = Counter(verdict.verdict for verdict in ordered if verdict.ordering.behind.startswith("hard"))
    lines = [
        f"Of {len(ordered)} orderings that the paper claims, {found[HOLDS]} hold here, {found[REVERSED]} are "
        f"reversed and {found[UNDECIDED]} are not decided."
    ]
    if against:
        lines.append(
            f"{against.total()} of them claim that the manifold terms are better than hard labels alone: "
            f"{against[HOLDS]} hold, {against[REVERSED]} are reversed, {against[UNDECIDED]} are not decided."
        )
    lines += [
        f"Reversed: {verdict.ordering.ahead} is behind {verdict.ordering.behind} by {-verdict.gain:.2f} "
        f"({verdict.ordering.measure}, {verdict.ordering.source})."
        for verdict in ordered
        if verdict.verdict == REVERSED
    ]
    return lines


def _counts(verdicts: dict[str, list[Verdict]]) -> dict[str, Any]:
    found = {name: Counter(verdict.verdict for verdict in some) for name, some in verdicts.items()}
    header = [word for word in VERDICTS if any(counter[word] for counter in found.values())]
    return {"header": header, "rows": [(name, [c[word] for word in header]) for name, c in found.items()]}


def _network_rows(networks: dict[str, Any]) -> list[list[str]]:
    rows = []
    for paper in published().networks:
        here = networks.get(paper["run"])
        if here is None:
            continue
        shape = ", ".join(paper[key] for key in ("width", "heads", "layers"))
        options = here["options"]
        ours = [str(options[key]) for key in ("embed_dim", "num_heads", "depth") if key in options]
        name = ", ".join(ours) if len(ours) == 3 else "a small RegNetY"
        top1 = formats.percent(here.get("top1"))
        cost = f"{formats.params(here['params'])}, {formats.macs(here['macs'])}"
        rows.append([paper["name"], shape, f"{paper['params']}, {paper['macs']}", name, cost, top1])
    return rows


def _small_gains(verdicts: Sequence[Verdict]) -> str:
    """How many of the paper's gains are too small to be detected here, in sentences."""
    printed = [
        verdict for verdict in verdicts if verdict.detectable is not None and not verdict.ordering.close
    ]
    undetectable = [verdict for verdict in printed if not verdict.detectable]
    if not printed:
        return "One seed has no interval, so no gain can be distinguished from chance."
    halves = [(v.high - v.low) / 2 for v in printed if v.low is not None and v.high is not None]
    gains = [abs(verdict.paper) for verdict in printed if verdict.paper is not None]
    return (
        f"The paper's gains are {min(gains):.2f} to {max(gains):.2f} points, one training each; intervals here are "
        f"± {min(halves):.2f} to ± {max(halves):.2f}. In {len(undetectable)} of {len(printed)} orderings a gain of the "
        "paper's size could not be detected, and *not decided* means only that."
    )


def _mean(top1: Sequence[float]) -> str:
    mean, low, high = interval(top1)
    return f"{mean:.1f}{formats.margin(low, high)}"


def _seeds(top1: Sequence[float]) -> str:
    return " ".join(f"{value:.1f}" for value in top1)


def _range(counts: Sequence[float]) -> str:
    return f"{formats.params(min(counts))} to {formats.params(max(counts))}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f}"


def _machine(place: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {place[name]}" for name in ("python", "torch", "timm"))
    return f"{place['processor']}, {place['cores']} cores, {place['device']}; {versions}"
