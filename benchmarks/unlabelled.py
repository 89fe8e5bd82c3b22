"""Features learned from images without labels: ``OMP_NUM_THREADS=1 python benchmarks/unlabelled.py``.

On the digits, for each seed: a teacher trained with all labels; a student distilled from it by relations only, on a
folder of images without labels; the same student untrained; and the same student trained without a teacher on 10, 50
and all labels per class, for as many steps. Features are evaluated by k-NN and a linear probe on the test part. The
last epoch is evaluated; nothing is selected on validation images. Writes results/unlabelled.json, and its tables into
docs/unlabelled.md; with ``--page`` only the tables, from the existing results.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import sklearn
import torch
from common import ONE_PROCESS, RESULTS, measured_on, save
from torch import Tensor, nn

from isometry.cli.arguments import parse
from isometry.config import RunConfig
from isometry.data import Sources, find_sources
from isometry.data.splits import MapPart
from isometry.evaluation.inference import HEAD, POOLED, features_of, labelled_batches, predict
from isometry.evaluation.probes import probe
from isometry.models.build import save_model
from isometry.models.cost import parameter_count
from isometry.models.spec import image_spec
from isometry.recipes import find_recipe
from isometry.report.records.intervals import interval
from isometry.seeding import derive_seed
from isometry.training.assemble import Run, assemble
from isometry.training.loop import Trainer

PAGE = Path(__file__).parents[1] / "docs" / "unlabelled.md"
BEGIN, END = "<!-- written by benchmarks/unlabelled.py -->", "<!-- up to here -->"
COMMAND = "OMP_NUM_THREADS=1 python benchmarks/unlabelled.py"

SEEDS = 5
ALL = "all labels"
PER_CLASS = {"10 labels a class": 10, "50 labels a class": 50, ALL: 900}
"""Number of labels of each class, by its name in the tables."""

Row = dict[str, Any]
Figures = dict[str, dict[str, float]]
"""By network, then by measure; percent."""


def recipe(name: str, **changed: Any) -> RunConfig:
    """A recipe on the digits with some options replaced."""
    return replace(
        parse(RunConfig, ["--config", find_recipe(f"digits/{name}.yaml")]), device="cpu", **changed
    )


def trained(run: Run, train: MapPart | None = None) -> nn.Module:
    """Trains a run, on other images if given; returns the network after the last epoch, in eval mode."""
    sources = replace(run.sources, train=train or run.sources.train, val=None)
    trainer = Trainer(replace(run, sources=sources), None, ONE_PROCESS, None, "")
    trainer.fit()
    trainer.loaders.close()
    return run.student.eval()


def save_teacher(run: Run, folder: Path) -> None:
    """Saves the network as a run does, with its image size and normalisation."""
    spec = run.spec
    given = {"input_size": spec.input_size, "mean": spec.mean, "std": spec.std, "crop_pct": spec.crop_pct}
    save_model(run.student, folder, None, given)


def with_labels(config: RunConfig, epochs: int) -> RunConfig:
    """The config of the same student trained on labels, without a teacher."""
    alone = replace(config, teacher="", losses={"ce": 1}, num_classes=None, epochs=epochs)
    return replace(alone, data_dir=None, dataset="digits")


def write_images(part: MapPart, folder: Path) -> None:
    """Writes the images of a part into one folder, without class folders."""
    folder.mkdir(parents=True)
    for number in range(len(part)):
        part.load(number)[0].save(folder / f"{number:04}.png")


def subset(part: MapPart, per_class: int, seed: int) -> MapPart:
    """A random subset with at most ``per_class`` images of each class."""
    labels = np.array([part.load(number)[1] for number in range(len(part))])
    random = np.random.default_rng(derive_seed("labels", seed))
    order = random.permutation(len(labels))
    chosen = np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels)])
    assert part.numbers is not None
    return replace(part, numbers=[part.numbers[number] for number in sorted(chosen)])


def batches(
    network: nn.Module, part: MapPart, sources: Sources
) -> AbstractContextManager[Iterator[tuple[Tensor, Tensor]]]:
    """Images of a part, normalised for the network, and their labels."""
    config = recipe("student")
    spec = image_spec(network, config.img_size)
    return labelled_batches(part, sources, spec, config, ONE_PROCESS.device)


def features(network: nn.Module, part: MapPart, sources: Sources) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features of a part by name, and its labels."""
    with batches(network, part, sources) as pairs:
        return features_of(network, pairs)


def probed(network: nn.Module, train: MapPart, sources: Sources) -> dict[str, float]:
    """k-NN and linear probe of both kinds of features, fitted on ``train``: percent correct on the test part."""
    assert isinstance(sources.test, MapPart)
    fitted, labels = features(network, train, sources)
    tested, test_labels = features(network, sources.test, sources)
    found: dict[str, float] = {}
    for name in (POOLED, HEAD):
        rows = probe(fitted[name], labels, tested[name], test_labels)
        found |= {f"{name}, {kind}": row["value"] for kind, row in rows.items()}
    return found


def own_top1(network: nn.Module, sources: Sources) -> float:
    """Top-1 of the network's classifier on the test part, percent."""
    assert sources.test is not None
    with batches(network, sources.test, sources) as pairs:
        return 100 * float(predict(network, pairs).right.mean())


def measure(seed: int, images: Path, scratch: Path, say: Callable[[str], None]) -> Figures:
    """All figures of a seed; ``images`` is the folder without labels."""
    sources = find_sources(recipe("student"))
    assert isinstance(sources.train, MapPart)
    found: Figures = {}

    run = assemble(recipe("teacher", seed=seed), ONE_PROCESS)
    teacher = trained(run)
    folder = scratch / f"teacher-{seed}"
    save_teacher(run, folder)
    found["teacher"] = probed(teacher, sources.train, sources) | {"top1": own_top1(teacher, sources)}
    say(f"seed {seed}: teacher {found['teacher']}")

    config = recipe("unlabelled", seed=seed, data_dir=str(images), teacher=f"local-dir:{folder}")
    untrained = assemble(config, ONE_PROCESS).student.eval()
    found["untrained"] = probed(untrained, sources.train, sources)
    found["parameters"] = {"teacher": parameter_count(teacher), "student": parameter_count(untrained)}
    unlabelled = trained(assemble(config, ONE_PROCESS))
    for amount, per_class in PER_CLASS.items():
        part = subset(sources.train, per_class, seed)
        found[f"no labels, probed with {amount}"] = probed(unlabelled, part, sources)
        supervised = with_labels(config, config.epochs * len(sources.train) // len(part))
        student = trained(assemble(supervised, ONE_PROCESS), part)
        found[amount] = probed(student, sources.train, sources) | {"top1": own_top1(student, sources)}
        say(f"seed {seed}: {amount} {found[amount]}")
    return found


def main() -> None:
    torch.set_num_threads(1)
    start = time.process_time()
    with TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        train = find_sources(recipe("student")).train
        assert isinstance(train, MapPart)
        write_images(train, images / "train")
        # A data folder must have validation images; they are not used here.
        write_images(replace(train, numbers=list(train.numbers or [])[:2]), images / "val")
        seeds = [measure(seed, images, Path(scratch), print) for seed in range(SEEDS)]
    setting = measured_on()
    result = {
        "command": COMMAND,
        "date": date.today().isoformat(),
        "core_minutes": round((time.process_time() - start) / 60, 1),
        "device": setting["processor"],
        "threads": setting["threads"],
        "versions": {name: setting[name] for name in ("python", "torch", "timm")}
        | {"scikit-learn": sklearn.__version__},
        "seeds": SEEDS,
        "figures": {name: by_kind([seed[name] for seed in seeds]) for name in seeds[0]},
    }
    save("unlabelled", result)
    write_page(result)


def by_kind(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Figures of all seeds by measure."""
    return {kind: [round(row[kind], 2) for row in rows] for kind in rows[0]}


def write_page(result: Mapping[str, Any]) -> None:
    """Writes the tables into the page, between its two marks."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{tables(result)}\n{END}{tail}", encoding="utf-8")


def tables(result: Mapping[str, Any]) -> str:
    """The tables as Markdown, with their conditions."""
    figures = result["figures"]
    rows = [
        ("teacher, trained with all labels", "teacher", HEAD),
        ("its patch tokens, which the relations compare", "teacher", POOLED),
        ("student, untrained", "untrained", HEAD),
        ("**student, trained without labels**", f"no labels, probed with {ALL}", HEAD),
        *((f"student, trained with {amount}", amount, HEAD) for amount in PER_CLASS),
    ]
    first = [
        [name, *(mean(figures[key], f"{place}, {kind}") for kind in ("knn", "linear"))]
        for name, key, place in rows
    ]
    second = [
        [
            amount,
            mean(figures[amount], "top1"),
            mean(figures[f"no labels, probed with {amount}"], f"{HEAD}, knn"),
            mean(figures[f"no labels, probed with {amount}"], f"{HEAD}, linear"),
        ]
        for amount in PER_CLASS
    ]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    teacher, student = (figures["parameters"][side][0] for side in ("teacher", "student"))
    made = (
        f"The teacher has {teacher / 1e3:.0f} k parameters, the student {student / 1e3:.1f} k. "
        f"`{result['command']}`: {result['date']}, {result['core_minutes']} minutes of one core ({result['device']}); "
        f"{versions}. {result['seeds']} seeds, each with a teacher of its own; ± is half of the 95 % "
        "confidence interval of the mean (Student's t)."
    )
    return "\n".join(
        [
            "Probes of the features, fitted with all 900 labels; top-1 on the test images, %:",
            "",
            *markdown(["features", "k-NN", "linear probe"], first),
            "",
            "Classifiers from few labels; top-1 on the test images, %:",
            "",
            *markdown(
                [
                    "labels",
                    "student trained on these alone",
                    "student trained without labels, then k-NN on these",
                    "student trained without labels, then a linear probe on these",
                ],
                second,
            ),
            "",
            made,
            "",
        ]
    )


def mean(figures: Mapping[str, list[float]], kind: str) -> str:
    """``93.4 ± 0.8``."""
    middle, low, high = interval(figures[kind])
    assert low is not None
    assert high is not None
    return f"{middle:.1f} ± {(high - low) / 2:.1f}"


def markdown(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Lines of a table whose figures are right-aligned."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


if __name__ == "__main__":
    if sys.argv[1:] == ["--page"]:
        write_page(json.loads((RESULTS / "unlabelled.json").read_text(encoding="utf-8")))
    else:
        main()
