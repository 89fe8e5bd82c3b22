"""Notes on a run are short on a terminal, and name all things where they are kept."""

import json

from rich.console import Console

from isometry.errors import NamesAll
from isometry.report.terminal import print_notes


def test_a_terminal_names_the_first_and_a_file_all():
    names = [f"folder{number}" for number in range(7)]
    note = NamesAll.of("left out", names, "; move them", most=2)
    assert json.loads(json.dumps([note])) == [f"left out: {', '.join(names)}; move them"]
    few = NamesAll.of("left out", names[:2], most=2)
    console = Console(record=True, width=30)
    print_notes(console, [note, few, "plain"])
    assert console.export_text().splitlines() == [
        "left out: folder0, folder1 and 5 more (isometry check --data names all); move them",
        "left out: folder0, folder1",
        "plain",
    ]
