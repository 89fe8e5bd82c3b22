"""Channels of a gated network that easy and hard images use, and its saliencies' relations between images."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.data import ImageSpec
from isometry.evaluation.environment import environment, environment_text
from isometry.evaluation.sampling import SmallestK
from isometry.evaluation.timing import Row
from isometry.evaluation.variants import EvaluationImages
from isometry.functional import relation_map
from isometry.functional.gates import similarity_gap
from isometry.prune.cost import ChannelUse, channels_on, use_of
from isometry.prune.gates import gated_convs, take_gate_outputs
from isometry.report.records.data import Example, ImageGroup, PruningData, SaliencyMaps

EXAMPLES = 3
"""Example images of each group."""
IMAGES_COMPARED = 96
"""Images in the relation maps."""
PICTURE_SIDE = 96
"""Largest side of an example image, pixels."""


def pruning_report(network: nn.Module, dataset: EvaluationImages, variants: Sequence[Row]) -> PruningData:
    """The pruning data of the report: the measured variants, and channel usage if the network has gates and the images
    have labels. ``variants`` are rows of :func:`isometry.evaluation.variants.measure_variants`."""
    measured = environment_text(environment(dataset.preprocess.device))
    if gated_convs(network) and dataset.labelled:
        return pruning_data(network, dataset.pairs(), dataset.spec, variants, measured)
    return PruningData(list(variants), measured)


@torch.no_grad()
def pruning_data(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    spec: ImageSpec,
    variants: Sequence[Row] = (),
    environment_line: str = "",
) -> PruningData:
    """The pruning data of a gated network, from one pass over images.

    By the cross-entropy (nats) of the network's own logits, the lowest quarter of the images is easy and the highest
    is hard.

    ``batches`` are images (B, C, H, W), normalised as in ``spec``, on the network's device, and their classes (B,).

    Raises:
        ValueError: the network trains, has no gates, or there are no images.
    """
    if network.training or not gated_convs(network):
        raise ValueError("channel usage needs a network with gates, in eval mode")
    kept, losses, seen = [], [], 0
    easiest, hardest, compared = SmallestK(EXAMPLES), SmallestK(EXAMPLES), SmallestK(IMAGES_COMPARED)
    generator = torch.Generator().manual_seed(0)
    for images_BCHW, labels_B in batches:
        loss_B = F.cross_entropy(network(images_BCHW).float(), labels_B, reduction="none").cpu()
        kept.append(channels_on(network).cpu())
        losses.append(loss_B)
        number_B = torch.arange(seen, seen + len(loss_B))
        seen += len(loss_B)
        pictures = _pictures(images_BCHW, spec)
        easiest.add(loss_B, number_B, pictures)
        hardest.add(-loss_B, number_B, pictures)
        compared.add(torch.rand(len(loss_B), generator=generator), images_BCHW, labels_B)
    if not seen:
        raise ValueError("channel usage needs images")
    use, loss_N = use_of(network, torch.cat(kept), spec.input_size), torch.cat(losses)
    order, quarter = loss_N.argsort(stable=True), max(1, seen // 4)
    return PruningData(
        list(variants),
        environment_line,
        use.layers,
        replace(_group(use, order[:quarter]), examples=_examples(easiest, use, loss_N)),
        replace(_group(use, order[-quarter:]), examples=_examples(hardest, use, loss_N)),
        _maps(network, *compared.tensors),
    )


def _group(use: ChannelUse, members: Tensor) -> ImageGroup:
    return ImageGroup(use.shares[members].mean(0).tolist(), float(use.macs[members].double().mean()))


def _examples(chosen: SmallestK, use: ChannelUse, loss_N: Tensor) -> list[Example]:
    number_K, pictures_KHWC = chosen.tensors
    return [
        Example(picture.numpy(), float(loss_N[number]), float(use.macs[number]))
        for number, picture in zip(number_K.tolist(), pictures_KHWC, strict=True)
    ]


def _pictures(images_BCHW: Tensor, spec: ImageSpec) -> Tensor:
    """Images without normalisation, uint8 (B, H, W, C) on the CPU, at most PICTURE_SIDE pixels."""
    mean, std = (
        torch.tensor(each, device=images_BCHW.device).view(-1, 1, 1) for each in (spec.mean, spec.std)
    )
    shown = images_BCHW.float() * std + mean
    largest = max(shown.shape[2:])
    if largest > PICTURE_SIDE:
        shown = F.interpolate(shown, scale_factor=PICTURE_SIDE / largest, mode="area")
    return (255 * shown.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


def _maps(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor) -> list[SaliencyMaps]:
    """Maps of the first, middle and last gated layer, images sorted by class."""
    convs = gated_convs(network)
    network(images_NCHW[labels_N.argsort(stable=True)])
    outputs = dict(zip(convs, take_gate_outputs(list(convs.values())), strict=True))
    names = list(convs)
    shown = dict.fromkeys([names[0], names[len(names) // 2], names[-1]])
    return [
        SaliencyMaps(
            name,
            relation_map(outputs[name].saliency).cpu().numpy(),
            relation_map(outputs[name].pooled).cpu().numpy(),
            float(similarity_gap(outputs[name].saliency, outputs[name].pooled)),
        )
        for name in shown
    ]
