"""One image through a network before anything is trained: whether it takes it, and answers with a number a class."""

import math
from contextlib import suppress
from dataclasses import replace

from torch import nn

from isometry.data import ImageSpec
from isometry.errors import UserError, counted, first_line
from isometry.models.build import build_model
from isometry.models.cost import macs_and_answer
from isometry.models.spec import ModelSpec, image_spec

ROLES = {
    "--model": ("the student", "--img-size "),
    "--teacher": ("the teacher", "--teacher-kwargs img_size="),
}
"""What a network is called, and the option that gives the size of its images, by the option that names it."""


def try_images(model: nn.Module, images: ImageSpec, flag: str, spec: ModelSpec) -> int:
    """MACs of a forward pass on shapes: an image may be too small or of a wrong multiple for an architecture.

    Args:
        model: the network.
        images: that it gets.
        flag: the option that names the network.
        spec: that it was built from; an argument without which it can take the images is named.

    Raises:
        UserError: it can't take them, or answers with other numbers than one a class.
    """
    role, option = ROLES[flag]
    name = f"{role} {spec.name}"
    try:
        found, answer = macs_and_answer(model, images.input_size)
    except Exception as error:
        # What goes wrong inside a network that is given such images is anything.
        size = "×".join(map(str, images.input_size))
        failed = f"{name} can't take images of {size} ({first_line(error)})"
        if (argument := _wrong_argument(spec)) is not None:
            given = f"{flag}-kwargs {argument}={spec.kwargs[argument]}"
            raise UserError(f"{given}: {failed}, and can without it; give another value") from error
        raise UserError(f"{option}{images.input_size[-1]}: {failed}; give another size") from error
    shape, classes = tuple(getattr(answer, "shape", ())), model.num_classes
    if classes and shape != (1, classes):
        raise UserError(
            f"{name}: answers an image with {'×'.join(map(str, shape[1:])) or 'other'} numbers and not with one for "
            f"each of its {classes} classes; leave out arguments such as global_pool"
        )
    return found


def pixels_in_no_patch(model: nn.Module, images: ImageSpec, flag: str) -> list[str]:
    """A note on rows and columns of pixels at the edge of images that a network cuts into patches and that are in none,
    with the nearest sizes that would do; empty where there are none, and for a network of another kind.

    A network cuts images into patches where its first convolution has a stride of its kernel's size and no padding.
    """
    first = next((each for each in model.modules() if isinstance(each, nn.Conv2d)), None)
    padded = any(getattr(each, "dynamic_img_pad", False) for each in model.modules())
    if first is None or padded or first.kernel_size != first.stride or any(map(_pads, first.padding)):
        return []
    (rows, columns), (high, wide) = images.input_size[1:], first.stride
    below, right = rows % high, columns % wide
    if not (below or right):
        return []
    role, option = ROLES[flag]
    edges = [f"{counted(below, 'row')} of pixels at the bottom"] * bool(below)
    edges += [f"{counted(right, 'column')} on the right"] * bool(right)
    side, step = rows, math.lcm(high, wide)
    sizes = [str(size) for size in (side // step * step, -(-side // step) * step) if size]
    return [
        f"{role} cuts images of {rows}×{columns} into patches of {high}×{wide}, and {' and '.join(edges)} are in none, "
        f"so they are not seen; all are seen with {option}{' or '.join(dict.fromkeys(sizes))}"
    ]


def _pads(padding: int | str) -> bool:
    return padding not in (0, "0", "valid")


def _wrong_argument(spec: ModelSpec) -> str | None:
    """The first argument of the network without which it can take its images; None if it can't without any one."""
    for argument in spec.kwargs:
        others = {name: value for name, value in spec.kwargs.items() if name != argument}
        with suppress(Exception):
            model, _ = build_model(replace(spec, kwargs=others, weights="none"), flag="--model")
            macs_and_answer(model, image_spec(model, spec.img_size).input_size)
            return argument
    return None
