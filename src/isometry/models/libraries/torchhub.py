"""``torchhub:owner/repo:name``: a network of torch.hub, whose code is fetched from GitHub; or of a folder."""

from pathlib import Path
from typing import Any, cast

import torch

from isometry.errors import UserError
from isometry.models.libraries.base import Built, Library, Request, as_teacher
from isometry.models.weights import WeightSource


class TorchHub(Library):
    """A function in the ``hubconf.py`` of a repository on GitHub, or of a folder, called with ``--teacher-kwargs``."""

    runs_code = True

    def build(self, request: Request) -> Built:
        repository, _, name = request.name.rpartition(":")
        if not repository or not name:
            raise UserError("give torchhub:OWNER/REPOSITORY:NAME")
        if request.weights not in ("pretrained", "none"):
            raise UserError("--teacher-weights: networks of torch.hub come with their own; leave it out")
        arguments: dict[str, Any] = dict(request.arguments)
        if request.weights == "none":
            arguments["pretrained"] = False
        source = "local" if Path(repository).is_dir() else "github"
        loaded = torch.hub.load(repository, name, source=source, trust_repo=True, verbose=False, **arguments)
        teacher, notes = as_teacher(cast(Any, loaded), f"torchhub:{request.name}")
        where = "random" if request.weights == "none" else f"torch.hub {request.name}"
        return Built(teacher, WeightSource(where), notes)
