"""A run that grew: its stages as a table, and its time beside that of the full-size model, in words."""

from collections.abc import Sequence

from isometry.report import formats
from isometry.report.records.data import Row
from isometry.report.tables import Grid


def growth_sentence(stages: Sequence[Row]) -> str:
    """The whole run's measured time against Σ full_seconds, what all epochs would have taken at full size.

    Keys read: "epochs", "seconds", "full_seconds" (both in seconds). A time that is no positive number leaves
    nothing to compare, and the sentence says so.
    """
    times = [stage.get(key) for stage in stages for key in ("seconds", "full_seconds")]
    if not all(formats.is_number(time) and time > 0 for time in times):
        return "Not every stage was timed, so the run is not compared with the full-size model."
    spent = sum(stage["seconds"] for stage in stages)
    full = sum(stage["full_seconds"] for stage in stages)
    epochs = sum(stage["epochs"] for stage in stages)
    return (
        f"Measured over the whole run, training took {formats.duration(spent)}: {_against(full / spent)} the "
        f"{formats.duration(full)} that the full-size model would have taken for all {epochs} epochs, going by "
        "the measured epochs of the last stage of this same run."
    )


def growth_grid(stages: Sequence[Row]) -> Grid:
    """A row a stage, with the keys of `ReportData.stages`; without scores where no growth was validated."""
    total = sum(stage["epochs"] for stage in stages)
    header = ["stage", "model", "made by", "epochs", "share", "params", "MACs", "time", "at full size"]
    cells = [
        [
            str(stage["stage"]),
            stage["model"],
            stage["by"] or formats.MISSING,
            _epochs(stage),
            formats.percent(100 * stage["epochs"] / total, 0) if total else formats.MISSING,
            formats.params(stage["params"]),
            formats.macs(stage["macs"]),
            formats.duration(stage["seconds"]),
            formats.duration(stage["full_seconds"]),
        ]
        for stage in stages
    ]
    scored = [stage for stage in stages if _is_scored(stage)]
    if scored:
        header.append(f"{scored[0]['score']} before → after")
        cells = [[*row, _scores(stage)] for row, stage in zip(cells, stages, strict=True)]
    return Grid(header, cells)


def _against(ratio: float) -> str:
    if formats.times(ratio) == formats.times(1):
        return "as fast as"
    if ratio > 1:
        return f"{formats.times(ratio)} faster than"
    return f"{formats.times(1 / ratio)} slower than"


def _epochs(stage: Row) -> str:
    first, last = stage["first_epoch"] + 1, stage["first_epoch"] + stage["epochs"]
    if last < first:
        return formats.MISSING
    return str(first) if first == last else f"{first}–{last}"


def _is_scored(stage: Row) -> bool:
    return formats.is_number(stage["before"]) or formats.is_number(stage["after"])


def _scores(stage: Row) -> str:
    if not _is_scored(stage):
        return formats.MISSING
    write = formats.percent if stage["score"] == "top-1" else formats.number
    return f"{write(stage['before'])} → {write(stage['after'])}"
