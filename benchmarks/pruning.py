"""Latency of networks that skip channels: ``python benchmarks/pruning.py``.

ResNet-34 at 224 pixels with random weights on random images, with gate thresholds that remove about 55 % of the
multiply-accumulates. Compared are the dense network (eager), the same with folded norms and channels-last memory, the
same compiled (where there is a C++ compiler), the gated network with masked channels, and skipping with gates of single
channels and of groups of 8. All are interleaved in one process, with one thread and with two. Writes
results/pruning.json.

On shared cores set OMP_WAIT_POLICY=passive, as `make bench` does: threads that wait for each other by spinning
would distort the figures for two threads.
"""

import copy
import itertools
import os
import shutil
import statistics
import time
from collections.abc import Callable

import timm
import torch
from common import caption, measured_on, rounded, save
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._inductor import config as inductor

from isometry.models.cost import macs
from isometry.prune.cost import channel_use
from isometry.prune.gates import gated_convs, take_gate_outputs
from isometry.prune.sites import add_gates
from isometry.prune.skipping import SkippingBlock, skipping

MODEL, SIZE = "resnet34", 224
KEEP = 0.572
"""Share of channels kept in each layer, which removes about 55 % of the multiply-accumulates."""

ROUNDS = {1: 24, 8: 4, 64: 2}
"""Rounds by batch size; where there are several, another one before them is the warm-up."""

THREADS = (1, 2)

Variants = dict[str, Callable[[Tensor], Tensor]]
"""Ways to compute the network, by name."""


def random_network() -> nn.Module:
    """ResNet-34 with random norm parameters and statistics; timm initializes them as the identity."""
    torch.manual_seed(0)
    network = timm.create_model(MODEL, zero_init_last=False).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def random_images(count: int, seed: int) -> Tensor:
    """Coarse random shapes with noise, with a different contrast in each image."""
    generator = torch.Generator().manual_seed(seed)
    shapes = nn.functional.interpolate(torch.randn(count, 3, 7, 7, generator=generator), size=SIZE)
    contrast = 0.5 + 0.5 * torch.rand(count, 1, 1, 1, generator=generator)
    return shapes * contrast + 0.5 * torch.randn(count, 3, SIZE, SIZE, generator=generator)


@torch.no_grad()
def gated(dense: nn.Module, group: int, images: Tensor) -> nn.Module:
    """Adds gates that depend on the image, with the same share of channels kept in every layer."""
    network = add_gates(copy.deepcopy(dense), MODEL, group)

    def calibrate(conv: nn.Module, inputs: tuple[Tensor]) -> None:
        pooled = inputs[0].mean((2, 3))
        spread = pooled.std(0)
        squeeze, excite = conv.gate.squeeze, conv.gate.excite
        squeeze.weight /= torch.maximum(spread, 0.3 * spread.mean())
        squeeze.bias.copy_(-(squeeze.weight @ pooled.mean(0)))
        nn.init.normal_(excite.weight, 0, 0.25 / excite.in_features**0.5)
        conv.gate.threshold.copy_(conv.gate(inputs[0]).saliency.quantile(1 - KEEP))

    convs = gated_convs(network)
    handles = [conv.register_forward_pre_hook(calibrate) for conv in convs.values()]
    network(images)
    for handle in handles:
        handle.remove()
    take_gate_outputs(list(convs.values()))
    return network


def never_skipping(network: nn.Module) -> nn.Module:
    """The skipping network with skipping disabled: its fallback, which computes all channels."""
    variant = skipping(network)
    for module in variant.modules():
        if isinstance(module, SkippingBlock):
            module.pays = lambda images: False  # type: ignore[method-assign]
    return variant


def folded(dense: nn.Module) -> nn.Module:
    """The dense network with folded norms and channels-last memory, the fastest eager baseline."""
    network = copy.deepcopy(dense)
    for owner in list(network.modules()):
        parts = list(owner.named_children())
        for (first, conv), (second, norm) in itertools.pairwise(parts):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(owner, first, nn.utils.fusion.fuse_conv_bn_eval(conv, norm))
                setattr(owner, second, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def build_variants(images: Tensor) -> tuple[Variants, dict[str, nn.Module]]:
    """The variants, dense first, and the gated networks by group size."""
    dense = random_network()
    networks = {f"groups of {group}": gated(dense, group, images) for group in (1, 8)}
    plain = networks["groups of 1"]
    variants: Variants = {
        "dense": dense,
        "dense, folded": folded(dense),
        "masked": plain,
        "masked, folded": never_skipping(plain),
        "skipping": skipping(plain),
        "skipping, groups of 8": skipping(networks["groups of 8"]),
    }
    return variants, networks


def with_compiled(variants: Variants) -> Variants:
    """Adds the dense network compiled with frozen weights, where there is a C++ compiler."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        return variants
    inductor.freezing = True
    compiled = torch.compile(copy.deepcopy(variants["dense"]), dynamic=False)
    return {**variants, "dense, compiled": compiled}


@torch.no_grad()
def milliseconds(variants: Variants, batch: int) -> dict[str, float]:
    """Median milliseconds per image; the variants alternate batch by batch."""
    images = random_images(max(batch, 6), seed=7)
    batches = images.split(batch)
    rounds = ROUNDS[batch]
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + (rounds > 1)):
        for name, run in variants.items():
            start = time.perf_counter()
            run(batches[number % len(batches)])
            taken[name].append(time.perf_counter() - start)
    return {
        name: 1e3 * statistics.median(times[1:] if len(times) > 1 else times) / batch
        for name, times in taken.items()
    }


@torch.no_grad()
def largest_differences(networks: dict[str, nn.Module], variants: Variants) -> list[float]:
    """The largest difference between logits with skipping and with masking, for each of 12 images."""
    images = random_images(12, seed=5)
    difference = variants["skipping"](images) - networks["groups of 1"](images)
    return sorted(difference.abs().amax(1).tolist())


def main() -> None:
    torch.set_num_threads(THREADS[0])
    variants, networks = build_variants(random_images(24, seed=1))
    spent = {
        name: channel_use(network, random_images(12, seed=5).split(4), (3, SIZE, SIZE)).macs.double()
        for name, network in networks.items()
    }
    full = macs(random_network(), (3, SIZE, SIZE))
    figures: dict[str, object] = {
        "multiply-accumulates dropped, %": {
            name: float(100 * (1 - used.mean() / full)) for name, used in spent.items()
        },
        "their standard deviation over images": {
            name: float(100 * used.std() / full) for name, used in spent.items()
        },
        "largest difference of a logit, by image": largest_differences(networks, variants),
    }
    timed = {}
    for threads in THREADS:
        torch.set_num_threads(threads)
        for batch in ROUNDS:
            # Compilation takes half a minute per shape, so it is done for the main use of skipping only.
            compared = with_compiled(variants) if batch == threads == 1 else variants
            timed[f"batch {batch}, {threads} thread{'s' * (threads > 1)}"] = milliseconds(compared, batch)
    report(figures, timed)


def report(figures: dict[str, object], timed: dict[str, dict[str, float]]) -> None:
    """Prints the figures as a table and saves them."""
    setting = measured_on() | {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "not set")}
    # The columns have the number of threads.
    del setting["threads"]
    figures = rounded(figures)
    title = "ResNet-34 at 224 pixels: ms per image (speed-up)"
    table = Table("variant", *timed, title=title, caption=caption(setting | figures))
    for name in next(iter(timed.values())):
        cells = (
            f"{found[name]:.1f} ({found['dense'] / found[name]:.2f})" if name in found else "–"
            for found in timed.values()
        )
        table.add_row(name, *cells)
    Console().print(table)
    save("pruning", {**setting, **figures, "milliseconds an image": rounded(timed, digits=4)})


if __name__ == "__main__":
    main()
