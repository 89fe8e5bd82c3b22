"""`isometry export --to timm`: the folder that plain timm and a hub take, with a model card."""

import json
import shutil
from pathlib import Path

import timm
import torch
from torch import nn

from isometry.errors import UserError
from isometry.evaluation.environment import environment_text
from isometry.export.card_facts import accuracy_of, architecture_of, latency_of, told_by_the_run
from isometry.export.job import Export, Row
from isometry.export.model_card import card
from isometry.export.tables import interval_words, latency_words
from isometry.files import disk_errors, replace_folder, sha256_of
from isometry.models.build import build_model
from isometry.models.spec import ModelSpec, image_spec
from isometry.prune.cutting import widths
from isometry.prune.gates import gated_convs
from isometry.report import formats

WEIGHTS, CONFIG, CARD, FIGURES = "model.safetensors", "config.json", "README.md", "export.json"
"""Files of the folder: timm's two, the card, and what the card says as JSON."""


def export_folder(job: Export, *, license_id: str) -> Row:
    """Writes a folder for ``local-dir:`` and ``hf-hub:`` with a model card; an older one stays until it is whole.

    Args:
        job: what was asked for.
        license_id: of the weights, as hubs call it; empty if nobody said.

    Returns:
        What ``export.json`` holds and the card says: the keys of :mod:`isometry.export.card_facts`, as far as they are
        known, ``weights`` (``bytes``, ``sha256``) and ``license``.

    Raises:
        UserError: timm can't build the network, since it was pruned; images were named and can't be used; there is
            something else at the place.
    """
    saved = job.saved
    place = Path(job.out) if job.out else saved.place / "timm"
    assert saved.folder is not None
    _check_place(place, saved.folder)
    _check_shape(job)
    weights = saved.folder / WEIGHTS
    result = {
        **architecture_of(job),
        **told_by_the_run(job),
        **accuracy_of(job),
        **latency_of(job),
        "weights": {"bytes": weights.stat().st_size, "sha256": sha256_of(weights)},
        "license": license_id or "unknown",
    }
    _write(place, saved.folder, result, saved.network.to("cpu"))
    _print(job, result, place)
    return result


def _check_place(place: Path, source: Path) -> None:
    if place.resolve() == source.resolve():
        raise UserError(f"--out {place}: is the folder that is exported; name another place")
    if place.exists() and not (place / FIGURES).is_file():
        raise UserError(f"--out {place}: something else is there; name another place, or remove it")


def _check_shape(job: Export) -> None:
    network, folder = job.saved.network, job.saved.folder
    plain, _ = build_model(ModelSpec(f"local-dir:{folder}"), flag="export")
    if gated_convs(network) or widths(network) != widths(plain):
        raise UserError(
            f"{job.name}: was pruned, and timm has no network of its shape; isometry.load reads its folder as it is, "
            "and --to onnx exports it"
        )


def _write(place: Path, source: Path, result: Row, network: nn.Module) -> None:
    with disk_errors(place, "make room, or name another place"), replace_folder(place) as new:
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(source / name, new / name)
        (new / CARD).write_text(card(result), encoding="utf-8")
        (new / FIGURES).write_text(json.dumps(result, indent=1), encoding="utf-8")
        _check_copy(new, network)


@torch.no_grad()
def _check_copy(folder: Path, network: nn.Module) -> None:
    """That what timm makes of the folder gives the network's own answers, to the bit."""
    copied = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, *image_spec(network).input_size, generator=torch.Generator().manual_seed(0))
    if not torch.equal(copied(images), network(images)):
        raise UserError(
            "export: what timm makes of the exported folder does not answer as the network does; nothing was written; "
            "save the network again"
        )


def _print(job: Export, result: Row, place: Path) -> None:
    job.say(
        f"{result['model']}: {formats.params(result['parameters'])} parameters, {formats.macs(result['macs'])} MACs"
    )
    if "accuracy" in result:
        job.say(f"Top-1    {interval_words(result['accuracy'])} on {result['judged_on']}")
    job.say(
        f"Latency  {latency_words(result['speeds'][0])} at batch 1; {environment_text(result['conditions'])}"
    )
    if result["registered_by"]:
        job.say(f"timm has no {result['model']} itself: import {result['registered_by']} before it", "yellow")
    if result["license"] == "unknown":
        job.say("The card says that the licence of the weights is unknown; name it with --license", "yellow")
    job.say(f"SHA-256  {result['weights']['sha256']} ({WEIGHTS})")
    job.say(f"Folder   local-dir:{place}")
    job.say(f"Card     {place / CARD}")
