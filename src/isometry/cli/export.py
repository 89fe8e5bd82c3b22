"""`isometry export`: a finished network in another form, checked, measured, and judged by images beside what it was."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console

from isometry.errors import UserError
from isometry.evaluation.saved_network import ImagesConfig, open_folder
from isometry.export.job import Export, Row
from isometry.export.onnx import export_onnx
from isometry.export.timm_folder import export_folder


@dataclass
class ExportConfig(ImagesConfig):
    """What is written, and how it is measured."""

    to: Literal["onnx", "timm"] | None = None
    """`onnx`: one file for ONNX Runtime. `timm`: a folder for local-dir: and for a hub, with a model card."""
    quantize: Literal["int8"] | None = None
    """ONNX in 8-bit integers: calibrated on training images where convolutions hold the weights."""
    masked: bool = False
    """Of a network with gates: export the form that computes every channel, which runs anywhere."""
    license: str = ""
    """Licence of the weights for the model card, as hubs call it, e.g. apache-2.0; unknown if not given."""
    threads: int | None = None
    """Threads that compute while times are taken; as many as torch likes if not given."""
    seconds: float = 1.0
    """About how long each form is timed at each batch size."""
    out: str = ""
    """File or folder to write; student.onnx or timm/ in the run's folder if not given."""


def export(name: str, options: ExportConfig, console: Console) -> Row:
    """Exports the network in a folder, prints what was measured and writes it beside the export as JSON.

    Args:
        name: the folder of a run, or of a saved network (a run's ``student``).
        options: to what, and how.
        console: where a person reads.

    Returns:
        What the JSON holds: see :func:`isometry.export.onnx.export_onnx`, :func:`isometry.export.timm_folder.export_folder`.

    Raises:
        UserError: options that don't fit each other or the network, no network there, no images to check it by, a
            missing library, or an export that does not compute what the network does. Nothing is written then.
    """
    _check(options)
    job = Export(
        saved=open_folder(name, command="export"),
        images=options,
        threads=options.threads,
        seconds=options.seconds,
        out=options.out,
        console=console,
    )
    if options.to == "timm":
        return export_folder(job, license_id=options.license)
    return export_onnx(job, masked=options.masked, int8=options.quantize is not None)


def _check(options: ExportConfig) -> None:
    if options.to is None:
        raise UserError("--to: not given; --to onnx for a file, or --to timm for a folder with a model card")
    belong: dict[str, tuple[str, object]] = {
        "--quantize": ("onnx", options.quantize),
        "--masked": ("onnx", options.masked),
        "--license": ("timm", options.license),
    }
    for flag, (form, value) in belong.items():
        if value and form != options.to:
            raise UserError(f"{flag}: goes with --to {form} alone; leave it out")
    rules: dict[str, tuple[object, Callable[[], bool], str]] = {
        "--threads": (options.threads, lambda: options.threads is None or options.threads >= 1, "at least 1"),
        "--seconds": (
            options.seconds,
            lambda: math.isfinite(options.seconds) and options.seconds > 0,
            "above 0",
        ),
    }
    for flag, (given, holds, rule) in rules.items():
        if not holds():
            raise UserError(f"{flag} {given}: must be {rule}")
