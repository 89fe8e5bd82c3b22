"""All that determines what a teacher sees and says in a run: what a cache of its answers is good for."""

import hashlib
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor

from isometry.config import DataConfig, RunConfig, TeacherConfig
from isometry.data.image_spec import ImageSpec
from isometry.data.splits import MapPart, StreamPart
from isometry.distributed import World
from isometry.errors import UserError
from isometry.models.spec import image_spec, pretrained_cfg
from isometry.training.assemble import Run
from isometry.training.teacher_cache.entry import raw

INDIFFERENT = frozenset(
    {
        # Where the images are, and how they are read: their names, sizes and order count.
        "data_dir",
        "train_split",
        "val_split",
        "val_fraction",
        "class_map",
        "dataset_download",
        "skip_bad_images",
        "workers",
        "pin_mem",
        # Follows from each process's batch and their number.
        "global_batch_size",
        # Validation and labels, of which the teacher sees nothing.
        "validation_batch_size",
        "crop_pct",
        "smoothing",
        # Where the teacher is and what is learned from it: its weights count.
        "teacher",
        "teacher_weights",
        "teacher_shard",
        "teacher_cache",
        "teacher_cache_size",
        "losses",
        "reduction",
        "relations",
        "taps",
    }
)
"""Options of the data and of the teacher that change nothing in what it sees or says; any new one does."""

OTHERS = ("seed", "img_size", "in_chans", "grad_accum_steps", "amp", "compile")
"""Other options that do."""


def identity_of(run: Run, world: World) -> dict[str, Any]:
    """What a cache of a run's teacher depends on, by name in words, for ``TeacherCache.open``.

    The student counts by the images that it wants only; epochs, losses and the learning rate not at all. Reads all
    weights and the sizes of all image files. All processes must call it, since a sharded teacher is in all of them.

    Raises:
        UserError: there is no teacher to ask, or the data is a stream.
    """
    config, part = run.config, run.sources.train
    if run.teacher is None or not run.objective.needs_teacher:
        raise UserError("--teacher-cache: no term of this run asks a teacher; leave it out")
    if isinstance(part, StreamPart):
        raise UserError(
            f"--teacher-cache: --dataset {config.dataset} is a stream, whose images come in no order that could be "
            "told again; leave it out"
        )
    teacher = run.teacher
    return {
        "the teacher": pretrained_cfg(teacher).get("architecture") or type(teacher).__name__,
        "the SHA-256 of its weights": hash_weights(teacher),
        "its images": _wanted(image_spec(teacher)),
        "the student's images": _wanted(run.spec),
        "the number of training images": len(part),
        "the SHA-256 of their names and sizes": hash_images(part, config.data_dir),
        **{_option(name): getattr(config, name) for name in _deciding()},
        "--amp-dtype": config.amp_dtype if config.amp else None,
        "--compile-backend": config.compile_backend if config.compile else None,
        "the number of processes": world.size,
        "the kind of device": world.device.type,
    }


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of all weights and buffers, in hexadecimal; sharded or not."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        digest.update(f"{name} {whole.dtype} {tuple(whole.shape)}\n".encode())
        digest.update(raw(whole.cpu()))
    return digest.hexdigest()


def hash_images(part: MapPart, data_dir: str | None) -> str:
    """SHA-256 over the names within ``data_dir`` and the sizes of a part's images, in their order; opens none."""
    root = str(Path(data_dir).expanduser()) if data_dir else ""
    digest = hashlib.sha256()
    for index in range(len(part)):
        name = part.where(index)
        # Images inside larger files have a name in words and no size.
        size = os.path.getsize(name) if os.path.isfile(name) else None
        digest.update(f"{name.removeprefix(root)} {size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _deciding() -> list[str]:
    ours = [field.name for part in (DataConfig, TeacherConfig) for field in fields(part)]
    assert set(OTHERS) <= {field.name for field in fields(RunConfig)}
    return [*(name for name in ours if name not in INDIFFERENT), *OTHERS]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _wanted(spec: ImageSpec) -> dict[str, Any]:
    # How validation images are cropped is no matter here.
    return {name: value for name, value in asdict(spec).items() if not name.startswith("crop_")}
