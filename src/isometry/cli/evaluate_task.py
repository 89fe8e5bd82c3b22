"""What `isometry evaluate` says of a detector or segmentation network: average precision or mIoU."""

import json
import sys
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from isometry.cli.evaluate_dense import former_figures
from isometry.config import RunConfig
from isometry.data import Preprocess
from isometry.data.dense.sources import DenseSources, find_dense_sources
from isometry.data.unreadable import left_out_of_figures
from isometry.distributed import join_world
from isometry.errors import UserError
from isometry.evaluation.changed_images import changed_images
from isometry.evaluation.environment import environment, environment_text
from isometry.evaluation.saved_network import SavedNetwork, images_named
from isometry.files import check_replaceable, write_output
from isometry.models.spec import architecture
from isometry.recipes import read_saved
from isometry.report.records.data import PARTS, TaskData
from isometry.report.tables import rich_table
from isometry.report.task import classes_grid, intervals_text, scores_grid
from isometry.report.terminal import print_notes, say

if TYPE_CHECKING:
    from isometry.cli.evaluate import EvaluateConfig

Row = dict[str, Any]

FIGURES = "evaluation.json"
FOR_CLASSIFIERS = ("probe", "transfer", "dense")
"""Options of `isometry evaluate` that are for its backbone."""


def answers_everywhere(name: str) -> bool:
    """Whether a folder has a detector or a segmentation network, of its own or as the ``model`` of a run."""
    from isometry.models.dense.saving import dense_folder  # loads torchvision, which takes a while

    return dense_folder(name.removeprefix("local-dir:")) is not None


def evaluate_task(name: str, options: "EvaluateConfig", console: Console) -> Row:
    """Evaluates the detector or segmentation network in a folder on the test part of its run, or of the named data, and
    writes ``evaluation.json``.

    Returns:
        Its content: ``model``, ``name``, ``task``, ``data``, ``part``, ``exif``, ``command``, ``date``, ``conditions``,
        ``notes``, and ``scores`` (:func:`isometry.evaluation.dense.detection.average_precision` or
        :func:`isometry.evaluation.dense.segmentation.iou_scores`); ``dense`` of an earlier evaluation of the same
        backbone is kept.

    Raises:
        UserError: no whole network, data with classes that it lacks, no test or validation part, or an option for
            classifiers.
    """
    from isometry.data.dense.batches import dense_loaders
    from isometry.data.dense.class_match import with_classes
    from isometry.evaluation.dense.answers import answers_to
    from isometry.models.dense.saving import dense_folder, load_dense

    for option in FOR_CLASSIFIERS:
        if getattr(options, option):
            raise UserError(
                f"--{option}: {name} finds boxes or masks; give its backbone instead: {Path(name) / 'student'}"
            )
    folder = dense_folder(name.removeprefix("local-dir:"))
    assert folder is not None
    network = load_dense(folder, flag="evaluate")
    saved = _saved(name, network, folder)
    place = Path(options.out or saved.place)
    check_replaceable(place / FIGURES)
    config = images_named(saved, options, command="evaluate")
    config = replace(config, skip_bad_images=options.skip_bad_images or config.skip_bad_images)
    found = find_dense_sources(config, network.task)
    sources = with_classes(found, network.class_names, who=f"evaluate {name}")
    part = "test" if sources.test is not None else "val"
    device = join_world(options.device).device
    with closing(dense_loaders(sources, config, network.spec, 0)) as loaders:
        batches = loaders.test if part == "test" else loaders.val
        if batches is None:
            raise UserError(
                f"evaluate {name}: the data has no test or validation part; give other with --data-dir"
            )
        preprocess = Preprocess(config, network.spec, None, device)
        answers = answers_to(network.to(device), batches, preprocess)
    result: Row = {
        "model": architecture(network.backbone),
        "name": name,
        "task": network.task,
        "data": sources.description,
        "part": part,
        "exif": config.exif,
        "command": " ".join(["isometry", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "conditions": environment(device),
        "notes": [
            *saved.notes,
            *sources.notes,
            *_changes(saved, config, found),
            *left_out_of_figures(answers.unreadable),
        ],
        "scores": answers.scores(),
    }
    if (former := former_figures(place, network.backbone, result["notes"])) is not None:
        result["dense"] = former
    place.mkdir(parents=True, exist_ok=True)
    write_output(place / FIGURES, json.dumps(result, indent=1) + "\n")
    _show(result, place, console)
    return result


def _saved(name: str, network: Any, folder: Path) -> SavedNetwork:
    run = folder.absolute().parent
    if not (folder.name == "model" and (run / "config.yaml").is_file()):
        return SavedNetwork(name, network, folder)
    return SavedNetwork(name, network, folder, run, read_saved(run / "config.yaml")[0])


def _changes(saved: SavedNetwork, config: RunConfig, found: DenseSources) -> list[str]:
    """As :func:`isometry.evaluation.changed_images.changed_images`; ``found`` are the images that ``config`` names."""
    if saved.config is not None and saved.config.exif != config.exif:
        # Boxes of turned photographs are others then.
        found = find_dense_sources(replace(config, exif=saved.config.exif), found.task)
    return changed_images(saved, config, found)


def _show(result: Row, place: Path, console: Console) -> None:
    scores = result["scores"]
    figures = {key: value for key, value in scores.items() if key not in ("images", "classes")}
    data = TaskData(result["task"], result["part"], scores["images"], figures, scores["classes"])
    say(console, f"{result['model']} on {result['data']}")
    console.print(rich_table(scores_grid(data)))
    console.print(rich_table(classes_grid(data)))
    intervals = f"; {found}" if (found := intervals_text(scores)) else ""
    say(console, f"On {scores['images']:,} images of the {PARTS[result['part']]} part{intervals}.")
    say(console, environment_text(result["conditions"]))
    print_notes(console, result["notes"])
    say(console, f"Figures  {place / FIGURES}")
