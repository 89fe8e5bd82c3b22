"""`isometry export`: a finished network as ONNX or as a timm folder, checked, timed and evaluated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from isometry.errors import UserError
from isometry.evaluation.saved_network import ImagesConfig, open_folder
from isometry.export.dense_onnx import export_dense
from isometry.export.job import Export, Row
from isometry.export.onnx import export_onnx
from isometry.export.timm_folder import export_folder
from isometry.models.dense.saving import dense_folder


@dataclass
class ExportConfig(ImagesConfig):
    """Export format and measurement."""

    to: Literal["onnx", "timm"] | None = None
    """`onnx`: a file for ONNX Runtime. `timm`: a folder with a model card, for local-dir: or a hub."""
    quantize: Literal["int8"] | None = None
    """Quantize to 8-bit integers; convolutional networks are calibrated on training images."""
    masked: bool = False
    """For a network with gates: export the variant that computes every channel, which runs anywhere."""
    license: str = ""
    """Licence of the weights for the model card, by its identifier on hubs, e.g. apache-2.0; unknown if not given."""
    threads: int | None = None
    """Threads during timing; torch's default if not given."""
    seconds: float = 1.0
    """Approximate duration of timing each variant at each batch size."""
    out: str = ""
    """File or folder to write; student.onnx or timm/ in the run's folder if not given."""


def export(name: str, options: ExportConfig, console: Console) -> Row:
    """Exports the network in a folder, of a run or a saved network (a run's ``student``), prints the measurements and
    writes them beside the export as JSON.

    Returns:
        The content of the JSON file: see :func:`isometry.export.onnx.export_onnx`,
        :func:`isometry.export.timm_folder.export_folder` and, for a detector or segmentation network,
        :func:`isometry.export.dense_onnx.export_dense`.

    Raises:
        UserError: options that contradict each other or the network, no network, no images, a missing library, or an
            export whose outputs differ from the network's. Nothing is written then.
    """
    _check(options)
    dense = dense_folder(name.removeprefix("local-dir:"))
    if dense is not None:
        _check_dense(options, dense)
        return export_dense(dense, console, out=options.out, threads=options.threads, seconds=options.seconds)
    saved = open_folder(name, command="export")
    job = Export(saved, options, options.threads, options.seconds, options.out, console)
    if options.to == "timm":
        return export_folder(job, license_id=options.license)
    return export_onnx(job, masked=options.masked, int8=options.quantize is not None)


def _check(options: ExportConfig) -> None:
    if options.to is None:
        raise UserError("--to: not given; --to onnx for a file, or --to timm for a folder with a model card")
    for flag, to, value in (
        ("--quantize", "onnx", options.quantize),
        ("--masked", "onnx", options.masked),
        ("--license", "timm", options.license),
    ):
        if value and to != options.to:
            raise UserError(f"{flag}: only for --to {to}; leave it out")


def _check_dense(options: ExportConfig, folder: Path) -> None:
    """Raises UserError for what there is of classifiers only."""
    if options.to == "timm":
        backbone = folder.parent / "student"
        instead = f"isometry export {backbone} --to timm exports its backbone"
        raise UserError(
            "--to timm: timm has no detectors and no segmentation networks; "
            + (instead if backbone.is_dir() else "give --to onnx")
        )
    if options.quantize:
        raise UserError(
            "--quantize int8: is for classifiers; leave it out for a file of float32, which ONNX Runtime can quantize"
        )
    if options.masked:
        raise UserError("--masked: detectors and segmentation networks have no gates; leave it out")
    for flag, value in (
        ("--data-dir", options.data_dir),
        ("--dataset", options.dataset),
        ("--decode", options.decode),
        ("--exif", options.exif),
        ("--pixel-range", options.pixel_range),
    ):
        if value:
            raise UserError(
                f"{flag}: a detector or segmentation network is checked on random images; leave it out"
            )
    if options.device not in ("", "cpu"):
        raise UserError(f"--device {options.device}: --to onnx checks and measures on the CPU; leave it out")
