"""What growth needs to know of an architecture, and how it is found by the name of timm's module."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from isometry.discovery import discover
from isometry.errors import UserError

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Size:
    """``depth``: blocks of each stage; ``width``: channels, of each stage where the architecture has stages."""

    depth: Numbers
    width: Numbers

    def __str__(self) -> str:
        return f"depth {format_size(self.depth)}, width {format_size(self.width)}"


def format_size(numbers: Numbers) -> str:
    """``2-2-6-2``, as in options."""
    return "-".join(map(str, numbers))


class Architecture(ABC):
    """How to build networks of one module of timm at other sizes. A subclass sits alone in a file of the module's name.

    Attributes:
        branch_ends: by class of residual block, the last layer of each of its branches, whose parameters make the
            block the identity when they are 0. Of several names for one branch, the first that has parameters counts.
    """

    branch_ends: ClassVar[Mapping[type[nn.Module], tuple[tuple[str, ...], ...]]] = {}

    @abstractmethod
    def blocks(self, model: Any) -> list[str]:
        """Names of the modules that hold the blocks, one for each stage."""

    @abstractmethod
    def width(self, model: Any) -> Numbers:
        """Channels of the model."""

    def depth_arguments(self, model: Any, depth: Numbers) -> dict[str, Any]:
        """Arguments of timm's constructor for another depth than the model's."""
        return {"depths": depth}

    def width_arguments(self, model: Any, width: Numbers) -> dict[str, Any]:
        """Arguments of timm's constructor for another width than the model's.

        Raises:
            UserError: the architecture has no such width; by default, it grows in depth only.
        """
        raise UserError(f"--grow.width: {type(model).__name__} grows in depth only; leave the width out")

    def widths(self, model: Any) -> list[Numbers]:
        """Smaller widths that can grow to the model's, for messages."""
        return []

    def size(self, model: nn.Module) -> Size:
        """The size of a model."""
        return Size(tuple(len(model.get_submodule(name)) for name in self.blocks(model)), self.width(model))  # type: ignore[arg-type]

    def arguments(self, model: nn.Module, size: Size) -> dict[str, Any]:
        """Arguments of timm's constructor that build ``size``, added to those of the full-size ``model``.

        Raises:
            UserError: the architecture has no such size.
        """
        own = self.size(model)
        depth = self.depth_arguments(model, size.depth) if size.depth != own.depth else {}
        return depth | (self.width_arguments(model, size.width) if size.width != own.width else {})

    def identity_parameters(self, block: nn.Module) -> list[str]:
        """Names of the parameters that make a residual block the identity when they are 0.

        Raises:
            UserError: they are not known for such a block.
        """
        if type(block) not in self.branch_ends:
            raise UserError(
                f"--grow.depth-operator: no parameters of {type(block).__name__} are known that make it the identity "
                "at 0, so no new ones can be added; use insert or stack"
            )
        names: list[str] = []
        for layers in self.branch_ends[type(block)]:
            names += next(filter(None, (_parameters_of(block, layer) for layer in layers)), [])
        return names


def available() -> dict[str, type[Architecture]]:
    """Every architecture by its file's name."""
    return discover(Architecture)


def find_architecture(model: nn.Module, name: str) -> Architecture:
    """The architecture of a model, in the file that has the name of its class's module.

    The class may derive from one of timm's. ``name`` is from the user.

    Raises:
        UserError: there is no such file.
    """
    found = available()
    for kind in type(model).__mro__:
        module = kind.__module__.rpartition(".")[2]
        if module in found:
            return found[module]()
    raise UserError(
        f"--model {name}: growing {type(model).__name__} is not known; these grow: {', '.join(found)}"
    )


def _parameters_of(block: nn.Module, path: str) -> list[str]:
    """Names of the parameters at a path, which is a module's or a parameter's."""
    return [name for name, _ in block.named_parameters() if f"{name}.".startswith(f"{path}.")]
