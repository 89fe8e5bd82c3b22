"""What `isometry check` says of the images, and `isometry check --data`: a report on the images alone."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from isometry.config import RunConfig
from isometry.data import Sources, find_sources
from isometry.data.file_survey import FileFacts, FileSurvey, survey_files
from isometry.data.splits import UNLABELLED
from isometry.data.survey import survey
from isometry.errors import MOST_NAMED, counted, printable
from isometry.files import format_bytes
from isometry.report.terminal import plain, say_under

MOST_CLASSES = 20
"""Rows of the table of classes; of more, the smallest and the largest are shown."""


def check_data(config: RunConfig, console: Console) -> None:
    """Prints a report on the images: their numbers by class and split, sizes, modes, formats, faults, duplicates.

    Raises:
        UserError: data that can't be used, or that are no image files.
    """
    sources = find_sources(config, reporting=True)
    found = survey_files(sources)
    say_under(console, "Data", sources.description)
    if sources.class_names:
        counts: dict[str, Counter[int]] = {}
        for file in found.files:
            counts.setdefault(file.split, Counter())[file.label] += 1
        console.print(classes_table(sources.class_names, counts))
    for head, text in facts(config, sources, found):
        say_under(console, head, text)
    for note in [*sources.notes, *sources.class_notes, *survey(sources.train).notes(config.pixel_range)]:
        say_under(console, "Warning", note)
    if not sources.notes:
        say_under(console, "Left out", "nothing")


def facts(config: RunConfig, sources: Sources, found: FileSurvey) -> list[tuple[str, str]]:
    """The lines of the report below the table of classes: what a line is about, and what it says."""
    readable = found.readable
    lines = []
    if readable:
        by_area = sorted(readable, key=lambda file: file.size[0] * file.size[1])
        shown = {"smallest": by_area[0], "median": by_area[len(by_area) // 2], "largest": by_area[-1]}
        sizes = [f"{name} {file.size[0]}×{file.size[1]}" for name, file in shown.items()]
        lines += [
            ("Pixels", ", ".join(sizes)),
            (
                "Bytes",
                f"{format_bytes(sum(file.bytes for file in readable))} in {counted(len(readable), 'file')}",
            ),
            ("Formats", _counted(file.format for file in readable)),
            ("Modes", _counted(file.mode for file in readable)),
            (
                "Turned",
                f"{sum(file.turned for file in readable):,} by their EXIF orientation (--exif {config.exif})",
            ),
        ]
    faults = [file for file in found.files if file.fault]
    looked = f"by the headers of all and the pixels of {found.decoded:,}"
    lines.append(("Unreadable", f"{_named(faults)} ({looked})" if faults else f"none ({looked})"))
    across = {"split": "in several splits", "label": "in several classes"}
    lines.append(("Duplicates", duplicates_text(found, across)))
    return lines


def classes_text(counts: Mapping[str, int] | None) -> str:
    """The smallest and the largest class, by their training images, or how many all have; empty where unknown."""
    if not counts:
        return ""
    smallest, largest = (choose(counts, key=counts.__getitem__) for choose in (min, max))
    if counts[smallest] == counts[largest]:
        return f"each {counted(counts[smallest], 'training image')}"
    return (
        f"smallest {printable(smallest)} ({counts[smallest]:,}), largest {printable(largest)} ({counts[largest]:,}), "
        "by training images"
    )


def classes_table(names: Sequence[str], counts: Mapping[str, Mapping[int, int]]) -> Table:
    """What each class has in each split, by its index, and their sums; the largest class of the first split first."""
    first = next(iter(counts.values()))
    table = Table("class", box=None, pad_edge=False, header_style="dim")
    for split in counts:
        table.add_column(split, justify="right")
    order = sorted(range(len(names)), key=lambda label: -first.get(label, 0))
    some = order
    if len(order) > MOST_CLASSES:
        half = MOST_CLASSES // 2
        some = [*order[:half], UNLABELLED, *order[-half:]]
    for label in some:
        if label == UNLABELLED:
            table.add_row(f"... {len(order) - MOST_CLASSES:,} more", *[""] * len(counts))
        else:
            table.add_row(plain(names[label]), *(f"{each.get(label, 0):,}" for each in counts.values()))
    table.add_row("together", *(f"{sum(each.values()):,}" for each in counts.values()), style="dim")
    return table


def duplicates_text(found: FileSurvey, across: Mapping[str, str]) -> str:
    """How many files equal another one, and which of them differ in a field of ``across``, whose meaning it has."""
    if not found.duplicates:
        return "no two files are equal"
    extra = sum(len(group) - 1 for group in found.duplicates)
    text = counted(extra, "file equals another one", "files equal another one")
    for name, meaning in across.items():
        groups = found.duplicates_across(name)
        if groups:
            pairs = "; ".join(
                " = ".join(printable(file.path) for file in group) for group in groups[:MOST_NAMED]
            )
            more = "; ..." if len(groups) > MOST_NAMED else ""
            text += f"; {len(groups):,} {meaning}: {pairs}{more}"
        else:
            text += f"; none {meaning}"
    return text


def _counted(values: Iterable[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in Counter(values).most_common())


def _named(files: Sequence[FileFacts]) -> str:
    shown = "; ".join(f"{printable(file.path)} ({file.fault})" for file in files[:MOST_NAMED])
    return f"{len(files):,}: {shown}{'; ...' if len(files) > MOST_NAMED else ''}"
