"""`isometry export --to timm`: a folder for timm and the Hugging Face hub, with a model card."""

import json
import shutil
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from isometry.errors import UserError
from isometry.evaluation.environment import environment_text
from isometry.evaluation.saved_network import reading_config
from isometry.export.card_facts import accuracy_of, architecture_of, latency_of, run_facts
from isometry.export.job import Export, Row
from isometry.export.model_card import card
from isometry.export.tables import interval_text, latency_text
from isometry.files import disk_errors, inside, refuse_link, sha256_of
from isometry.models.build import build_model
from isometry.models.finite import check_answers
from isometry.models.image_reading import KEY, Reading, reading_of
from isometry.models.network_folder import check_unchanged, is_written, replace_folder
from isometry.models.spec import ModelSpec, image_spec
from isometry.parsing import read_json
from isometry.prune.cutting import widths
from isometry.prune.gates import gated_convs
from isometry.report import formats

WEIGHTS, CONFIG, CARD, FIGURES = "model.safetensors", "config.json", "README.md", "export.json"
"""Files of the folder: timm's two, the card, and the card's figures as JSON."""


def export_folder(job: Export, *, license_id: str) -> Row:
    """Writes a folder for ``local-dir:`` and ``hf-hub:`` with a model card.

    The folder may be new or empty. In one that it wrote before, it replaces files that nobody changed, once the new
    ones are complete.

    ``license_id`` is the weights' licence, as a hub identifier; empty if not given.

    Returns:
        The content of ``export.json`` and of the card: the known keys of :mod:`isometry.export.card_facts`,
        ``weights`` (``bytes``, ``sha256``) and ``license``.

    Raises:
        UserError: timm can't build the network, because it was pruned; the given images can't be used; the
            destination holds something else, or a file that was changed; a file of the network is a link.
    """
    saved = job.saved
    place = Path(job.out) if job.out else inside(saved.place, "timm")
    assert saved.folder is not None
    _check_place(place, saved.folder)
    _check_shape(job)
    weights = saved.folder / WEIGHTS
    result = {
        **architecture_of(job),
        **run_facts(job),
        **accuracy_of(job),
        **latency_of(job),
        "weights": {"bytes": weights.stat().st_size, "sha256": sha256_of(weights)},
        "license": license_id or "unknown",
    }
    reading = reading_of(reading_config(saved, job.images))
    _write(place, saved.folder, result, reading, saved.network.to("cpu"))
    _print(job, result, place)
    return result


def _check_place(place: Path, source: Path) -> None:
    if place.resolve() == source.resolve():
        raise UserError(f"--out {place}: is the folder that is exported; give another --out")
    for name in (WEIGHTS, CONFIG):
        refuse_link(source / name)
    if place.name in ("", ".."):
        raise UserError(f"--out {place}: give the folder's own name, such as --out {place.resolve()}")
    empty = place.is_dir() and not any(place.iterdir())
    if place.exists() and not empty and not (is_written(place) and (place / FIGURES).is_file()):
        raise UserError(
            f"--out {place}: exists, and is not as this version of isometry exports it; give another --out, or move it"
        )
    check_unchanged(place)


def _check_shape(job: Export) -> None:
    network, folder = job.saved.network, job.saved.folder
    plain, _ = build_model(ModelSpec(f"local-dir:{folder}"), flag="export")
    if gated_convs(network) or widths(network) != widths(plain):
        raise UserError(
            f"{job.name}: was pruned, and timm has no network of its shape; isometry.load reads its folder, "
            "and --to onnx exports it"
        )


def _write(place: Path, source: Path, result: Row, reading: Reading, network: nn.Module) -> None:
    with disk_errors(place, "free some space, or give another --out"), replace_folder(place) as new:
        shutil.copyfile(source / WEIGHTS, new / WEIGHTS)
        # The reading on which the accuracy of the card was measured; a source of an older version has none.
        config = {**read_json(source / CONFIG, dict[str, Any]), KEY: reading}
        (new / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        (new / CARD).write_text(card(result), encoding="utf-8")
        (new / FIGURES).write_text(json.dumps(result, indent=1), encoding="utf-8")
        _check_copy(new, network)


@torch.no_grad()
def _check_copy(folder: Path, network: nn.Module) -> None:
    """Checks that the model that timm builds from the folder has the same outputs, bitwise."""
    copied = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, *image_spec(network).input_size, generator=torch.Generator().manual_seed(0))
    answers = network(images)
    check_answers([answers], "export", "random images")
    if not torch.equal(copied(images), answers):
        raise UserError(
            "export: the model that timm builds from the exported folder does not have the network's outputs; "
            "nothing was written; save the network again"
        )


def _print(job: Export, result: Row, place: Path) -> None:
    job.say(
        f"{result['model']}: {formats.params(result['parameters'])} parameters, {formats.macs(result['macs'])} MACs"
    )
    if "accuracy" in result:
        job.say(f"Top-1    {interval_text(result['accuracy'])} on {result['judged_on']}")
    job.say(
        f"Latency  {latency_text(result['speeds'][0])} at batch 1; {environment_text(result['conditions'])}"
    )
    if result["registered_by"]:
        job.say(
            f"{result['model']} is not part of timm: import {result['registered_by']} before building it",
            "yellow",
        )
    if result["license"] == "unknown":
        job.say("The card lists the weights' licence as unknown; give it with --license", "yellow")
    job.say(f"SHA-256  {result['weights']['sha256']} ({WEIGHTS})")
    job.say(f"Folder   local-dir:{place}")
    job.say(f"Card     {place / CARD}")
