"""Teachers from outside timm, by names such as ``transformers:NAME``: found by the file of their library."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from torch import nn

from isometry.discovery import choose, discover
from isometry.errors import UserError, first_line, reason
from isometry.models.external_teacher import ExternalTeacher
from isometry.models.weights import WeightSource

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation that most networks expect where nothing else is said."""


class Built(NamedTuple):
    """A teacher, where its weights came from, and what the user should know."""

    model: nn.Module
    weights: WeightSource
    notes: list[str]


@dataclass(frozen=True)
class Request:
    """What is asked of a library.

    Attributes:
        name: what follows the library's name and a colon.
        arguments: of ``--teacher-kwargs``.
        weights: ``"pretrained"``, ``"none"``, or a file.
        trusted: whether the user allows code that comes with the network.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: str = "pretrained"
    trusted: bool = False


class Library(ABC):
    """A library of networks, or a way to name them. A subclass sits alone in its file."""

    package: ClassVar[str] = ""
    """The extra of this package that installs what the library needs, if it needs any."""
    runs_code: ClassVar[bool] = False
    """Whether its networks are code that does not come with a library, and so need ``--trust-remote-code``."""

    @abstractmethod
    def build(self, request: Request) -> Built:
        """The teacher; errors of the library may be raised as they are."""


def library_of(name: str) -> str:
    """``transformers`` of ``transformers:NAME``; an empty string for a name of timm, a folder, or the hub's."""
    prefix, colon, _ = name.partition(":")
    return prefix if colon and prefix not in ("local-dir", "hf-hub") else ""


def build_external(teacher: str, arguments: dict[str, Any], weights: str, *, trusted: bool) -> Built:
    """The teacher that a name with a library's name before it stands for.

    Raises:
        UserError: no such library, or not installed, code that is not allowed, or anything that the library refuses.
    """
    prefix, _, name = teacher.partition(":")
    library = choose(discover(Library), prefix, f"--teacher {teacher}", "library")()
    if not name:
        raise UserError(f"--teacher {teacher}: give a name after the colon")
    if library.runs_code and not trusted:
        raise UserError(
            f"--teacher {teacher}: runs code that it names, which no recipe and no saved run may; if you trust it, "
            "give --trust-remote-code with --teacher on the command line"
        )
    try:
        return library.build(Request(name, arguments, weights, trusted))
    except UserError as error:
        raise UserError(f"--teacher {teacher}: {error}") from error
    except Exception as error:
        # Libraries, and code that was named, raise anything.
        why = f"can't be built ({first_line(error) or reason(error)})"
        if library.package and isinstance(error, ModuleNotFoundError):
            why = f"needs {error.name}, which is not installed; pip install 'isometry[{library.package}]'"
        raise UserError(f"--teacher {teacher}: {why}") from error


def as_teacher(network: Any, name: str) -> tuple[nn.Module, list[str]]:
    """What a function of somebody's returned, as a teacher: as it is if it has timm's interface, else adapted to it.

    Raises:
        UserError: it is no module.
    """
    if isinstance(network, ExternalTeacher) or (
        hasattr(network, "forward_intermediates") and hasattr(network, "pretrained_cfg")
    ):
        return network, []
    if not isinstance(network, nn.Module):
        raise UserError(f"gives a {type(network).__name__} and no torch.nn.Module")
    teacher = ExternalTeacher(network, (3, 224, 224), *IMAGENET, name=name)
    kind = f"{teacher.num_classes} numbers an image, taken as logits" if teacher.num_classes else "no logits"
    return teacher, [
        f"--teacher {name}: images are taken to be of 3×224×224, normalised as for ImageNet, its answer is {kind}; a "
        "function that returns an ExternalTeacher can say otherwise (python:)"
    ]
