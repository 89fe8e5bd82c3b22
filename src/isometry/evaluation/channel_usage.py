"""Which channels of a gated network easy and hard images used, and how its saliencies relate images to each other."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.data import ImageSpec
from isometry.evaluation.environment import conditions, environment_text
from isometry.evaluation.sampling import SmallestK
from isometry.evaluation.timing import Row
from isometry.evaluation.variants import EvaluationImages
from isometry.functional import relation_map
from isometry.functional.gates import similarity_gap
from isometry.prune.cost import ChannelUse, channels_on, use_of
from isometry.prune.gates import gated_convs, take_gate_outputs
from isometry.report import Example, ImageGroup, PruningData, SaliencyMaps

EXAMPLES = 3
"""Images shown of each group."""
IMAGES_COMPARED = 96
"""Images that relation maps are of."""
PICTURE_SIDE = 96
"""Largest side of an image that is shown, pixels."""


def pruning_report(network: nn.Module, material: EvaluationImages, forms: Sequence[Row]) -> PruningData:
    """What the report shows of a pruned network: its forms, just measured in this process; and which channels images
    used, where it has gates and they have labels.

    Args:
        network: in eval mode.
        material: the images.
        forms: rows of :func:`isometry.evaluation.variants.measure_variants`.
    """
    words = environment_text(conditions(material.preprocess.device))
    if gated_convs(network) and material.labelled:
        return pruning_data(network, material.pairs(), material.spec, forms, words)
    return PruningData(list(forms), words)


@torch.no_grad()
def pruning_data(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    spec: ImageSpec,
    forms: Sequence[Row] = (),
    words: str = "",
) -> PruningData:
    """What the report shows of a network with gates, from one pass over images.

    Images are told apart by the cross-entropy (nats) of this network's own logits: the quarter of the lowest is easy,
    that of the highest is hard.

    Args:
        network: gated, in eval mode.
        batches: normalised images (B, C, H, W) on its device and their classes (B,).
        spec: how they were normalised, and their size.
        forms: rows of :func:`isometry.evaluation.variants.measure_variants`.
        words: what their times depend on.

    Raises:
        ValueError: the network trains, has no gates, or there are no images.
    """
    if network.training or not gated_convs(network):
        raise ValueError("channels are looked at in a network with gates, in eval mode")
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
        raise ValueError("no images to say which channels are kept")
    use, loss_N = use_of(network, torch.cat(kept), spec.input_size), torch.cat(losses)
    order, quarter = loss_N.argsort(stable=True), max(1, seen // 4)
    return PruningData(
        list(forms),
        words,
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
    """The images as they were before they were normalised, uint8 (B, H, W, C) on the CPU, no larger than is shown."""
    mean, std = (
        torch.tensor(each, device=images_BCHW.device).view(-1, 1, 1) for each in (spec.mean, spec.std)
    )
    shown = images_BCHW.float() * std + mean
    largest = max(shown.shape[2:])
    if largest > PICTURE_SIDE:
        shown = F.interpolate(shown, scale_factor=PICTURE_SIDE / largest, mode="area")
    return (255 * shown.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


def _maps(network: nn.Module, images_NCHW: Tensor, labels_N: Tensor) -> list[SaliencyMaps]:
    """Of the first, the middle and the last gated layer, images sorted by class."""
    convs = gated_convs(network)
    network(images_NCHW[labels_N.argsort(stable=True)])
    glances = dict(zip(convs, take_gate_outputs(list(convs.values())), strict=True))
    names = list(convs)
    shown = dict.fromkeys([names[0], names[len(names) // 2], names[-1]])
    return [
        SaliencyMaps(
            name,
            relation_map(glances[name].saliency).cpu().numpy(),
            relation_map(glances[name].pooled).cpu().numpy(),
            float(similarity_gap(glances[name].saliency, glances[name].pooled)),
        )
        for name in shown
    ]
