"""`isometry evaluate`: a finished network's accuracy, probes and geometry of its features, and transfer to other
datasets."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from isometry.cli.evaluate_dense import DenseInputs, evaluate_dense, former_figures, masks_named, teacher_of
from isometry.cli.evaluate_task import answers_everywhere, evaluate_task
from isometry.cli.report import PAGE
from isometry.data import Sources, find_sources
from isometry.data.splits import Part
from isometry.data.survey import exif_text
from isometry.data.unreadable import left_out_of_figures
from isometry.distributed import join_world
from isometry.errors import UserError
from isometry.evaluation.changed_images import changed_images
from isometry.evaluation.environment import environment, environment_text
from isometry.evaluation.inference import Pairs, features_of, labelled_batches, predict
from isometry.evaluation.pictures import evaluation_svg
from isometry.evaluation.probes import probe
from isometry.evaluation.saved_network import (
    ImagesConfig,
    SavedNetwork,
    head_was_trained,
    images_named,
    open_named,
    other_classes_than,
)
from isometry.evaluation.scores import Row, scores
from isometry.evaluation.tables import tables
from isometry.files import check_replaceable, inside, write_output
from isometry.models.spec import image_spec, label_names, pretrained_cfg
from isometry.report.page import render_report, write_page
from isometry.report.records.data import PARTS
from isometry.report.records.record import has_record
from isometry.report.records.run_folders import read_run
from isometry.report.terminal import print_notes, say
from isometry.training.transfer.classify import fine_tune_each

Reader = Callable[[Part], AbstractContextManager[Pairs]]
"""Reads the labelled images of a split for the network."""

FIGURES, PICTURE = "evaluation.json", "evaluation.svg"


@dataclass
class EvaluateConfig(ImagesConfig):
    """Evaluation: by the classifier if it was trained, otherwise by probes of the features."""

    probe: bool = False
    """Evaluate features too, by k-NN and a linear classifier fitted to the training split."""
    dense: bool = False
    """Evaluate the geometry of features: retrieval, matched patches, kept neighbours; only retrieval needs labels."""
    dense_masks: str = ""
    """Folder of images with masks, for a linear probe on patches, with --dense; digit-scenes has its own."""
    teacher: str = ""
    """Teacher of --dense, a timm name, the folder of a run or any other --teacher; that of the run if not given."""
    trust_remote_code: bool = False
    """Run the code that comes with a --teacher of torchhub:, python: or transformers:."""
    transfer: list[str] = field(default_factory=list)
    """Folders of labelled images to fine-tune on, each in a run in OUT/transfer."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Options of these runs, e.g. `--overrides epochs=100 lr=1e-4`; 30 epochs at 3e-4 if not given."""
    skip_bad_images: bool = False
    """Leave unreadable images out of the figures, and name them, instead of stopping; as the run did if not given."""
    out: str = ""
    """Folder for evaluation.json and .svg; that of the run if not given."""


def evaluate(name: str, options: EvaluateConfig, console: Console) -> Row:
    """Evaluates the network in a folder, of a run or a saved network, or of a name of timm; prints tables, writes
    ``evaluation.json`` and, for a classifier, ``evaluation.svg``.

    Returns:
        The content of ``evaluation.json``: ``model``, ``data``, ``part``, ``exif``, ``command``, ``date``,
        ``conditions``, ``notes``; ``scores`` (:func:`isometry.evaluation.scores.scores`), ``probes`` (``train``, the
        number of images, and ``features``, rows of ``name``, ``numbers``, ``knn`` and ``linear``), ``dense``
        (:func:`isometry.cli.evaluate_dense.evaluate_dense`, with ``data`` and ``part`` of its images) and ``transfer``
        (:func:`isometry.training.transfer.classify.fine_tune_each`), each if it was evaluated; ``dense`` of an earlier
        evaluation of the same weights is kept. Of a detector or segmentation network as
        :func:`isometry.cli.evaluate_task.evaluate_task`.

    Raises:
        UserError: no such network, no labelled images (but for ``--dense``), images of other classes than the
            classifier's; or as :func:`isometry.training.transfer.classify.fine_tune_each`.
    """
    if answers_everywhere(name):
        return evaluate_task(name, options, console)
    saved = open_named(name, command="evaluate")
    place = Path(options.out) if options.out else saved.place
    if place.exists() and not place.is_dir():
        raise UserError(f"--out {place}: is not a folder; give another name")
    for file in (FIGURES, PICTURE):
        check_replaceable(place / file)
    if options.dense and has_record(place):
        check_replaceable(place / PAGE)
    device = join_world(options.device).device
    saved.network.to(device)
    result: Row = {
        "model": str(pretrained_cfg(saved.network).get("architecture")),
        "name": name,
        "command": " ".join(["isometry", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "conditions": environment(device),
        "notes": list(saved.notes),
    }
    names_images = options.data_dir is not None or bool(options.dataset)
    for option, given in (("--teacher", options.teacher), ("--dense-masks", options.dense_masks)):
        if given and not options.dense:
            raise UserError(f"{option} {given}: is for the figures of --dense; add --dense")
    if not options.transfer or options.probe or options.dense or names_images:
        result |= _evaluate(saved, options, device, result["notes"])
    former = None if options.dense else former_figures(place, saved.network, result["notes"])
    place.mkdir(parents=True, exist_ok=True)
    if options.transfer:
        saved.network.to("cpu")
        folders, out = options.transfer, inside(place, "transfer")
        overrides = {"skip_bad_images": options.skip_bad_images, **options.overrides}
        result["transfer"] = fine_tune_each(saved, folders, out, overrides, options.device, console)
    _show(result, console)
    if former is not None:
        result["dense"] = former
    _write(result, place, console)
    if options.dense and has_record(place):
        run = read_run(place)
        write_page(place / PAGE, render_report(run.data, run.bench, run.dense))
        say(console, f"Report   {place / PAGE}")
    return result


def _evaluate(saved: SavedNetwork, options: EvaluateConfig, device: torch.device, notes: list[str]) -> Row:
    """The part of the result that depends on the named images."""
    config = images_named(saved, options, command="evaluate")
    config = replace(config, skip_bad_images=options.skip_bad_images or config.skip_bad_images)
    sources = find_sources(config)
    if not sources.labelled and (options.probe or not options.dense):
        raise UserError(
            f"evaluate {saved.name}: {sources.description.partition(':')[0]} has no labels; "
            "name images in one folder per class with --data-dir, or compare features with --dense"
        )
    part, split = (sources.test, "test") if sources.test is not None else (sources.val, "val")
    if part is None:
        raise UserError(
            f"evaluate {saved.name}: the data has no test or validation split; name images with --data-dir"
        )
    notes += [*sources.notes, *changed_images(saved, config, sources)]
    found: Row = {"data": sources.description, "part": split, "exif": config.exif}
    unreadable: set[str] = set()
    spec = image_spec(saved.network, config.img_size)
    read: Reader = partial(
        labelled_batches, sources=sources, spec=spec, config=config, device=device, unreadable=unreadable
    )
    if sources.labelled:
        found |= _judged(saved, options, sources, part, read, notes)
    if options.dense:
        masks = masks_named(config, options.dense_masks)
        inputs = DenseInputs(
            lambda seen: labelled_batches(part, sources, seen, config, device, unreadable),
            sources.labelled,
            spec,
            config,
            device,
            masks,
        )
        teacher = teacher_of(saved, options.teacher, options.trust_remote_code, notes)
        found["dense"] = {
            "data": sources.description,
            "part": split,
            **evaluate_dense(saved, teacher, inputs, notes),
        }
    notes += left_out_of_figures(unreadable)
    return found


def _judged(
    saved: SavedNetwork, options: EvaluateConfig, sources: Sources, part: Part, read: Reader, notes: list[str]
) -> Row:
    """Scores of the classifier, if it can be judged by these labels, and probes."""
    found: Row = {}
    why = _no_classifier(saved, sources)
    if not why:
        with read(part) as pairs:
            found["scores"] = scores(predict(saved.network, pairs), _class_names(saved, sources))
    elif not (options.probe or options.dense) and saved.network.num_classes and head_was_trained(saved):
        raise UserError(
            f"evaluate {saved.name}: {why}; name images of its classes with --data-dir, or evaluate its features "
            "with --probe"
        )
    else:
        notes.append(f"{why}, so its features are evaluated instead of its predictions")
    if options.probe or (why and not options.dense):
        found["probes"] = _probe(saved, read, sources.train, part)
    return found


def _no_classifier(saved: SavedNetwork, sources: Sources) -> str:
    """Why the network's predictions can't be compared with these labels; empty if they can."""
    if not saved.network.num_classes:
        return "the network has no classes"
    if not head_was_trained(saved):
        return "no loss trained its classifier"
    return other_classes_than(saved.network, sources)


def _class_names(saved: SavedNetwork, sources: Sources) -> list[str]:
    numbers = [str(number) for number in range(int(saved.network.num_classes))]  # type: ignore[arg-type]
    return sources.class_names or label_names(saved.network) or numbers


def _probe(saved: SavedNetwork, read: Reader, train_part: Part, part: Part) -> Row:
    with read(train_part) as pairs:
        train, train_labels = features_of(saved.network, pairs)
    with read(part) as pairs:
        test, test_labels = features_of(saved.network, pairs)
    rows = []
    for name in [name for name in train if name in test]:
        accuracies = probe(train[name], train_labels, test[name], test_labels)
        rows.append({"name": name, "numbers": train[name].shape[1], **accuracies})
    return {"train": len(train_labels), "features": rows}


def _on_data(result: Row) -> str:
    return f" on {result['data']}" if "data" in result else ""


def _show(result: Row, console: Console) -> None:
    say(console, f"{result['model']}{_on_data(result)}")
    for table in tables(result):
        console.print(table)
    if "part" in result:
        seen = f"On the {PARTS[result['part']]} split, photographs {exif_text(result['exif'])}"
        say(console, f"{seen}; intervals are over images, not over training runs.")
    say(console, environment_text(result["conditions"]))
    print_notes(console, result["notes"])


def _write(result: Row, place: Path, console: Console) -> None:
    write_output(place / FIGURES, json.dumps(result, indent=1) + "\n")
    say(console, f"Figures  {place / FIGURES}")
    if "scores" in result:
        title = f"{result['model']}{_on_data(result).partition(':')[0]}"
        write_output(place / PICTURE, evaluation_svg(result["scores"], title))
        say(console, f"Picture  {place / PICTURE}")
