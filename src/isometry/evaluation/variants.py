"""The variants of a pruned network: accuracy, cost and measured time side by side."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from isometry.config import RunConfig
from isometry.data import Batch, ImageSpec, Preprocess
from isometry.distributed import World
from isometry.errors import UserError
from isometry.evaluation.accuracy import accuracy, tabled
from isometry.evaluation.sampling import SmallestK
from isometry.evaluation.timing import Row, interleaved_speeds, with_ratios
from isometry.models.build import build_model, check_on_disk
from isometry.models.cost import macs, parameter_count
from isometry.models.spec import ModelSpec, student_spec
from isometry.prune.cost import channel_use
from isometry.prune.cutting import widths
from isometry.prune.gates import gated_convs
from isometry.prune.skipping import skipping

DENSE, MASKED, SKIPPING, CUT = "dense", "masked", "skipping", "cut"
"""Before pruning; with gates that multiply; with gates that skip; with channels cut for good."""

IMAGES_TIMED = 256
"""Distinct images for timing, because the cost of a gated network depends on the image."""


@dataclass(frozen=True)
class EvaluationImages:
    """The images that networks are evaluated on: ``batches`` returns all of them at each call."""

    batches: Callable[[], Iterable[Batch]]
    preprocess: Preprocess
    spec: ImageSpec
    part: str
    """One of "test", "val" and "random"."""
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
    """The variants of a network by name, dense first; all in eval mode. ``dense`` is the network before pruning; None
    for a network that was not pruned.
    """
    network.eval()
    if dense is None:
        return {DENSE: network}
    pruned = {MASKED: network, SKIPPING: skipping(network)} if gated_convs(network) else {CUT: network}
    return {DENSE: dense.eval(), **pruned}


def before_pruning(
    network: nn.Module, student: Path, config: RunConfig | None
) -> tuple[nn.Module | None, str]:
    """The dense network from which a network was pruned, and a note if its weights are random because its former ones
    are not available; ``(None, "")`` for a network that was not pruned.

    ``student`` is the folder that it is saved in, ``config`` that of the run that pruned it, if known.
    """
    plain, _ = build_model(ModelSpec(f"local-dir:{student}"), flag="bench")
    if not gated_convs(network) and widths(network) == widths(plain):
        return None, ""
    if config is None:
        why = "there is no config.yaml of the run that pruned it"
    elif config.prune.from_scratch:
        why = "the network was pruned from scratch"
    else:
        try:
            spec = replace(student_spec(config, config.prune), num_classes=None)
            check_on_disk(spec, "--model")
            trained, _ = build_model(spec, flag="--model")
            if trained.num_classes == network.num_classes:
                return trained, ""
            why = f"{config.model} has {trained.num_classes} classes"
        except UserError as error:
            why = str(error)
    return plain, f"dense: random weights, so no top-1 ({why})"


def measure_variants(
    variants: Mapping[str, nn.Module],
    dataset: EvaluationImages,
    batch_sizes: Sequence[int],
    seconds: float,
    untrained: Sequence[str] = (),
) -> list[Row]:
    """The rows of :func:`describe_variants`, each with ``speeds`` on a sample of the images: the rows of
    :func:`isometry.evaluation.timing.interleaved_speeds`, with ``ratio``, the speed relative to dense.
    """
    sample = dataset.sample(max(IMAGES_TIMED, *batch_sizes))
    runs = {name: (variant, sample) for name, variant in variants.items()}
    speeds = interleaved_speeds(runs, batch_sizes, seconds)
    return [
        row | {"speeds": with_ratios(speeds[row["form"]], speeds[DENSE])}
        for row in describe_variants(variants, dataset, untrained)
    ]


def describe_variants(
    variants: Mapping[str, nn.Module], dataset: EvaluationImages, untrained: Sequence[str] = ()
) -> list[Row]:
    """One row per variant: accuracy and cost over all images.

    Keys: ``form``; ``params``; ``top1`` (percent) and ``top1_part``, except without labels or for an
    ``untrained`` variant, with ``top1_by_class`` where classes differ much in number; ``macs`` (mean over images), and
    for the skipping variant ``macs_std``, ``macs_low`` and ``macs_high`` (standard deviation, 5th and 95th percentile
    over images).
    """
    return [
        {
            "form": name,
            "params": parameter_count(variants[MASKED] if name == SKIPPING else variant),
            **(_top1(variant, dataset) if name not in untrained else {}),
            **(
                _gated_macs(variants[MASKED], dataset)
                if name == SKIPPING
                else {"macs": macs(variant, dataset.spec.input_size)}
            ),
        }
        for name, variant in variants.items()
    ]


def _top1(variant: nn.Module, dataset: EvaluationImages) -> Row:
    if not dataset.labelled:
        return {}
    alone = World(0, 1, dataset.preprocess.device)
    found = accuracy(variant, dataset.batches(), dataset.preprocess, alone, nullcontext)
    return tabled(found, dataset.part)


def _gated_macs(masked: nn.Module, dataset: EvaluationImages) -> Row:
    macs_N = channel_use(masked, dataset.images(), dataset.spec.input_size).macs.double()
    low, high = macs_N.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    return {
        "macs": float(macs_N.mean()),
        "macs_std": float(macs_N.std(correction=0)),
        "macs_low": low,
        "macs_high": high,
    }
