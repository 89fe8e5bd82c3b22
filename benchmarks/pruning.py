"""What skipping channels saves on the clock: ``python benchmarks/pruning.py``.

ResNet-34 at 224 pixels with random weights and gates on random images, thresholds so that about 55 % of the
multiply-accumulates drop: the dense network as it is (eager), the same with its norms folded in and channels last, the
same compiled where there is a C++ compiler, the gated network masked, and skipping with gates of single channels and of
groups of 8. All take turns in one process, on one thread and on two. Writes results/pruning.json next to this file.

Where other work shares the cores, threads that wait for one another by spinning make all two-thread figures
meaningless; OMP_WAIT_POLICY=passive, as set for the results here, makes them wait asleep.
"""

import copy
import itertools
import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from relations import processor
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._inductor import config as inductor

from isometry.models.cost import macs
from isometry.prune.cost import channel_use
from isometry.prune.gates import gated_convs, take_gate_outputs
from isometry.prune.sites import add_gates
from isometry.prune.skipping import SkippingBlock, skipping

HERE = Path(__file__).parent
MODEL, SIZE = "resnet34", 224
KEEP = 0.572
"""Share of channels kept a layer: 55 % of the multiply-accumulates drop."""

ROUNDS = {1: 24, 8: 4, 64: 2}
"""Turns of every form by batch size; one more warms up where there are several."""

THREADS = (1, 2)


def random_network() -> nn.Module:
    """ResNet-34 whose norms do something, which timm's untrained ones don't."""
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
    """Coarse shapes under noise, of a contrast that differs over images."""
    generator = torch.Generator().manual_seed(seed)
    shapes = nn.functional.interpolate(torch.randn(count, 3, 7, 7, generator=generator), size=SIZE)
    contrast = 0.5 + 0.5 * torch.rand(count, 1, 1, 1, generator=generator)
    return shapes * contrast + 0.5 * torch.randn(count, 3, SIZE, SIZE, generator=generator)


@torch.no_grad()
def gated(dense: nn.Module, group: int, images: Tensor) -> nn.Module:
    """With gates that answer to what differs between images, and the same share of them on in every layer."""
    network = add_gates(copy.deepcopy(dense), MODEL, group)

    def settle(conv: nn.Module, given: tuple[Tensor]) -> None:
        pooled = given[0].mean((2, 3))
        spread = pooled.std(0)
        squeeze, excite = conv.gate.squeeze, conv.gate.excite
        squeeze.weight /= torch.maximum(spread, 0.3 * spread.mean())
        squeeze.bias.copy_(-(squeeze.weight @ pooled.mean(0)))
        nn.init.normal_(excite.weight, 0, 0.25 / excite.in_features**0.5)
        conv.gate.threshold.copy_(conv.gate(given[0]).saliency.quantile(1 - KEEP))

    convs = gated_convs(network)
    handles = [conv.register_forward_pre_hook(settle) for conv in convs.values()]
    network(images)
    for handle in handles:
        handle.remove()
    take_gate_outputs(list(convs.values()))
    return network


def whole(network: nn.Module) -> nn.Module:
    """The skipping form, made to compute every channel of a batch at once: what it falls back to."""
    form = skipping(network)
    for module in form.modules():
        if isinstance(module, SkippingBlock):
            module.pays = lambda images: False  # type: ignore[method-assign]
    return form


def folded(dense: nn.Module) -> nn.Module:
    """The dense network with its norms folded in, channels last: what skipping has to beat for its own sake."""
    network = copy.deepcopy(dense)
    for owner in list(network.modules()):
        parts = list(owner.named_children())
        for (first, conv), (second, norm) in itertools.pairwise(parts):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(owner, first, nn.utils.fusion.fuse_conv_bn_eval(conv, norm))
                setattr(owner, second, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def forms(images: Tensor) -> tuple[dict[str, Callable[[Tensor], Tensor]], dict[str, nn.Module]]:
    """What takes turns, by name, dense first; and the gated networks by the size of a group."""
    dense = random_network()
    networks = {f"groups of {group}": gated(dense, group, images) for group in (1, 8)}
    plain = networks["groups of 1"]
    contenders: dict[str, Callable[[Tensor], Tensor]] = {
        "dense": dense,
        "dense, folded": folded(dense),
        "masked": plain,
        "masked, folded": whole(plain),
        "skipping": skipping(plain),
        "skipping, groups of 8": skipping(networks["groups of 8"]),
    }
    return contenders, networks


def with_compiled(contenders: dict[str, Callable[[Tensor], Tensor]]) -> dict[str, Callable[[Tensor], Tensor]]:
    """And the dense network compiled, its weights packed beforehand, where there is a C++ compiler to do so."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        return contenders
    inductor.freezing = True
    compiled = torch.compile(copy.deepcopy(contenders["dense"]), dynamic=False)
    return {**contenders, "dense, compiled": compiled}


@torch.no_grad()
def milliseconds(contenders: dict[str, Callable[[Tensor], Tensor]], batch: int) -> dict[str, float]:
    """Median milliseconds an image; the forms take turns batch by batch."""
    images = random_images(max(batch, 6), seed=7)
    batches = images.split(batch)
    rounds = ROUNDS[batch]
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + (rounds > 1)):
        for name, form in contenders.items():
            start = time.perf_counter()
            form(batches[turn % len(batches)])
            taken[name].append(time.perf_counter() - start)
    return {
        name: 1e3 * statistics.median(times[1:] if len(times) > 1 else times) / batch
        for name, times in taken.items()
    }


@torch.no_grad()
def farthest(
    networks: dict[str, nn.Module], contenders: dict[str, Callable[[Tensor], Tensor]]
) -> list[float]:
    """Of each of some images, the largest difference between a logit skipping and masked."""
    images = random_images(12, seed=5)
    difference = contenders["skipping"](images) - networks["groups of 1"](images)
    return sorted(difference.abs().amax(1).tolist())


def main() -> None:
    torch.set_num_threads(THREADS[0])
    contenders, networks = forms(random_images(24, seed=1))
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
        "largest difference of a logit, by image": farthest(networks, contenders),
    }
    timed = {}
    for threads in THREADS:
        torch.set_num_threads(threads)
        for batch in ROUNDS:
            # Compiling takes half a minute a shape: for the case that skipping is for alone.
            all_of_them = with_compiled(contenders) if batch == threads == 1 else contenders
            timed[f"batch {batch}, {threads} thread{'s' * (threads > 1)}"] = milliseconds(all_of_them, batch)
    report(figures, timed)


def report(figures: dict[str, object], timed: dict[str, dict[str, float]]) -> None:
    """The table on the terminal, and the file."""
    setting = {
        "device": processor(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "not set"),
    }
    rounded = json.loads(json.dumps(figures), parse_float=lambda text: float(f"{float(text):.3g}"))
    caption = "; ".join(f"{key} {value}" for key, value in (setting | rounded).items())
    table = Table(
        "form", *timed, title="ResNet-34 at 224 pixels: ms an image (times faster)", caption=caption
    )
    for name in next(iter(timed.values())):
        cells = (
            f"{found[name]:.1f} ({found['dense'] / found[name]:.2f})" if name in found else "–"
            for found in timed.values()
        )
        table.add_row(name, *cells)
    Console().print(table)
    shown = json.loads(json.dumps(timed), parse_float=lambda text: float(f"{float(text):.4g}"))
    results = HERE / "results" / "pruning.json"
    results.write_text(
        json.dumps({**setting, **rounded, "milliseconds an image": shown}, indent=2, ensure_ascii=False)
        + "\n"
    )


if __name__ == "__main__":
    main()
