"""Loading of photographs, beside timm's loader: ``python benchmarks/loading.py [--device cuda]``.

Files are made from scikit-learn's two photographs: 500×375 pixels, as in ImageNet, and 4000×3000, as from a phone.
First, images a second of one core: decoding, the random resized crop or the validation crop to 224 pixels, and
RandAugment, with the same crops on all sides. Then images a second of whole loaders with worker processes, over epochs
without a pause, normalised and randomly erased on the device; epochs in which workers start are not counted. The sides
have the same transforms and alternate in one process; a ratio is that of medians. timm's decodes in full. Writes
results/loading.json, or results/loading_cuda.json.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import caption, measured_on, rounded, save
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_image
from timm.data import create_dataset, create_loader
from timm.data.loader import fast_collate

from isometry.config import DataConfig
from isometry.data import ImageSpec, Preprocess, copied_ahead, find_sources, make_loaders
from isometry.data.image_modes import quiet_decoders
from isometry.data.sampler import EvalRequests, TrainRequests
from isometry.data.transforms import eval_transform, train_transform
from isometry.seeding import derive_seed, seed_cpu_generators

PHONE, WEB = (4000, 3000), (500, 375)
DISTINCT = 256
"""Different small photographs of each class; the others are copies of their files."""

SPEC = ImageSpec((3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
AUGMENTATION: dict[str, Any] = {
    "aa": "rand-m9-mstd0.5-inc1",
    "reprob": 0.25,
    "train_interpolation": "bicubic",
    "color_jitter": 0.0,
}
Rates = dict[str, list[float]]
"""Images a second of each round, by side."""


def photograph(name: str, seed: int) -> Image.Image:
    """A photograph of 4000×3000 pixels: enlarged twice, repeated in mirrors, with a sensor's noise."""
    image = Image.fromarray(load_sample_image(name))
    pixels = np.asarray(image.resize((2 * image.width, 2 * image.height), Image.Resampling.BICUBIC))
    pixels = np.concatenate([pixels, pixels[:, ::-1]], axis=1)
    pixels = np.concatenate([pixels, pixels[::-1]], axis=0)
    tiled = np.tile(pixels, (2, 2, 1))[: PHONE[1], : PHONE[0]].astype(np.float32)
    tiled += np.random.default_rng(seed).normal(0, 4, tiled.shape)
    return Image.fromarray(tiled.clip(0, 255).astype(np.uint8))


def write_photographs(root: Path, phone: int, web: int) -> tuple[Path, Path]:
    """Two folders of two classes: so many photographs of a phone, and so many small ones cut out of them."""
    folders = root / "phone", root / "web"
    for label, name in enumerate(("china.jpg", "flower.jpg")):
        base = photograph(name, label)
        for folder in folders:
            (folder / name).mkdir(parents=True)
        for number in range(phone // 2):
            shifted = Image.fromarray(np.roll(np.asarray(base), 301 * number, axis=1))
            shifted.save(folders[0] / name / f"{number}.jpg", quality=90)
        places = np.random.default_rng(label)
        for number in range(min(web // 2, DISTINCT)):
            left, top = places.integers(0, PHONE[0] - 1000), places.integers(0, PHONE[1] - 750)
            part = base.crop((left, top, left + 1000, top + 750)).resize(WEB, Image.Resampling.LANCZOS)
            part.save(folders[1] / name / f"{number}.jpg", quality=90)
        for number in range(DISTINCT, web // 2):
            source = folders[1] / name / f"{number % DISTINCT}.jpg"
            (folders[1] / name / f"{number}.jpg").write_bytes(source.read_bytes())
    return folders


def config(folder: Path, **options: Any) -> DataConfig:
    """The options of both sides."""
    return DataConfig(
        **{"data_dir": str(folder), "workers": 0, "val_fraction": 0.5, **AUGMENTATION, **options}
    )


# --- one core


def one_core(folder: Path, training: bool, count: int, rounds: int) -> Rates:
    """timm's data set, and ours decoding in full and at a reduced scale, without worker processes."""
    sides: dict[str, Iterator[Any]] = {"timm": timm_batches(folder, training, count)}
    for decode in ("full", "scaled"):
        sides[f"isometry, --decode {decode}"] = our_batches(folder, training, count, decode)
    taken: Rates = defaultdict(list)
    for _ in range(rounds + 1):
        for name, images in sides.items():
            start = time.perf_counter()
            next(images)
            taken[name].append(count / (time.perf_counter() - start))
    # The first round reads files and imports.
    return {name: rates[1:] for name, rates in taken.items()}


def timm_batches(folder: Path, training: bool, count: int) -> Iterator[Any]:
    """Batches of timm's data set, without end: the images of ours, and the same crops."""
    options = config(folder, batch_size=count)
    sources = find_sources(options)
    make, part = (train_transform, sources.train) if training else (eval_transform, sources.val)
    dataset = create_dataset("", root=str(folder), is_training=training, transform=make(options, SPEC))
    numbers = {dataset.filename(number, absolute=True): number for number in range(len(dataset))}
    for epoch in itertools.count():
        requests = (
            TrainRequests(len(part), count, seed=0, repeats=0) if training else EvalRequests(len(part), count)
        )
        if training:
            requests.epoch = epoch
        for request in requests:
            images = []
            for position, index in enumerate(request.indices, start=request.position):
                seed_cpu_generators(derive_seed(0, "augment", request.epoch, position))
                images.append(dataset[numbers[part.where(index)]])
            yield fast_collate(images)


def our_batches(folder: Path, training: bool, count: int, decode: str) -> Iterator[Any]:
    """Batches of our reader, without end."""
    options = config(folder, decode=decode, batch_size=count)
    loaders = make_loaders(find_sources(options), options, SPEC, seed=0)
    for epoch in itertools.count():
        yield from loaders.train.epoch(epoch) if training else loaders.val


# --- whole loaders


def whole_loaders(
    folder: Path, device: torch.device, workers: int, batch: int, epochs: int, rounds: int
) -> Rates:
    """Images a second over epochs without a pause."""
    sides: dict[str, Callable[[], Iterator[Iterator[int]]]] = {
        "timm's create_loader": lambda: timm_epochs(folder, device, workers, batch, epochs),
        "isometry": lambda: our_epochs(folder, device, workers, batch, epochs),
    }
    taken: Rates = defaultdict(list)
    for _ in range(rounds):
        for name, begin in sides.items():
            loaded = begin()
            sum(next(loaded))  # workers start
            start, images = time.perf_counter(), sum(sum(epoch) for epoch in loaded)
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken[name].append(images / (time.perf_counter() - start))
    return taken


def timm_epochs(
    folder: Path, device: torch.device, workers: int, batch: int, epochs: int
) -> Iterator[Iterator[int]]:
    """The numbers of images of batches, by epoch."""
    dataset = create_dataset("", root=str(folder), is_training=True)
    loader = create_loader(
        dataset,
        SPEC.input_size,
        batch,
        is_training=True,
        re_prob=AUGMENTATION["reprob"],
        re_mode="pixel",
        num_workers=workers,
        mean=SPEC.mean,
        std=SPEC.std,
        pin_memory=device.type == "cuda",
        device=device,
    )
    # timm's own fails in Pillow 13: its posterize keeps 0 bits.
    dataset.transform = train_transform(config(folder), SPEC)
    for _ in range(epochs + 1):
        yield (len(images) for images, _ in loader)


def our_epochs(
    folder: Path, device: torch.device, workers: int, batch: int, epochs: int
) -> Iterator[Iterator[int]]:
    """The numbers of images of batches, by epoch."""
    options = config(folder, workers=workers, batch_size=batch, val_fraction=1e-9)
    loader = make_loaders(find_sources(options), options, SPEC, seed=0, epochs=epochs + 1).train
    preprocess = Preprocess(options, SPEC, 2, device)
    for epoch in range(epochs + 1):
        yield (len(preprocess(read)[0]) for read in copied_ahead(loader.epoch(epoch), device))
    loader.close()


# --- results


def rows(what: str, rates: Rates, cores: int, targets: dict[str, float]) -> list[dict[str, Any]]:
    """A row for each side: images a second and core, and the ratio to the first side."""
    medians = {name: statistics.median(taken) for name, taken in rates.items()}
    first = next(iter(medians.values()))
    return [
        {
            "what": what,
            "side": name,
            "images/s and core": median / cores,
            "times timm": median / first,
            "target": targets.get(name),
        }
        for name, median in medians.items()
    ]


def run(device: torch.device, workers: int, rounds: int) -> None:
    """Measures, prints and saves."""
    on_gpu = device.type == "cuda"
    torch.set_num_threads(1)
    quiet_decoders()
    with tempfile.TemporaryDirectory() as root:
        phone, web = write_photographs(Path(root), 16, 4096 if on_gpu else 512)
        scaled = {"isometry, --decode scaled": 3.0}
        table = [
            *rows("500×375, training", one_core(web, True, 64, 3 * rounds), 1, {}),
            *rows("4000×3000, training", one_core(phone, True, 8, rounds), 1, scaled),
            *rows("4000×3000, validation", one_core(phone, False, 8, rounds), 1, scaled),
        ]
        rates = whole_loaders(web, device, workers, 128 if on_gpu else 64, 3, rounds)
        table += rows(f"500×375, {workers} workers", rates, workers, {"isometry": 1.0})
    table = rounded(table)
    setting = {**measured_on(device), "workers": workers, "rounds": rounds}
    shown = Table(title="Loading of photographs at 224 pixels", caption=caption(setting))
    for heading in table[0]:
        shown.add_column(heading, justify="left" if heading in ("what", "side") else "right")
    for row in table:
        shown.add_row(*("–" if value is None else str(value) for value in row.values()))
    Console().print(shown)
    save("loading_cuda" if on_gpu else "loading", {**setting, "rows": table})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--workers", type=int, help="worker processes; the machine's cores, up to 14, by default"
    )
    parser.add_argument("--rounds", type=int, help="measurements of each side; 5 by default, 3 on a GPU")
    given = parser.parse_args()
    if given.workers is not None and given.workers < 1:
        parser.error("--workers: at least 1")
    rounds = given.rounds or (3 if given.device == "cuda" else 5)
    run(torch.device(given.device), given.workers or min(14, os.cpu_count() or 1), rounds)


if __name__ == "__main__":
    main()
