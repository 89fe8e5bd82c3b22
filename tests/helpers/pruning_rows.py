"""A pruned network's rows, as a report is made of them."""

import numpy as np

from helpers.digit_maps import relation_map
from isometry.report.records.data import Example, ImageGroup, PruningData, SaliencyMaps


def speeds(*ratios: float | None) -> list[dict]:
    """Of a batch of 1 and of 64; dense takes 4 ms and 128 ms."""
    found = []
    for size, ratio in zip((1, 64), ratios, strict=True):
        seconds = 0.004 if size == 1 else 0.128
        seconds /= ratio or 1
        row = {"batch_size": size, "ms": 1000 * seconds, "images_per_s": size / seconds, "rounds": 9}
        found.append(row if ratio is None else row | {"ratio": ratio})
    return found


def forms(*ratios: float) -> list[dict]:
    """A network with gates whose skipping form has these speeds over dense."""
    both = {"top1_part": "test", "params": 285_000}
    return [
        {"form": "dense", "top1": 99.0, "top1_part": "test", "params": 269_000, "macs": 40_000_000,
         "speeds": speeds(1.0, 1.0)},
        {"form": "masked", "top1": 98.6, **both, "macs": 40_100_000, "speeds": speeds(0.5, 0.8)},
        {"form": "skipping", "top1": 98.6, **both, "macs": 16e6, "macs_std": 575e3, "macs_low": 15e6,
         "macs_high": 17e6, "speeds": speeds(*ratios)},
    ]  # fmt: skip


def examples(*losses: float) -> list[Example]:
    pictures = np.random.default_rng(0).integers(0, 255, (len(losses), 8, 8, 3), dtype=np.uint8)
    return [
        Example(picture, loss, 1e6 * (15 + at))
        for at, (picture, loss) in enumerate(zip(pictures, losses, strict=True))
    ]


LAYERS = ["layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1"]
PRUNED = PruningData(
    forms(1.5, 0.93),
    "1 thread on cpu",
    LAYERS,
    ImageGroup([0.5, 0.25, 0.75], 15.0e6, examples(0.001, 0.002, -0.0)),
    ImageGroup([0.6, 0.5, 1.0], 18.0e6, examples(4.5, 5.25, 6.0)),
    [SaliencyMaps(name, relation_map(0, 3), relation_map(1, 3), 0.0123) for name in LAYERS],
)
