"""What the features of every network of a comparison keep of its teacher's, beside each run in ``dense.json``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn
from typing_extensions import TypedDict

from isometry.cli.evaluate_dense import student_view
from isometry.config import RunConfig
from isometry.data import find_sources
from isometry.data.inventory import fingerprint, take_inventory
from isometry.data.unreadable import left_out_of_figures
from isometry.distributed import join_world
from isometry.errors import UserError, reason
from isometry.evaluation.dense.feature_extractor import (
    TEACHER,
    TRAINED,
    CachedFeatureExtractor,
    FeatureExtractor,
    Features,
)
from isometry.evaluation.dense.figures import dense_figures
from isometry.evaluation.inference import labelled_batches
from isometry.files import sha256_of, write_atomically
from isometry.models.spec import image_spec
from isometry.models.teacher import InputAdapter
from isometry.parsing import read_json
from isometry.prune.saving import load_network
from isometry.recipes import read_saved
from isometry.report.terminal import say

FILE = "dense.json"
FORMAT = 1
"""Of the file. It is raised when a figure is computed in another way; figures of another format are computed again."""

Row = dict[str, Any]


class Figure(TypedDict):
    """What is read of a row of :func:`isometry.evaluation.dense.figures.dense_figures`."""

    figure: str
    of: str
    value: float


class Record(TypedDict):
    """Content of ``dense.json``: what the figures are of, and what :func:`dense_figures` returned.

    ``network`` and ``teacher`` are SHA-256 of ``config.json`` and weights; ``images`` is a fingerprint of the data.
    """

    format: int
    network: str
    teacher: str
    images: int
    figures: list[Figure]
    notes: list[str]


@dataclass(frozen=True)
class Geometry:
    """The dense figures of a comparison's networks.

    Attributes:
        figures: of each network, a row for each seed: percent, by figure; an empty one where they can't be computed.
        notes: what was left out, and why.
    """

    figures: dict[str, list[dict[str, float]]]
    notes: list[str]

    @property
    def names(self) -> list[str]:
        """Of the figures."""
        return list(dict.fromkeys(name for rows in self.figures.values() for row in rows for name in row))

    def having(self, figure: str) -> dict[str, list[dict[str, float]]]:
        """The rows of the networks that have a figure for every seed."""
        return {name: rows for name, rows in self.figures.items() if all(figure in row for row in rows)}


def compare_geometry(
    base: RunConfig, teacher: Path, runs: Mapping[str, Sequence[Path]], console: Console
) -> Geometry:
    """The dense figures of each run's network, on the test part of ``base``'s data or else its validation part.

    They are read from the ``dense.json`` of a run that was made of the same networks and images, or computed and
    written there.

    Args:
        base: the data, and the device.
        teacher: the folder of the network that all are compared with.
        runs: folders of each variant's runs, one a seed.
        console: shows which network is looked at.
    """
    measurement = _Measurement(base, teacher, next(iter(runs.values()))[0])
    said: dict[str, list[str]] = {}
    found: dict[str, list[list[Figure]]] = {}
    for name, folders in runs.items():
        found[name] = []
        for folder in folders:
            figures, notes = measurement.figures(folder, f"{name} · {folder.name}", console)
            found[name].append(figures)
            for note in notes:
                said.setdefault(note, []).append(name)
    rows = {name: [_values(figures, TRAINED) for figures in each] for name, each in found.items()}
    # One network, whose figures of patches are on the same grid as those of the variant beside it.
    theirs = next((each for each in found.values() if all(each)), [])
    if theirs:
        rows[TEACHER] = [_values(figures, TEACHER) for figures in theirs]
    notes = [_of_whom(note, dict.fromkeys(names), runs) for note, names in said.items()]
    return Geometry(rows, measurement.notes + notes)


class _Measurement:
    """The images and the teacher, which are the same for all networks; both are opened when they are needed."""

    def __init__(self, base: RunConfig, teacher: Path, run: Path) -> None:
        # A range of pixels that is found in the images is in the config of a run.
        self.config = replace(base, pixel_range=read_saved(run / "config.yaml")[0].pixel_range)
        self.sources = find_sources(self.config)
        self.teacher = teacher
        self.device = join_world(base.device).device
        self.known = {
            "format": FORMAT,
            "teacher": _digest(teacher),
            "images": fingerprint(take_inventory(self.sources, self.config.data_dir)),
        }
        self.notes: list[str] = []
        self.network: nn.Module | None = None
        self.cache: dict[bytes, Features] = {}

    def figures(self, run: Path, label: str, console: Console) -> tuple[list[Figure], list[str]]:
        """Of the network of a run, and notes on them; both are kept in its folder, unless they could not be computed.

        What is said of this run alone is in ``notes`` of this object.
        """
        known, path = {**self.known, "network": _digest(run / "student")}, run / FILE
        try:
            record = read_json(path, Record)
            if all(record[key] == value for key, value in known.items()):
                return record["figures"], record["notes"]
            self.notes.append(f"{path}: is of another network, teacher, data or version; computed again")
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self.notes.append(f"{path}: can't be read ({reason(error)}); computed again")
        say(console, f"Dense features of {label}")
        try:
            figures, notes = self._computed(run / "student")
        except UserError as error:
            self.notes.append(f"{run}: dense figures are left out ({str(error).removeprefix('--dense: ')})")
            return [], []
        write_atomically(path, json.dumps({**known, "figures": figures, "notes": notes}, indent=1) + "\n")
        return figures, notes

    def _computed(self, folder: Path) -> tuple[list[Any], list[str]]:
        part = self.sources.test if self.sources.test is not None else self.sources.val
        if part is None:
            raise UserError("the data has no test or validation part")
        if self.network is None:
            self.network = load_network(self.teacher).to(self.device)
        network = load_network(folder).to(self.device)
        ours, theirs, notes = image_spec(network), image_spec(self.network), list[str]()
        view = student_view(self.config, ours, theirs, notes)
        spec = ours if view is None else view.images
        adapter = InputAdapter(spec, theirs).to(self.device)
        networks = {
            TRAINED: FeatureExtractor(network, view),
            TEACHER: CachedFeatureExtractor(self.network, adapter, self.cache),
        }
        unreadable: set[str] = set()
        with labelled_batches(part, self.sources, spec, self.config, self.device, unreadable) as pairs:
            figures, left_out = dense_figures(networks, pairs, spec, self.sources.labelled)
        notes += left_out
        return figures, notes + left_out_of_figures(unreadable)


def _digest(folder: Path) -> str:
    """SHA-256 of the files of a network."""
    files = [folder / name for name in ("config.json", "model.safetensors")]
    return sha256_of([sha256_of(file).encode() for file in files])


def _values(figures: Sequence[Figure], of: str) -> dict[str, float]:
    return {row["figure"]: row["value"] for row in figures if row["of"] == of}


def _of_whom(note: str, names: Mapping[str, Any], runs: Mapping[str, Any]) -> str:
    """A note, with the variants that it is about unless these are all."""
    return note if len(names) == len(runs) else f"{', '.join(names)}: {note}"
