"""The forms of a pruned network side by side: what each gets right, computes and takes on the clock."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isometry.data import Batch, ImageSpec, Preprocess
from isometry.distributed import World
from isometry.evaluation.accuracy import accuracy
from isometry.evaluation.sampling import SmallestK
from isometry.evaluation.timing import Row, speeds_in_turns, with_ratios
from isometry.models.cost import macs, parameter_count
from isometry.prune.cost import channel_use
from isometry.prune.gates import gated_convs
from isometry.prune.skipping import skipping

DENSE, MASKED, SKIPPING, CUT = "dense", "masked", "skipping", "cut"
"""Before pruning; with gates that multiply; with gates that skip; with channels cut for good."""

IMAGES_TIMED = 256
"""Distinct images that single ones are timed on: what an image needs depends on the image."""


@dataclass(frozen=True)
class EvaluationImages:
    """The images that forms are measured on.

    Attributes:
        batches: goes through them anew at every call.
        preprocess: normalises them, on the device of the forms.
        spec: the images that the network takes.
        part: "test" or "val".
        labelled: whether they have labels.
    """

    batches: Callable[[], Iterable[Batch]]
    preprocess: Preprocess
    spec: ImageSpec
    part: str
    labelled: bool

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised batches (B, C, H, W) and their classes (B,)."""
        return (self.preprocess.normalise(batch) for batch in self.batches())

    def images(self) -> Iterator[Tensor]:
        """Normalised batches (B, C, H, W)."""
        return (images_BCHW for images_BCHW, _ in self.pairs())

    def sample(self, count: int) -> Tensor:
        """Up to ``count`` images (N, C, H, W) drawn from all, in an order that is drawn too."""
        generator = torch.Generator().manual_seed(0)
        chosen = SmallestK(count)
        for images in self.images():
            chosen.add(torch.rand(len(images), generator=generator), images)
        return chosen.tensors[0]


def variants_of(network: nn.Module, dense: nn.Module | None) -> dict[str, nn.Module]:
    """The forms that a network has, by name, dense first; all in eval mode.

    Args:
        network: with gates, or with channels cut, or neither; then it is what is dense itself.
        dense: it before pruning; None where it was not pruned.
    """
    if dense is None:
        return {DENSE: network.eval()}
    if not gated_convs(network):
        return {DENSE: dense.eval(), CUT: network.eval()}
    return {DENSE: dense.eval(), MASKED: network.eval(), SKIPPING: skipping(network)}


def measure_variants(
    forms: Mapping[str, nn.Module],
    material: EvaluationImages,
    batch_sizes: Sequence[int],
    seconds: float,
    untrained: Sequence[str] = (),
) -> list[Row]:
    """The rows of :func:`describe_variants`, each with the times of its form on a sample of the images.

    That is ``speeds``, the rows of :func:`time_variants`.
    """
    sample = material.sample(max(IMAGES_TIMED, *batch_sizes))
    speeds = time_variants(forms, sample, batch_sizes, seconds)
    return [row | {"speeds": speeds[row["form"]]} for row in describe_variants(forms, material, untrained)]


def describe_variants(
    forms: Mapping[str, nn.Module], material: EvaluationImages, untrained: Sequence[str] = ()
) -> list[Row]:
    """A row a form: accuracy and cost over all images.

    Keys: ``form``; ``params``; ``top1`` (percent) and ``top1_part``, but not without labels, nor for a form that is
    ``untrained``; ``macs`` (mean over images), and for the skipping form ``macs_std``, ``macs_low`` and ``macs_high``
    (standard deviation, 5th and 95th percentile over images).
    """
    return [
        {
            "form": name,
            "params": parameter_count(forms[MASKED] if name == SKIPPING else form),
            **(_top1(form, material) if name not in untrained else {}),
            **(_spent(forms[MASKED], material) if name == SKIPPING else _counted(form, material)),
        }
        for name, form in forms.items()
    ]


def time_variants(
    forms: Mapping[str, nn.Module], images: Tensor, batch_sizes: Sequence[int], seconds: float
) -> dict[str, list[Row]]:
    """How fast each form is at each batch size, all forms measured in turns on the same images.

    Args:
        forms: by name; in eval mode, on the images' device.
        images: (N, C, H, W), real ones; they are repeated where a batch is larger.
        batch_sizes: of each, as many different batches as the images make.
        seconds: about so long for each form and batch size.

    Returns:
        By form the rows of :func:`speeds_in_turns`, and in each ``ratio``, how many times as fast as dense, where
        there is a form of that name.
    """
    speeds = speeds_in_turns({name: (form, images) for name, form in forms.items()}, batch_sizes, seconds)
    if DENSE not in forms:
        return speeds
    return {name: with_ratios(rows, speeds[DENSE]) for name, rows in speeds.items()}


def _top1(form: nn.Module, material: EvaluationImages) -> Row:
    if not material.labelled:
        return {}
    alone = World(0, 1, material.preprocess.device)
    found = accuracy(form, material.batches(), material.preprocess, alone, nullcontext)
    return {"top1": found["top1"], "top1_part": material.part}


def _counted(form: nn.Module, material: EvaluationImages) -> Row:
    return {"macs": macs(form, material.spec.input_size)}


def _spent(masked: nn.Module, material: EvaluationImages) -> Row:
    spent_N = channel_use(masked, material.images(), material.spec.input_size).macs.double()
    low, high = spent_N.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    return {
        "macs": float(spent_N.mean()),
        "macs_std": float(spent_N.std(correction=0)),
        "macs_low": low,
        "macs_high": high,
    }
