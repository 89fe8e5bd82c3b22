"""``open_clip:MODEL`` or ``open_clip:MODEL/TAG``: the image tower of a network of open_clip."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from isometry.errors import UserError, did_you_mean
from isometry.models.external_teacher import ExternalTeacher
from isometry.models.libraries.base import Built, Library, Request
from isometry.models.weights import WeightSource


class OpenClip(Library):
    """The image tower alone. TAG names weights, by default the first that open_clip lists; there are no logits."""

    package = "open-clip"

    def build(self, request: Request) -> Built:
        import open_clip

        name, _, tag = request.name.partition("/")
        if name not in open_clip.list_models():
            hint = did_you_mean(name, open_clip.list_models(), "open_clip.list_models() lists them")
            raise UserError(f"open_clip has no model {name}; {hint}")
        notes: list[str] = []
        tags = open_clip.list_pretrained_tags_by_model(name)
        if request.weights == "pretrained" and not tag:
            if not tags:
                raise UserError("open_clip has no weights for it; give a file with --teacher-weights")
            tag = tags[0]
            notes.append(
                f"--teacher {name}: open_clip's weights {tag} are used, of {', '.join(tags)}; add /TAG to choose"
            )
        if request.weights == "pretrained" and tag not in tags:
            raise UserError(f"open_clip has no weights {tag} for {name}; there are {', '.join(tags)}")
        chosen = {"pretrained": tag, "none": None}.get(request.weights, request.weights)
        with _quiet():
            visual = open_clip.create_model(name, pretrained=chosen, **request.arguments).visual
        height, width = (
            visual.image_size if isinstance(visual.image_size, tuple) else (visual.image_size,) * 2
        )
        expected = visual.preprocess_cfg
        teacher = ExternalTeacher(
            visual,
            (3, height, width),
            expected["mean"],
            expected["std"],
            has_classes=False,
            name=f"open_clip:{name}",
        )
        where = {"pretrained": f"open_clip {name}, {tag}", "none": "random, from the seed"}
        return Built(teacher, WeightSource(where.get(request.weights, f"file {request.weights}")), notes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what open_clip tells the root logger: errors, which it raises too, and random weights, asked for."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(level)
