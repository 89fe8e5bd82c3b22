"""`isometry export --to onnx` of a detector or segmentation network: one file, checked against the network."""

import json
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from isometry.errors import UserError, reason
from isometry.evaluation.environment import environment, environment_text, limited_threads
from isometry.evaluation.timing import Row, interleaved_speeds
from isometry.files import check_replaceable, sha256_of, write_output
from isometry.models.dense.network import DenseNetwork
from isometry.models.dense.onnx import OUTPUTS, Raw, dense_to_onnx
from isometry.models.dense.saving import load_dense, saved_reading
from isometry.models.finite import check_answers
from isometry.models.onnx import library, onnx_run_all
from isometry.models.spec import architecture
from isometry.report import formats
from isometry.report.terminal import say

TOLERANCE = 1e-4
"""Largest allowed difference from the network: of scores and logits, and of boxes in sides of the image."""
BATCH_SIZES = (1, 3, 8)
"""Batch sizes at which a file is checked; the first and the last are timed."""
KINDS = {"detect": "a detector", "segment": "a segmentation network"}


def export_dense(
    folder: Path, console: Console, *, out: str = "", threads: int | None = None, seconds: float = 1.0
) -> Row:
    """Writes the network to a file and the measurements to a JSON file beside it, after the checks have passed.

    The graph maps ``images`` (batch, C, H, W), float32, normalised, of any batch size, to a detector's ``boxes``
    (batch, A, 4), in pixels of the input and clipped to it, and ``scores`` (batch, A, K), before threshold and NMS; or
    to ``logits`` (batch, K, H, W). The metadata say how an image becomes an input and what is left to do with the
    outputs (:func:`metadata`). It is checked on random images.

    Args:
        folder: of :func:`isometry.models.dense.saving.save_dense`.
        out: the file; ``model.onnx`` in the run's folder (beside ``model``), or in the network's own.
        threads, seconds: of the timing.

    Returns:
        ``model`` (the backbone), ``task``, ``precision``, ``file``, ``bytes``, ``sha256``, ``opset``, ``tolerance``,
        ``checks`` (rows of ``batch_size``, ``images`` and the largest difference of each output), ``forms`` (rows of
        ``form`` and ``speeds``), ``conditions``, and the content of :func:`metadata`.

    Raises:
        UserError: the ``onnx`` extra is missing; the network can't be loaded or exported, or its outputs differ; or
            a file would be replaced that is the user's (:func:`isometry.files.check_replaceable`).
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            library(name)
        except UserError as error:
            raise UserError(f"--to onnx: {error}") from error
    network = load_dense(folder, flag="export")
    place = _place(out, folder)
    for path in (place, place.with_suffix(".json")):
        check_replaceable(path)
    told = metadata(network, folder)
    with limited_threads(threads), TemporaryDirectory() as scratch:
        result, model = _built(network, Path(scratch) / "model.onnx", f"export {folder}", seconds)
    onnx = library("onnx")
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}
    onnx.helper.set_model_props(model, texts)
    content = model.SerializeToString()
    place.parent.mkdir(parents=True, exist_ok=True)
    write_output(place, content)
    result = {
        "model": told["architecture"],
        "precision": "float32",
        "file": place.name,
        "bytes": len(content),
        "sha256": sha256_of(place),
        "opset": next(each.version for each in model.opset_import if not each.domain),
        **result,
        **told,
    }
    write_output(place.with_suffix(".json"), json.dumps(result, indent=1))
    _print(console, result, place)
    return result


def metadata(network: DenseNetwork, folder: Path) -> Row:
    """What a program needs beside the graph.

    ``task``, ``architecture`` (of the backbone), ``class_names``; ``shape`` (C, H, W), ``mean``, ``std``,
    ``interpolation``, ``resize`` and how files were read, where known (``exif``, ``pixel_range``); ``outputs``, by
    name what they are. For a detector also ``score_threshold``, ``nms_iou`` and ``most_boxes``, as torch has them.
    """
    spec = network.spec
    told: Row = {
        "task": network.task,
        "architecture": architecture(network.backbone),
        "class_names": network.class_names,
        "shape": list(spec.input_size),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
        "resize": "scaled to fit, its shape kept, in the middle of padding of the mean",
        **{key: value for key, value in (saved_reading(folder) or {}).items() if value is not None},
    }
    if network.task == "segment":
        return {**told, "outputs": {"logits": "batch, class, row, column: the largest is the pixel's class"}}
    from isometry.models.dense.detector import MOST_BOXES, NMS_IOU, SCORE_THRESHOLD

    return {
        **told,
        "outputs": {
            "boxes": "batch, box, (left, top, right, bottom) in pixels of the input: no decoding is left to do",
            "scores": "batch, box, class in 0..1: apply score_threshold, then non-maximum suppression of each class",
        },
        "score_threshold": SCORE_THRESHOLD,
        "nms_iou": NMS_IOU,
        "most_boxes": MOST_BOXES,
    }


def _place(out: str, folder: Path) -> Path:
    if not out:
        return (folder.absolute().parent if folder.name == "model" else folder) / "model.onnx"
    place = Path(out)
    if place.suffix != ".onnx" or place.is_dir():
        raise UserError(f"--out {place}: give a file that ends in .onnx")
    return place


def _built(network: DenseNetwork, path: Path, name: str, seconds: float) -> tuple[Row, Any]:
    """Checks and times of the file written at ``path``, and the graph with its weights."""
    onnx = library("onnx")
    images = torch.randn(8, *network.spec.input_size, generator=torch.Generator().manual_seed(0))
    reference = Raw(network)
    try:
        with torch.no_grad():
            dense_to_onnx(network, images[:2], path)
        model = onnx.load(path)
        # The exporter writes weights to a file of their own.
        onnx.save(model, path)
        run = onnx_run_all(path, torch.get_num_threads())
        checks = [_differences(network, run, images[:size]) for size in BATCH_SIZES]
    except UserError:
        raise
    except Exception as error:
        # Exporter and runtime share no base class for unsupported networks.
        raise UserError(
            f"{name}: {architecture(network.backbone)} can't be exported ({reason(error)[:200]}); "
            "nothing was written; try another version of onnxruntime or torch"
        ) from error
    _check(checks, network, name)
    forms = interleaved_speeds(
        {"torch": (reference, images), "onnx": (run, images)},  # type: ignore[dict-item]
        (BATCH_SIZES[0], BATCH_SIZES[-1]),
        seconds,
    )
    conditions = environment(torch.device("cpu")) | {"onnxruntime": version("onnxruntime")}
    rows = [{"form": form, "speeds": speeds} for form, speeds in forms.items()]
    return {"tolerance": TOLERANCE, "checks": checks, "forms": rows, "conditions": conditions}, model


@torch.no_grad()
def _differences(network: DenseNetwork, run: Any, images: Tensor) -> Row:
    """The largest difference of each output on a batch; of boxes in pixels."""
    answer = network.raw(images)  # type: ignore[operator]
    wanted = answer if isinstance(answer, tuple) else (answer,)
    check_answers(wanted, "export", "random images")
    gaps = {
        output: float((found - right).abs().max())
        for output, found, right in zip(OUTPUTS[network.task], run(images), wanted, strict=True)
    }
    return {"batch_size": len(images), **gaps}


def _check(checks: list[Row], network: DenseNetwork, name: str) -> None:
    for row in checks:
        for output in OUTPUTS[network.task]:
            allowed = TOLERANCE * (max(network.size) if output == "boxes" else 1)
            if not row[output] <= allowed:
                raise UserError(
                    f"{name}: the file's {output} differ from the network's by up to {row[output]:.2g} at batch "
                    f"{row['batch_size']}; nothing was written; try another version of onnxruntime or torch"
                )


def _print(console: Console, result: Row, place: Path) -> None:
    say(console, f"{result['model']}, {KINDS[result['task']]} of {len(result['class_names'])} classes")
    for row in result["forms"]:
        times = ", ".join(
            f"{formats.milliseconds(each['ms'] / 1000)} ms at batch {each['batch_size']}"
            for each in row["speeds"]
        )
        say(console, f"{row['form']}: {times}")
    say(console, environment_text(result["conditions"]))
    for row in result["checks"]:
        gaps = ", ".join(f"{key} {value:.2g}" for key, value in row.items() if key != "batch_size")
        say(console, f"Largest difference from the model at batch {row['batch_size']}, random images: {gaps}")
    say(console, f"ONNX     {place} ({result['precision']})")
    say(console, f"Figures  {place.with_suffix('.json')}")
