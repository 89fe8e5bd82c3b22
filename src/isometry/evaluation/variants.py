"""The variants of a pruned network: accuracy, cost and measured time side by side."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isometry.data import Batch, ImageSpec, Preprocess
from isometry.distributed import World
from isometry.evaluation.accuracy import accuracy
from isometry.evaluation.sampling import SmallestK
from isometry.evaluation.timing import Row, interleaved_speeds, with_ratios
from isometry.models.cost import macs, parameter_count
from isometry.prune.cost import channel_use
from isometry.prune.gates import gated_convs
from isometry.prune.skipping import skipping

DENSE, MASKED, SKIPPING, CUT = "dense", "masked", "skipping", "cut"
"""Before pruning; with gates that multiply; with gates that skip; with channels cut for good."""

IMAGES_TIMED = 256
"""Distinct images for timing, because the cost of a gated network depends on the image."""


@dataclass(frozen=True)
class EvaluationImages:
    """The images that networks are evaluated on.

    Attributes:
        batches: returns an iterator over all batches at each call.
        preprocess: normalises them, on the networks' device.
        spec: the images that the network expects.
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
        """Up to ``count`` images (N, C, H, W) drawn at random, in random order."""
        generator = torch.Generator().manual_seed(0)
        chosen = SmallestK(count)
        for images in self.images():
            chosen.add(torch.rand(len(images), generator=generator), images)
        return chosen.tensors[0]


def variants_of(network: nn.Module, dense: nn.Module | None) -> dict[str, nn.Module]:
    """The variants of a network by name, dense first; all in eval mode.

    Args:
        network: with gates, with channels cut, or dense.
        dense: the network before pruning; None if it was not pruned.
    """
    if dense is None:
        return {DENSE: network.eval()}
    if not gated_convs(network):
        return {DENSE: dense.eval(), CUT: network.eval()}
    return {DENSE: dense.eval(), MASKED: network.eval(), SKIPPING: skipping(network)}


def measure_variants(
    variants: Mapping[str, nn.Module],
    dataset: EvaluationImages,
    batch_sizes: Sequence[int],
    seconds: float,
    untrained: Sequence[str] = (),
) -> list[Row]:
    """The rows of :func:`describe_variants`, each with ``speeds``, the rows of :func:`time_variants` on a sample of the
    images.
    """
    sample = dataset.sample(max(IMAGES_TIMED, *batch_sizes))
    speeds = time_variants(variants, sample, batch_sizes, seconds)
    return [row | {"speeds": speeds[row["form"]]} for row in describe_variants(variants, dataset, untrained)]


def describe_variants(
    variants: Mapping[str, nn.Module], dataset: EvaluationImages, untrained: Sequence[str] = ()
) -> list[Row]:
    """One row per variant: accuracy and cost over all images.

    Keys: ``form``; ``params``; ``top1`` (percent) and ``top1_part``, except without labels or for an
    ``untrained`` variant; ``macs`` (mean over images), and for the skipping variant ``macs_std``, ``macs_low`` and
    ``macs_high`` (standard deviation, 5th and 95th percentile over images).
    """
    return [
        {
            "form": name,
            "params": parameter_count(variants[MASKED] if name == SKIPPING else variant),
            **(_top1(variant, dataset) if name not in untrained else {}),
            **(_gated_macs(variants[MASKED], dataset) if name == SKIPPING else _dense_macs(variant, dataset)),
        }
        for name, variant in variants.items()
    ]


def time_variants(
    variants: Mapping[str, nn.Module], images: Tensor, batch_sizes: Sequence[int], seconds: float
) -> dict[str, list[Row]]:
    """Times of each variant at each batch size, interleaved, on the same images.

    Args:
        variants: by name; in eval mode, on the images' device.
        images: (N, C, H, W), repeated if a batch is larger.
        batch_sizes: batches of each size are made of the images.
        seconds: about how long each variant is timed at each batch size.

    Returns:
        By variant the rows of :func:`interleaved_speeds`, each with ``ratio``, the speed relative to dense, if there
        is a dense variant.
    """
    speeds = interleaved_speeds(
        {name: (variant, images) for name, variant in variants.items()}, batch_sizes, seconds
    )
    if DENSE not in variants:
        return speeds
    return {name: with_ratios(rows, speeds[DENSE]) for name, rows in speeds.items()}


def _top1(variant: nn.Module, dataset: EvaluationImages) -> Row:
    if not dataset.labelled:
        return {}
    alone = World(0, 1, dataset.preprocess.device)
    found = accuracy(variant, dataset.batches(), dataset.preprocess, alone, nullcontext)
    return {"top1": found["top1"], "top1_part": dataset.part}


def _dense_macs(variant: nn.Module, dataset: EvaluationImages) -> Row:
    return {"macs": macs(variant, dataset.spec.input_size)}


def _gated_macs(masked: nn.Module, dataset: EvaluationImages) -> Row:
    macs_N = channel_use(masked, dataset.images(), dataset.spec.input_size).macs.double()
    low, high = macs_N.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    return {
        "macs": float(macs_N.mean()),
        "macs_std": float(macs_N.std(correction=0)),
        "macs_low": low,
        "macs_high": high,
    }
