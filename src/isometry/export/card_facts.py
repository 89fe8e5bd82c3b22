"""The facts of a model card: from the run's files, and measured at export.

They contain no local paths, because cards are published.
"""

from pathlib import Path

import torch
from timm.models import model_entrypoint

from isometry.config import ModelConfig
from isometry.distributed import join_world
from isometry.errors import UserError
from isometry.evaluation.environment import environment, limited_threads
from isometry.evaluation.saved_network import reading_config
from isometry.evaluation.timing import interleaved_speeds
from isometry.export.citations import papers
from isometry.export.equivalence import evaluate_variants
from isometry.export.job import BATCH_SIZES, Export, Row, export_images, input_of
from isometry.losses.base import parse_terms
from isometry.models.cost import macs, parameter_count
from isometry.models.names import TimmConfig
from isometry.models.spec import image_spec, label_names
from isometry.parsing import read_json
from isometry.report.records.run_folders import read_summary


def architecture_of(job: Export) -> Row:
    """Facts that need no forward pass.

    ``model``; ``arguments`` of timm's constructor; ``registered_by``, the module to import before timm can build it,
    or None; ``classes``, ``class_names``; ``input``
    (:func:`isometry.export.job.input_of`); ``parameters``; ``macs`` of one image.
    """
    network, folder = job.saved.network, job.saved.folder
    assert folder is not None
    module = model_entrypoint(job.architecture).__module__
    spec = image_spec(network)
    return {
        "model": job.architecture,
        "arguments": read_json(folder / "config.json", TimmConfig).get("model_args", {}),
        # Architectures of this package are in timm's registry once their module is imported.
        "registered_by": None if module.startswith("timm.") else module,
        "classes": int(network.num_classes),  # type: ignore[arg-type]
        "class_names": label_names(network) or [],
        "input": input_of(spec, reading_config(job.saved, job.images)),
        "parameters": parameter_count(network),
        "macs": macs(network, spec.input_size),
    }


def accuracy_of(job: Export) -> Row:
    """``judged_on``, a description of the labelled images, and ``accuracy``
    (:func:`isometry.export.equivalence.evaluate_variants`).

    Empty without labels, or, with a message, if the run's images are not available.

    Raises:
        UserError: the options' images can't be used.
    """
    device = join_world(job.images.device).device
    network = job.saved.network.to(device)
    try:
        with export_images(job, device) as data:
            if not data.dataset.labelled:
                return {}
            found = evaluate_variants({"": network}, data.dataset, int(network.num_classes))[""]  # type: ignore[arg-type]
            del found["agreement"]
            description, folder = data.sources.description, data.config.data_dir
            if folder:
                description = description.replace(folder, Path(folder).name)
            return {"judged_on": description, "accuracy": found}
    except UserError as error:
        if job.images.data_dir is not None or job.images.dataset:
            raise
        job.say(f"Accuracy was not measured: {error}", "yellow")
        return {}


def latency_of(job: Export) -> Row:
    """``speeds`` (:func:`isometry.evaluation.timing.interleaved_speeds`) and the ``conditions`` that they were
    measured under."""
    device = join_world(job.images.device).device
    network = job.saved.network.to(device)
    # Random images: without gates the time does not depend on them.
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(max(BATCH_SIZES), *image_spec(network).input_size, generator=generator).to(device)
    with limited_threads(job.threads):
        speeds = interleaved_speeds({"": (network, images)}, BATCH_SIZES, job.seconds)[""]
        return {"speeds": speeds, "conditions": environment(device)}


def run_facts(job: Export) -> Row:
    """Facts from config.yaml and summary.json, if they are there.

    ``trained_on``; ``training``: ``began_with``, ``epochs``, ``optimizer``, ``seed``, ``terms`` with weights,
    ``growth``, ``seconds``; ``teacher``: ``model``, ``top1``, ``top1_by_class``, ``top1_part``, ``weights`` if they
    were random; ``papers``.

    Raises:
        UserError: summary.json is not a run's summary.
    """
    config, run = job.saved.config, job.saved.run
    if config is None or run is None:
        return {"papers": []}
    rows = read_summary(run) if (run / "summary.json").is_file() else {}
    training: Row = {
        "began_with": _initial_weights(config),
        "epochs": config.epochs,
        "optimizer": config.opt,
        "seed": config.seed,
        "terms": {term.name: term.weight for term in parse_terms(config.losses)},
    }
    if config.grow.wanted:
        training["growth"] = {"depth": config.grow.depth, "width": config.grow.width}
    if "seconds" in rows.get("student", {}):
        training["seconds"] = rows["student"]["seconds"]
    methods = papers(config, config.grow, config.prune)
    trained_on = config.dataset or Path(config.data_dir or "").name
    facts: Row = {"trained_on": trained_on, "training": training, "papers": methods}
    if config.teacher:
        row = rows.get("teacher", {"model": Path(config.teacher).name})
        kept = {key: row[key] for key in ("top1", "top1_by_class", "top1_part") if key in row}
        facts["teacher"] = {"model": row["model"].removeprefix("teacher "), **kept}
        if config.teacher_weights == "none":
            facts["teacher"]["weights"] = "random"
    return facts


def _initial_weights(config: ModelConfig) -> str:
    if config.initial_checkpoint:
        return Path(config.initial_checkpoint).name
    if config.model.startswith("hf-hub:"):
        return f"the weights of {config.model}"
    if config.model.startswith("local-dir:"):
        return "a trained network"
    return f"timm's pretrained weights of {config.model}" if config.pretrained else "random weights"
