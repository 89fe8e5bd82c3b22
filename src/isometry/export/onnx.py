"""`isometry export --to onnx`: one ONNX file, checked in ONNX Runtime against the network."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from isometry.data.splits import MapPart
from isometry.distributed import World
from isometry.errors import UserError, reason
from isometry.evaluation.environment import environment, environment_text, limited_threads
from isometry.evaluation.saved_network import evaluation_images
from isometry.evaluation.timing import interleaved_speeds
from isometry.export.equivalence import TOLERANCE, check_differences, differences, evaluate_variants, speed_up
from isometry.export.job import BATCH_SIZES, IMAGES, Export, ExportImages, Row, export_images, input_of
from isometry.export.tables import forms_table, notes_on, skipping_text
from isometry.files import check_replaceable, sha256_of, write_output
from isometry.models.cost import Forward
from isometry.models.finite import check_answers
from isometry.models.onnx import library, onnx_run, to_onnx
from isometry.models.spec import label_names
from isometry.prune.gates import gated_convs
from isometry.prune.onnx_skipping import skipping_to_onnx
from isometry.prune.skipping import skipping
from isometry.prune.unused_channels import SHARE_APART

TORCH, TORCH_SKIPPING = "torch", "torch, skipping"
FLOATS, SKIPPING, INT8 = "onnx", "onnx, skipping", "onnx, int8"
"""Names of the variants."""

LARGEST = 2**31 - 2**24
"""Largest size of the weights, bytes: a protobuf file holds 2 GiB, and the graph needs some of it."""

REALLY_FASTER = 1.05
"""Smallest speed-up of skipping at batch 1, at the low end of its interval."""


def export_onnx(job: Export, *, masked: bool, int8: bool) -> Row:
    """Writes the network to a file and the measurements to a JSON file beside it, after all checks have passed.

    The graph maps ``images`` (batch, C, H, W), float32, normalised, of any batch size, to ``logits`` (batch, K). The
    file's metadata contain all that makes a file into such an image (:func:`isometry.export.job.input_of`), and the
    class names. A network with gates is exported as a graph that skips channels, if that is measurably faster in ONNX
    Runtime; with ``masked`` as one that computes every channel. ``int8`` quantises, see
    :mod:`isometry.export.quantize`.

    Returns:
        ``model``, ``form`` (the exported variant), ``precision``, ``file``, ``bytes``, ``sha256``, ``opset``, ``input``
        (:func:`isometry.export.job.input_of`), ``data``, ``tolerance``, ``checks`` (by variant the rows of
        :func:`isometry.export.equivalence.differences`), ``skipping`` (:func:`isometry.export.equivalence.speed_up`,
        of the skipping graph over the masked one), ``forms`` (a row a variant: ``form``, ``bytes`` of a file, the
        result of :func:`isometry.export.equivalence.evaluate_variants`, ``speeds``), ``conditions``, ``notes``.

    Raises:
        UserError: the ``onnx`` extra is missing; there are no images; the exporter or ONNX Runtime does not support
            the network, or its outputs differ; skipping is not faster.
    """
    gated = bool(gated_convs(job.saved.network))
    _check_request(job, gated=gated, masked=masked, int8=int8)
    place = _place(job, masked=masked, int8=int8)
    check_replaceable(place)
    check_replaceable(place.with_suffix(".json"))
    with (
        limited_threads(job.threads),
        export_images(job, torch.device("cpu")) as data,
        TemporaryDirectory() as scratch,
    ):
        images = data.dataset.sample(IMAGES)
        with torch.no_grad():
            check_answers([job.saved.network(images[:1])], job.name)
        with _one_line(job):
            paths, precision = _build(job, data, images, Path(scratch), skips=gated and not masked, int8=int8)
            runs = {name: onnx_run(path, torch.get_num_threads()) for name, path in paths.items()}
            measured = _measure(job, runs, data, images)
            model = _described(list(paths.values())[-1], job, data)
        for row in measured["forms"]:
            if row["form"] in paths:
                row["bytes"] = paths[row["form"]].stat().st_size
    content = model.SerializeToString()
    place.parent.mkdir(parents=True, exist_ok=True)
    write_output(place, content)
    result: Row = {
        "model": job.architecture,
        "form": list(paths)[-1],
        "precision": precision,
        "file": place.name,
        "bytes": len(content),
        "sha256": sha256_of(place),
        "opset": next(each.version for each in model.opset_import if not each.domain),
        **measured,
    }
    write_output(place.with_suffix(".json"), json.dumps(result, indent=1))
    _print(job, result, place)
    return result


def _check_request(job: Export, *, gated: bool, masked: bool, int8: bool) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            library(name)
        except UserError as error:
            raise UserError(f"--to onnx: {error}") from error
    if job.images.device not in ("", "cpu"):
        raise UserError(
            f"--device {job.images.device}: --to onnx checks and measures on the CPU; remove the option"
        )
    if masked and not gated:
        raise UserError(f"--masked: {job.saved.name} has no gates; remove the option")
    if int8 and gated and not masked:
        raise UserError(
            "--quantize int8: a skipping graph gathers its weights for each image, and those can't be quantised; "
            "add --masked for the graph that computes every channel"
        )
    weights = sum(each.numel() * each.element_size() for each in job.saved.network.state_dict().values())
    if weights > LARGEST:
        raise UserError(
            f"{job.name}: has {weights:,} bytes of weights, and an ONNX file holds less than 2 GiB"
        )


def _place(job: Export, *, masked: bool, int8: bool) -> Path:
    if not job.out:
        return job.saved.place / f"student{'.masked' * masked}{'.int8' * int8}.onnx"
    place = Path(job.out)
    if place.suffix != ".onnx" or place.is_dir():
        raise UserError(f"--out {place}: give a file that ends in .onnx")
    return place


@contextmanager
def _one_line(job: Export) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Exporter, runtime and quantiser share no base class for unsupported networks.
        raise UserError(
            f"{job.name}: {job.architecture} can't be exported ({reason(error)[:200]}); "
            "nothing was written; try another version of onnxruntime or torch"
        ) from error


def _build(
    job: Export, data: ExportImages, images: Tensor, scratch: Path, *, skips: bool, int8: bool
) -> tuple[dict[str, Path], str]:
    """Graph files by name, the one to be exported last, and its precision."""
    onnx, network = library("onnx"), job.saved.network
    paths = {FLOATS: scratch / "floats.onnx"}
    to_onnx(network, images[:2].expand(2, -1, -1, -1), paths[FLOATS])
    # The exporter writes weights to a file of their own.
    onnx.save(onnx.load(paths[FLOATS]), paths[FLOATS])
    if skips:
        paths[SKIPPING] = scratch / "skipping.onnx"
        skipping_to_onnx(skipping(network), images[0], paths[SKIPPING])
    if not int8:
        return paths, "float32"
    from isometry.export.quantize import CALIBRATION_IMAGES, quantize

    paths[INT8] = scratch / "int8.onnx"
    calibration = _training_images(job, data, CALIBRATION_IMAGES)
    return paths, quantize(paths[FLOATS], paths[INT8], calibration, gated=bool(gated_convs(network)))


def _training_images(job: Export, data: ExportImages, count: int) -> Tensor:
    """Up to ``count`` training images (N, C, H, W), without augmentation; a random subset if they can be read by
    index."""
    part = data.sources.train
    if isinstance(part, MapPart):
        numbers = range(len(part)) if part.numbers is None else part.numbers
        drawn = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:count]
        part = replace(part, numbers=[numbers[place] for place in sorted(drawn.tolist())])
    sources = replace(data.sources, val=part, test=None)
    batches: list[Tensor] = []
    with evaluation_images(
        job.saved.network, sources, data.spec, data.config, World(0, 1, torch.device("cpu"))
    ) as dataset:
        for batch in dataset.images():
            batches.append(batch)
            if sum(map(len, batches)) >= count:
                break
    return torch.cat(batches)[:count]


def _measure(job: Export, runs: Mapping[str, Forward], data: ExportImages, images: Tensor) -> Row:
    """Checks the graphs against the network, then measures times and accuracy of both."""
    network = job.saved.network
    gated = bool(gated_convs(network))
    checks = {name: differences(run, network, images, BATCH_SIZES) for name, run in runs.items()}
    for name, rows in checks.items():
        # Whether 8 bits are good enough is for whoever reads their accuracy to say.
        check_differences(rows, SHARE_APART if gated else 0, f"{job.name}: {name}", name != INT8)
    beside = {TORCH: network, **({TORCH_SKIPPING: skipping(network)} if SKIPPING in runs else {})}
    variants: dict[str, Forward] = {**beside, **runs}
    gain = _skipping_gain(job, runs, images) if SKIPPING in runs else {}
    speeds = interleaved_speeds(
        {name: (run, images) for name, run in variants.items()}, BATCH_SIZES, job.seconds
    )
    answers = evaluate_variants(variants, data.dataset, int(network.num_classes))  # type: ignore[arg-type]
    rows = [{"form": name, **answers[name], "speeds": speeds[name]} for name in variants]
    return {
        "input": input_of(data.spec, data.config),
        "data": data.sources.description,
        "tolerance": TOLERANCE,
        "checks": checks,
        **gain,
        "forms": rows,
        "conditions": environment(torch.device("cpu")) | {"onnxruntime": version("onnxruntime")},
        "notes": notes_on(rows),
    }


def _skipping_gain(job: Export, runs: Mapping[str, Forward], images: Tensor) -> Row:
    gain = speed_up(runs[SKIPPING], runs[FLOATS], images, job.seconds)
    if gain["low"] < REALLY_FASTER:
        verdict = "slower" if gain["high"] < 1 else f"not measurably {100 * (REALLY_FASTER - 1):.0f} % faster"
        raise UserError(
            f"{job.name}: ONNX Runtime is {verdict} with skipping: {gain['median']:.2f} times as fast at batch 1 as "
            f"with every channel computed (95 % interval {gain['low']:.2f} to {gain['high']:.2f}); nothing was "
            "written; add --masked for the graph that computes every channel, or isometry.load, which skips in torch"
        )
    return {"skipping": gain}


def _described(path: Path, job: Export, data: ExportImages) -> Any:
    """The graph with metadata: architecture, preprocessing, class names."""
    onnx = library("onnx")
    model = onnx.load(path)
    known = {"architecture": job.architecture, **input_of(data.spec, data.config)}
    names = label_names(job.saved.network) or data.sources.class_names
    if names:
        known["class_names"] = names
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}
    onnx.helper.set_model_props(model, texts)
    return model


def _print(job: Export, result: Row, place: Path) -> None:
    job.say(f"{result['model']} on {result['data']}")
    job.console.print(forms_table(result["forms"]))
    job.say(environment_text(result["conditions"]))
    for name, checks in result["checks"].items():
        gaps = ", ".join(f"{row['gap']:.2g} at batch {row['batch_size']}" for row in checks)
        job.say(f"Largest difference from the model ({name}): {gaps}")
    if "skipping" in result:
        job.say(skipping_text(result["skipping"]))
    for note in result["notes"]:
        job.say(note, "yellow")
    job.say(f"ONNX     {place} ({result['precision']}{', skipping' * (result['form'] == SKIPPING)})")
    job.say(f"Figures  {place.with_suffix('.json')}")
