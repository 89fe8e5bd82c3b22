"""All that the teacher outputs of a run depend on: the identity of a cache."""

import os
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor

from isometry.config import DataConfig, RunConfig, TeacherConfig
from isometry.config.paths import expand_path
from isometry.data.image_spec import ImageSpec
from isometry.data.splits import MapPart, StreamPart
from isometry.distributed import World
from isometry.errors import UserError
from isometry.files import sha256_of
from isometry.models.spec import image_spec, pretrained_cfg
from isometry.training.assemble import Run
from isometry.training.teacher_cache.cache import ABSENT
from isometry.training.teacher_cache.entry import raw

IRRELEVANT = (
    # Location and reading of the images; their names, sizes and order are hashed.
    {"data_dir", "train_split", "val_split", "val_fraction", "class_map", "dataset_download"}
    | {"skip_bad_images", "workers", "pin_mem"}
    # Follows from the batch size of a process and the number of processes.
    | {"global_batch_size"}
    # Validation and labels, which the teacher does not get.
    | {"validation_batch_size", "crop_pct", "smoothing"}
    # Origin of the teacher, whose weights are hashed, and use of its outputs.
    | {
        "teacher",
        "trust_remote_code",
        "teacher_weights",
        "teacher_shard",
        "teacher_cache",
        "teacher_cache_size",
    }
    | {"losses", "reduction", "relations", "taps"}
)
"""Data and teacher options that do not change the outputs; new options count as relevant."""

RELEVANT = ("seed", "img_size", "in_chans", "grad_accum_steps", "amp", "compile", "channels_last")
"""Other options that change the outputs."""


def identity_of(run: Run, world: World) -> dict[str, Any]:
    """The identity of a run's teacher cache, by readable names, for :class:`TeacherCache`.

    Of the student only the expected images count; epochs, losses and the learning rate do not. Reads all weights and
    the sizes of all image files. All processes must call it if the teacher is sharded.

    Raises:
        UserError: no term needs a teacher, or the data is a stream.
    """
    config, part = run.config, run.sources.train
    if run.teacher is None or not run.objective.needs_teacher:
        raise UserError("--teacher-cache: no term of this run needs a teacher; leave it out")
    if isinstance(part, StreamPart):
        raise UserError(
            f"--teacher-cache: --dataset {config.dataset} is a stream, whose images come in no reproducible order; "
            "leave it out"
        )
    teacher = run.teacher
    return {
        "the teacher": pretrained_cfg(teacher).get("architecture") or type(teacher).__name__,
        "the SHA-256 of its weights": hash_weights(teacher),
        "its images": _expected(image_spec(teacher)),
        "the student's images": _expected(run.spec),
        "the number of training images": len(part),
        "the SHA-256 of their names and sizes": hash_images(part, config.data_dir),
        **_options(config),
        "--amp-dtype": config.amp_dtype if config.amp else None,
        "--compile-backend": config.compile_backend if config.compile else None,
        "the number of processes": world.size,
        "the kind of device": world.device.type,
    }


def hash_weights(model: nn.Module) -> str:
    """SHA-256 of the names, dtypes, shapes and values of all weights and buffers, sharded or not; hexadecimal."""

    def pieces() -> Iterator[bytes | memoryview]:
        for name, tensor in sorted(model.state_dict().items()):
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            yield f"{name} {whole.dtype} {tuple(whole.shape)}\n".encode()
            yield raw(whole.cpu())

    return sha256_of(pieces())


def hash_images(part: MapPart, data_dir: str | None) -> str:
    """SHA-256 of the names within ``data_dir`` and the sizes of a split's images, in order; opens none."""
    given = Path(expand_path(data_dir)) if data_dir else None
    # The paths in a list are relative to its folder.
    root = "" if given is None else str(given.parent if given.is_file() else given)

    def lines() -> Iterator[bytes]:
        for index in range(len(part)):
            name = part.where(index)
            # Images inside larger files have no size of their own.
            size = os.path.getsize(name) if os.path.isfile(name) else None
            yield f"{name.removeprefix(root)} {size}\n".encode("utf-8", "surrogateescape")

    return sha256_of(lines())


def _options(config: RunConfig) -> dict[str, Any]:
    """The options that matter, without those added since the first caches where they do what was done before."""
    ours = [field.name for part in (DataConfig, TeacherConfig) for field in fields(part)]
    assert set(RELEVANT) <= {field.name for field in fields(RunConfig)}
    names = [*(name for name in ours if name not in IRRELEVANT), *RELEVANT]
    values = {f"--{name.replace('_', '-')}": getattr(config, name) for name in names}
    return {flag: value for flag, value in values.items() if flag not in ABSENT or value != ABSENT[flag]}


def _expected(spec: ImageSpec) -> dict[str, Any]:
    # The crop of validation images does not matter here.
    return {name: value for name, value in asdict(spec).items() if not name.startswith("crop_")}
