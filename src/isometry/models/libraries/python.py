"""``python:package.module.function``: a function of the user's own that returns a teacher."""

import importlib
import sys

from isometry.errors import UserError
from isometry.models.libraries.base import Built, Library, Request, as_teacher
from isometry.models.weights import WeightSource, read_weights


class PythonFunction(Library):
    """A function, called with ``--teacher-kwargs``, that returns a module of any kind.

    Best an :class:`~isometry.models.external_teacher.ExternalTeacher`, which says what images it expects, or a timm
    model. Its module is looked for in the present folder, too. The weights are those that the function gave it, or
    those of a ``--teacher-weights`` file.
    """

    runs_code = True

    def build(self, request: Request) -> Built:
        place, _, function = request.name.replace(":", ".").rpartition(".")
        if not place:
            raise UserError("give MODULE.FUNCTION")
        sys.path.insert(0, "")
        try:
            made = getattr(importlib.import_module(place), function)(**request.arguments)
        finally:
            sys.path.remove("")
        teacher, notes = as_teacher(made, f"python:{request.name}")
        if request.weights in ("pretrained", "none"):
            return Built(teacher, WeightSource(f"those that {request.name} gives it"), notes)
        network = getattr(teacher, "network", teacher)
        network.load_state_dict(read_weights(request.weights, flag="--teacher-weights"))
        return Built(teacher, WeightSource(f"file {request.weights}"), notes)
