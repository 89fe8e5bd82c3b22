"""Base class of losses, the inputs they may name, and how a loss is found by the name of its file."""

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, islice
from types import UnionType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from isometry.discovery import choose, discover
from isometry.errors import UserError
from isometry.functional.relations import launches_dominate

Reduction = Literal["mean", "paper"]
Relations = Literal["global", "local"]

Scope = Literal["batch", "block", "layer"]
"""How often an input comes in a step: once, once for each pair of tapped blocks, or once for each gated layer."""


@dataclass(frozen=True)
class Input:
    """How often an argument of losses comes in a step, and what it needs."""

    scope: Scope = "batch"
    needs_teacher: bool = False
    needs_labels: bool = False


INPUTS = {
    "student_logits": Input(),
    "student_distilled_logits": Input(),
    "teacher_logits": Input(needs_teacher=True),
    "labels": Input(needs_labels=True),
    "cross_entropy": Input(needs_labels=True),
    # Tapped on the common grid of both networks.
    "student_tokens": Input("block", needs_teacher=True),
    "teacher_tokens": Input("block", needs_teacher=True),
    "saliencies": Input("layer"),
    "pooled_features": Input("layer"),
}
"""All inputs by name; :class:`Loss` describes them, and ``Objective._loss_inputs`` computes their values."""


class Loss(nn.Module):
    """One term of the objective. A subclass sits alone in its file, whose name is the term's in a recipe.

    ``inputs`` names the arguments of ``forward``, in order; inputs that no term names are not computed:

    =============================  =================================================================================
    ``student_tokens``             patch tokens (B, N, Cs) of one tapped block of the student
    ``teacher_tokens``             patch tokens (B, N, Ct) of its partner in the teacher, on the same grid
    ``student_logits``             (B, K), those of the class token if the student has a distillation head
    ``student_distilled_logits``   (B, K), those of the distillation head, or ``student_logits`` without one
    ``teacher_logits``             (B, K)
    ``labels``                     (B,) class indices or (B, K) probabilities
    ``cross_entropy``              (B,) of the student's logits to the labels, nats, without gradient
    ``saliencies``                 (B, G) of one gated layer of the student
    ``pooled_features``            (B, C), the input of the same layer, averaged over pixels
    =============================  =================================================================================

    A loss on tokens is built and called once for each pair of blocks; the objective averages (``reduction="mean"``)
    or sums (``"paper"``) over blocks. A loss on gates is built once, called for each gated layer, and summed.
    ``forward`` returns a finite float32 scalar, at least 0, and refuses shapes that do not match. The constructor gets
    the recipe's options for the term and, if it names them, ``reduction``, ``relations``, ``generator``,
    ``student_width`` and ``teacher_width``.
    """

    inputs: ClassVar[tuple[str, ...]] = ()
    relates_images: ClassVar[bool] = False
    """Whether the value of a batch is more than the mean over its images."""
    batched: ClassVar[bool] = False
    """Whether ``forward`` also takes several blocks or layers at once, (K, ...) of each input, and returns (K,).

    The objective then calls the loss once for all blocks of equal shapes on a GPU, where each launch costs time.
    """
    citation: ClassVar[str] = ""
    """BibTeX of a paper that model cards of students are to cite."""
    scale_invariant: ClassVar[bool] = False
    """Whether tokens are compared up to scale: scaling those of either side changes nothing, and equal ones cost 0."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(cls.inputs, str):
            raise UserError(f"{cls.__name__}.inputs must be a tuple of names, not a string")
        for name in cls.inputs:
            choose(INPUTS, name, f"{cls.__name__}.inputs: {name}", "input")
        _, *arguments = inspect.signature(cls.forward).parameters.values()
        if cls.inputs and (cls.forward is nn.Module.forward or len(arguments) != len(cls.inputs)):
            raise UserError(
                f"{cls.__name__}.forward must take one argument for each of inputs: {', '.join(cls.inputs)}"
            )

    @classmethod
    def scope(cls) -> Scope:
        """How often the loss is called in a step: as often as its inputs come, other than those of the batch."""
        scopes = {INPUTS[name].scope for name in cls.inputs}
        return next((scope for scope in ("block", "layer") if scope in scopes), "batch")


class BatchLoss(Loss):
    """A loss that relates images to each other: under torch.distributed those of all processes, exactly.

    The value is then that of the joined batch, in every process, and each gets its gradient times the number of
    processes, so that the mean that DistributedDataParallel takes is the joined batch's. All processes must call, with
    equally many images.

    Args:
        relations: ``"global"``, or ``"local"``: each process relates its own images to each other alone.
    """

    relates_images = True

    def __init__(self, relations: Relations = "global") -> None:
        super().__init__()
        if relations not in ("global", "local"):
            raise ValueError(f"relations must be global or local, not {relations}")
        self.relations = relations

    @property
    def group(self) -> ProcessGroup | None:
        """The processes that the batch is spread over; None in a process alone.

        None too in evaluation, where processes have different numbers of images.
        """
        wanted = self.training and self.relations == "global"
        spread = wanted and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        return dist.group.WORLD if spread else None

    def sent_bytes(self, images: int, tokens: int, student_width: int, teacher_width: int) -> int:
        """Bytes that a process hands to the others in a step, a block: 0 for a loss that does not say.

        Args:
            images: of this process.
            tokens: of each image.
            student_width, teacher_width: numbers in a token.
        """
        return 0


def values_of_calls(losses: Iterable[Loss], calls: list[tuple[Tensor, ...]]) -> Tensor:
    """Values (K,) of K calls, each of its own loss; a batched loss takes neighbours of equal shapes at once on a GPU.

    Args:
        losses: one for each call, at least; equal but for parameters, which a batched loss has none of.
        calls: the arguments of each.
    """
    losses = list(islice(losses, len(calls)))
    if not (losses[0].batched and launches_dominate(calls[0][0].device)):
        return torch.stack([loss(*given) for loss, given in zip(losses, calls, strict=True)])
    # Neighbours only, so that losses that draw at random draw in the order of the blocks.
    groups = groupby(calls, key=lambda given: [(each.shape, each.dtype) for each in given])
    return torch.cat([losses[0](*map(torch.stack, zip(*group, strict=True))) for _, group in groups])


def check_range(name: str, value: float, least: float, most: float = 1000) -> None:
    """Raises ValueError unless an option's value is in its range."""
    if not least <= value <= most:
        raise ValueError(f"{name} must be at least {least:g} and at most {most:g}, not {value}")


def check_same_tokens(student_BNC: Tensor, teacher_BNC: Tensor) -> None:
    """Raises ValueError unless both sides have the same images and the same grid of tokens, in (..., B, N, C)."""
    if student_BNC.ndim < 3 or student_BNC.shape[:-1] != teacher_BNC.shape[:-1]:
        raise ValueError(
            f"student tokens {tuple(student_BNC.shape)} and teacher tokens {tuple(teacher_BNC.shape)} "
            "must be (images, tokens, channels) of the same images and the same grid"
        )


def available() -> dict[str, type[Loss]]:
    """Every loss by its file's name."""
    return discover(Loss)


def find_loss(name: str) -> type[Loss]:
    """The loss in ``losses/<name>.py``.

    Raises:
        UserError: there is no such file; near names are given.
    """
    return choose(available(), name, f"losses.{name}", "loss")


def build_loss(name: str, options: dict[str, Any], **context: Any) -> Loss:
    """The loss ``name`` with the recipe's ``options`` and what it names of ``context``.

    Raises:
        UserError: an option that the loss does not have, or a value that it refuses.
    """
    check_options(name, options)
    loss = find_loss(name)
    accepted = inspect.signature(loss).parameters
    given = {key: value for key, value in context.items() if key in accepted}
    try:
        return loss(**{**given, **options})
    except (TypeError, ValueError) as error:
        raise UserError(f"losses.{name}: {error}") from error


CONTEXT = ("generator", "student_width", "teacher_width")
"""Arguments of constructors that are no options."""
NOUNS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}


def check_options(name: str, options: dict[str, Any]) -> None:
    """Checks a recipe's options of the loss ``name`` by the types of its constructor; values are the constructor's own.

    Raises:
        UserError: no such loss or option, or a value of another type or none of the choices.
    """
    loss = find_loss(name)
    own = [option for option in inspect.signature(loss).parameters if option not in CONTEXT]
    hints = get_type_hints(loss.__init__)
    for option, value in options.items():
        if option not in own:
            raise UserError(
                f"losses.{name}.{option}: no such option; {name} has {', '.join(['weight', *own])}"
            )
        hint = hints.get(option, Any)
        if not _fits(value, hint):
            choices = ", ".join(map(str, get_args(hint)))
            wanted = NOUNS.get(hint, f"one of {choices}" if get_origin(hint) is Literal else str(hint))
            raise UserError(f"losses.{name}.{option} {value!r}: must be {wanted}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; true and false are no numbers, and types of parts are not looked at."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(hint, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if hint in (int, float):
        kinds = int if hint is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < math.inf
    kind = get_origin(hint) or hint
    return hint is Any or not isinstance(kind, type) or isinstance(value, kind)


RESERVED = ("loss", "output", "saliencies", "cross_entropy")


@dataclass(frozen=True)
class Term:
    """A loss's name, weight and options, as a recipe gives them."""

    name: str
    weight: float
    options: dict[str, Any]

    @property
    def loss(self) -> type[Loss]:
        """The class of that name."""
        return find_loss(self.name)


def inputs_of(terms: Iterable[Term]) -> set[str]:
    """Names of all inputs that the terms need."""
    return {name for term in terms for name in term.loss.inputs}


def _try(name: str, options: dict[str, Any]) -> None:
    """Builds a loss for its constructor's checks, before networks are built; draws no random number."""
    context = {"reduction": "mean", "relations": "global", "student_width": 1, "teacher_width": 1}
    with torch.random.fork_rng(devices=[]):
        build_loss(name, options, **context, generator=torch.Generator())


def parse_terms(losses: dict[str, float | dict[str, Any]]) -> list[Term]:
    """``{"whole": 4, "soft": {"weight": 1, "temperature": 2}}`` -> terms in order, those of weight 0 left out.

    Raises:
        UserError: an unknown loss, a weight that is no finite number of at least 0, or as :func:`build_loss`.
    """
    terms = []
    for name, given in losses.items():
        options = dict(given) if isinstance(given, dict) else {"weight": given}
        weight = options.pop("weight", 1.0)
        if (
            isinstance(weight, bool)
            or not isinstance(weight, int | float)
            or not math.isfinite(weight)
            or weight < 0
        ):
            raise UserError(f"losses.{name}: the weight must be a number of at least 0, not {weight!r}")
        if name in RESERVED:
            raise UserError(f"losses.{name}: this name is taken by the result's own keys; rename the file")
        _try(name, options)
        if weight > 0:
            terms.append(Term(name, float(weight), options))
    return terms
