"""`isometry evaluate`: a finished network judged by labelled images, by its features, and on other folders."""

import json
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from isometry.config import RunConfig
from isometry.data import Sources, find_sources
from isometry.data.splits import Part
from isometry.distributed import join_world
from isometry.errors import UserError
from isometry.evaluation.environment import environment, environment_text
from isometry.evaluation.inference import features_of, predict, reading
from isometry.evaluation.pictures import evaluation_svg
from isometry.evaluation.probes import probe
from isometry.evaluation.saved_network import (
    ImagesConfig,
    SavedNetwork,
    head_was_trained,
    images_named,
    open_named,
)
from isometry.evaluation.scores import Row, scores
from isometry.evaluation.tables import tables
from isometry.files import write_atomically
from isometry.models.spec import label_names, pretrained_cfg
from isometry.training.finetune import transfer

PARTS = {"test": "test", "val": "validation"}


@dataclass
class EvaluateConfig(ImagesConfig):
    """What is found out. Without a trained head it is --probe, else the head's answers."""

    probe: bool = False
    """Fit k-NN and a linear classifier on the features of the training part, and judge those (too)."""
    transfer: list[str] = field(default_factory=list)
    """Folders of labelled images to fine-tune on, each a run of its own in OUT/transfer."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Options changed in those runs, e.g. `--overrides epochs=100 lr=1e-4`; 30 epochs at 3e-4 if not."""
    out: str = ""
    """Folder that evaluation.json and .svg are written to; the run's own if not given."""


def evaluate(name: str, options: EvaluateConfig, console: Console) -> Row:
    """Judges a network, prints tables, writes ``evaluation.json`` and, of a head, ``evaluation.svg``.

    Args:
        name: the folder of a run or of a saved network, or a name of timm.
        options: which images, and what is found out.
        console: where a person reads.

    Returns:
        What ``evaluation.json`` holds: ``model``, ``data``, ``part``, ``command``, ``date``, ``conditions``, ``notes``;
        ``scores`` (:func:`isometry.evaluation.scores.scores`), ``probes`` (``train``, and ``features``, a row each with
        ``name``, ``numbers``, ``knn`` and ``linear``) and ``transfer`` (:func:`isometry.training.finetune.transfer`),
        as far as they were asked for and can be found out.

    Raises:
        UserError: no such network, no labelled images to judge by, images of other classes than the head's; or as
            :func:`isometry.training.finetune.transfer`.
    """
    saved = open_named(name, command="evaluate")
    place = Path(options.out) if options.out else saved.place
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
    judged = not options.transfer or options.probe or _names_images(options)
    if judged:
        result |= _judge(saved, options, device, result["notes"])
    place.mkdir(parents=True, exist_ok=True)
    if options.transfer:
        saved.network.to("cpu")
        folders, out = options.transfer, place / "transfer"
        result["transfer"] = transfer(saved, folders, out, options.overrides, options.device, console)
    _finish(result, place, console)
    return result


def _names_images(options: ImagesConfig) -> bool:
    return options.data_dir is not None or bool(options.dataset)


def _judge(saved: SavedNetwork, options: EvaluateConfig, device: torch.device, notes: list[str]) -> Row:
    """The parts of the result that the named images say."""
    config = images_named(saved, options, command="evaluate")
    sources = find_sources(config)
    if not sources.labelled:
        raise UserError(
            f"evaluate {saved.name}: {sources.description.partition(':')[0]} has no labels to judge by; "
            "name images in one folder per class with --data-dir"
        )
    part, part_name = (sources.test, "test") if sources.test is not None else (sources.val, "val")
    if part is None:
        raise UserError(
            f"evaluate {saved.name}: the data has no test or validation part; name some with --data-dir"
        )
    found: Row = {"data": sources.description, "part": part_name}
    unreadable: set[str] = set()
    if why := _no_head(saved, sources):
        if not options.probe and saved.network.num_classes and head_was_trained(saved):
            raise UserError(
                f"evaluate {saved.name}: {why}; name images of its own with --data-dir, or add --probe to judge "
                "its features alone"
            )
        notes.append(f"{why}, so its features are judged and not its answers")
    else:
        with reading(saved.network, part, sources, config, device, unreadable) as pairs:
            found["scores"] = scores(predict(saved.network, pairs), _class_names(saved, sources))
    if why or options.probe:
        found["probes"] = _probe(saved, sources, part, config, device, unreadable)
    if unreadable:
        few = ", ".join(sorted(unreadable)[:5])
        notes.append(f"{len(unreadable)} unreadable: others were taken twice in place of {few}")
    return found


def _no_head(saved: SavedNetwork, sources: Sources) -> str:
    """Why the network's answers can't be judged by these labels; empty where they can."""
    classes = int(saved.network.num_classes)  # type: ignore[arg-type]
    if not classes:
        return "the network has no classes"
    if not head_was_trained(saved):
        return "no term of its training was on its classes"
    if sources.num_classes not in (None, classes):
        return f"the network has {classes} classes and the data {sources.num_classes}"
    # As many classes in another order would make nonsense of every figure.
    theirs, ours = label_names(saved.network) or [], sources.class_names or []
    if len(theirs) == len(ours):
        for index, (their, our) in enumerate(zip(theirs, ours, strict=True)):
            if their != our:
                return f"the network's class {index} is {their!r} and the data's is {our!r}"
    return ""


def _class_names(saved: SavedNetwork, sources: Sources) -> list[str]:
    numbers = [str(number) for number in range(int(saved.network.num_classes))]  # type: ignore[arg-type]
    return sources.class_names or label_names(saved.network) or numbers


def _probe(
    saved: SavedNetwork,
    sources: Sources,
    part: Part,
    config: RunConfig,
    device: torch.device,
    unreadable: set[str],
) -> dict[str, Any]:
    network = saved.network
    with reading(network, sources.train, sources, config, device, unreadable) as pairs:
        train, train_labels = features_of(network, pairs)
    with reading(network, part, sources, config, device, unreadable) as pairs:
        test, test_labels = features_of(network, pairs)
    rows = [
        {
            "name": name,
            "numbers": train[name].shape[1],
            **probe(train[name], train_labels, test[name], test_labels),
        }
        for name in train.keys() & test.keys()
    ]
    # In the order of the first pass: a set has none.
    return {"train": len(train_labels), "features": sorted(rows, key=lambda row: [*train].index(row["name"]))}


def _finish(result: Row, place: Path, console: Console) -> None:
    def say(words: str, style: str = "") -> None:
        console.print(words, style=style, highlight=False, markup=False, soft_wrap=True)

    on = f" on {result['data']}" if "data" in result else ""
    say(f"{result['model']}{on}")
    for table in tables(result):
        console.print(table)
    if "part" in result:
        say(
            f"Judged on the {PARTS[result['part']]} part; intervals say what other images would, not other runs."
        )
    say(environment_text(result["conditions"]))
    for note in result["notes"]:
        say(note, "yellow")
    write_atomically(place / "evaluation.json", json.dumps(result, indent=1) + "\n")
    say(f"Figures  {place / 'evaluation.json'}")
    if "scores" in result:
        title = f"{result['model']}{on.partition(':')[0]}"
        write_atomically(place / "evaluation.svg", evaluation_svg(result["scores"], title))
        say(f"Picture  {place / 'evaluation.svg'}")
