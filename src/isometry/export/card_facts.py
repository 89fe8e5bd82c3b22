"""What a model card says of a network: what the run wrote down, and what is measured now; nothing else.

No path of the machine gets in: a card is for others.
"""

import json
from pathlib import Path

import torch
from timm.models import model_entrypoint

from isometry.config import RunConfig
from isometry.distributed import join_world
from isometry.errors import UserError, reason
from isometry.evaluation.environment import conditions, limited_threads
from isometry.evaluation.timing import speeds_in_turns
from isometry.export.citations import papers
from isometry.export.equivalence import judge
from isometry.export.job import BATCH_SIZES, Export, Row, input_of, judged_by
from isometry.losses.base import parse_terms
from isometry.models.cost import macs, parameter_count
from isometry.models.spec import image_spec, label_names


def architecture_of(job: Export) -> Row:
    """What is known without running it.

    ``model``; ``arguments`` of timm's constructor; ``registered_by``, a module that timm needs for it, or None;
    ``classes``, ``class_names``; ``input``; ``parameters``; ``macs`` of one image.
    """
    network, folder = job.saved.network, job.saved.folder
    assert folder is not None
    module = model_entrypoint(job.architecture).__module__
    spec = image_spec(network)
    return {
        "model": job.architecture,
        "arguments": json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_args", {}),
        # timm finds an architecture of this package once the module that registers it was imported.
        "registered_by": None if module.startswith("timm.") else module,
        "classes": int(network.num_classes),  # type: ignore[arg-type]
        "class_names": label_names(network) or [],
        "input": input_of(spec),
        "parameters": parameter_count(network),
        "macs": macs(network, spec.input_size),
    }


def accuracy_of(job: Export) -> Row:
    """``judged_on``, labelled images in words, and ``accuracy`` (:func:`isometry.export.equivalence.judge`).

    Nothing without labels, and where the run's images are not there any more, which is said.

    Raises:
        UserError: images that the options name can't be used.
    """
    device = join_world(job.images.device).device
    network = job.saved.network.to(device)
    try:
        with judged_by(job, device) as judged:
            if not judged.material.labelled:
                return {}
            found = judge({"": network}, judged.material, int(network.num_classes))[""]  # type: ignore[arg-type]
            del found["agreement"]
            return {
                "judged_on": _without_place(judged.sources.description, judged.config),
                "accuracy": found,
            }
    except UserError as error:
        if job.images.data_dir is not None or job.images.dataset:
            raise
        job.say(f"No accuracy was measured: {error}", "yellow")
        return {}


def latency_of(job: Export) -> Row:
    """``speeds`` (:func:`isometry.evaluation.timing.speeds_in_turns`) and the ``conditions`` that they were measured under."""
    device = join_world(job.images.device).device
    network = job.saved.network.to(device)
    # Any images will do: without gates each takes as long.
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(max(BATCH_SIZES), *image_spec(network).input_size, generator=generator).to(device)
    with limited_threads(job.threads):
        speeds = speeds_in_turns({"": (network, images)}, BATCH_SIZES, job.seconds)[""]
        return {"speeds": speeds, "conditions": conditions(device)}


def told_by_the_run(job: Export) -> Row:
    """What config.yaml and summary.json say, as far as they are there.

    ``trained_on``; ``training``: ``began_with``, ``epochs``, ``optimizer``, ``seed``, ``terms`` with weights,
    ``growth``, ``seconds``; ``teacher``: ``model``, ``top1``, ``top1_part``; ``papers``.

    Raises:
        UserError: summary.json is none.
    """
    config, run = job.saved.config, job.saved.run
    if config is None or run is None:
        return {"papers": []}
    rows = {row["role"]: row for row in _summary(run / "summary.json")}
    training: Row = {
        "began_with": _beginning(config),
        "epochs": config.epochs,
        "optimizer": config.opt,
        "seed": config.seed,
        "terms": {term.name: term.weight for term in parse_terms(config.losses)},
    }
    if config.grow.wanted:
        training["growth"] = {"depth": config.grow.depth, "width": config.grow.width}
    if "seconds" in rows.get("student", {}):
        training["seconds"] = rows["student"]["seconds"]
    told: Row = {"trained_on": _data(config), "training": training, "papers": papers(config)}
    if config.teacher:
        seen = rows.get("teacher", {"model": Path(config.teacher).name})
        kept = {key: seen[key] for key in ("top1", "top1_part") if key in seen}
        told["teacher"] = {"model": seen["model"].removeprefix("teacher "), **kept}
    return told


def _summary(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [row for row in rows if isinstance(row["model"], str) and isinstance(row["role"], str)]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"{path}: is no summary of a run ({reason(error)}); remove it to go without"
        ) from error


def _beginning(config: RunConfig) -> str:
    if config.initial_checkpoint:
        return Path(config.initial_checkpoint).name
    if config.model.startswith("hf-hub:"):
        return f"the weights of {config.model}"
    if config.model.startswith("local-dir:"):
        return "weights trained before"
    return f"timm's pretrained weights of {config.model}" if config.pretrained else "random weights"


def _data(config: RunConfig) -> str:
    return config.dataset or Path(config.data_dir or "").name


def _without_place(description: str, config: RunConfig) -> str:
    return (
        description.replace(config.data_dir, Path(config.data_dir).name) if config.data_dir else description
    )
