"""What a student learns from pictures without labels: ``OMP_NUM_THREADS=1 python benchmarks/unlabelled.py``.

On the digits, for each seed: a teacher trained with all labels; a student taught by it through relations alone, on
the pictures of a folder without labels; the same student untrained; and trained without a teacher on 10, 50 and all
labels a class, for as many steps. Features are judged by k-NN and a linear probe on the test part. Nothing is chosen by
any validation part: the last epoch counts. Writes results/unlabelled.json, and its tables into docs/unlabelled.md.
"""

import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import sklearn
import timm
import torch
from relations import processor
from torch import nn

from isometry.cli.arguments import parse
from isometry.config import RunConfig
from isometry.data import Sources, find_sources
from isometry.data.splits import MapPart
from isometry.distributed import World
from isometry.evaluation.inference import HEAD, POOLED, features_of, predict, reading
from isometry.evaluation.probes import probe
from isometry.models.build import save_model
from isometry.models.cost import parameter_count
from isometry.report.records.intervals import interval
from isometry.seeding import derive_seed
from isometry.training.assemble import Run, assemble
from isometry.training.loop import Trainer

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "unlabelled.json"
PAGE = HERE.parent / "docs" / "unlabelled.md"
RECIPES = HERE.parent / "recipes" / "digits"
BEGIN, END = "<!-- written by benchmarks/unlabelled.py -->", "<!-- up to here -->"
COMMAND = "OMP_NUM_THREADS=1 python benchmarks/unlabelled.py"

SEEDS = 5
ALL = "all labels"
PER_CLASS = {"10 labels a class": 10, "50 labels a class": 50, ALL: 900}
"""How many labels of each class are known, by their names in the tables."""
ALONE = World(0, 1, torch.device("cpu"))

Row = dict[str, Any]
Figures = dict[str, dict[str, float]]
"""By network, percent by what was measured."""


def recipe(name: str, **changed: Any) -> RunConfig:
    """A recipe of the digits with some options replaced."""
    return replace(parse(RunConfig, ["--config", str(RECIPES / f"{name}.yaml")]), device="cpu", **changed)


def trained(run: Run, train: MapPart | None = None) -> nn.Module:
    """A run's network after its last epoch, in eval mode; on other training images than the run's, if given."""
    sources = replace(run.sources, train=train or run.sources.train, val=None)
    trainer = Trainer(replace(run, sources=sources), None, ALONE, None, "")
    trainer.fit()
    trainer.loaders.close()
    return run.student.eval()


def save_teacher(run: Run, folder: Path) -> None:
    """As a run saves its network, with the normalisation that it was trained with."""
    spec = run.spec
    given = {"input_size": spec.input_size, "mean": spec.mean, "std": spec.std, "crop_pct": spec.crop_pct}
    save_model(run.student, folder, None, given)


def with_labels(config: RunConfig, epochs: int) -> RunConfig:
    """The student of a run on unlabelled pictures, without its teacher, with labels in its place."""
    alone = replace(config, teacher="", losses={"ce": 1}, num_classes=None, epochs=epochs)
    return replace(alone, data_dir=None, dataset="digits")


def write_pictures(part: MapPart, folder: Path) -> None:
    """The images of a part as files right inside a folder: no class folders, so no labels."""
    folder.mkdir(parents=True)
    for number in range(len(part)):
        part.load(number)[0].save(folder / f"{number:04}.png")


def few(part: MapPart, per_class: int, seed: int) -> MapPart:
    """So many images of each class of a part, drawn by the seed; all of a class that has fewer."""
    labels = np.array([part.load(number)[1] for number in range(len(part))])
    random = np.random.default_rng(derive_seed("labels", seed))
    order = random.permutation(len(labels))
    chosen = np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels)])
    assert part.numbers is not None
    return replace(part, numbers=[part.numbers[number] for number in sorted(chosen)])


def features(network: nn.Module, part: MapPart, sources: Sources) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features by name, and labels, of the digits in a part."""
    with reading(network, part, sources, recipe("student"), ALONE.device) as pairs:
        return features_of(network, pairs)


def probed(network: nn.Module, train: MapPart, sources: Sources) -> dict[str, float]:
    """k-NN and linear probe of both features (percent on the test part), fitted on the labels of ``train``."""
    assert isinstance(sources.test, MapPart)
    fitted, labels = features(network, train, sources)
    judged, right = features(network, sources.test, sources)
    found: dict[str, float] = {}
    for name in (POOLED, HEAD):
        rows = probe(fitted[name], labels, judged[name], right)
        found |= {f"{name}, {kind}": row["value"] for kind, row in rows.items()}
    return found


def own_top1(network: nn.Module, sources: Sources) -> float:
    """Top-1 of the network's own classifier, percent on the test part."""
    assert sources.test is not None
    with reading(network, sources.test, sources, recipe("student"), ALONE.device) as pairs:
        return 100 * float(predict(network, pairs).right.mean())


def of_seed(seed: int, pictures: Path, scratch: Path, say: Callable[[str], None]) -> Figures:
    """All figures of one seed."""
    sources = find_sources(recipe("student"))
    assert isinstance(sources.train, MapPart)
    found: Figures = {}

    run = assemble(recipe("teacher", seed=seed), ALONE)
    teacher = trained(run)
    folder = scratch / f"teacher-{seed}"
    save_teacher(run, folder)
    found["teacher"] = probed(teacher, sources.train, sources) | {"top1": own_top1(teacher, sources)}
    say(f"seed {seed}: teacher {found['teacher']}")

    config = recipe("unlabelled", seed=seed, data_dir=str(pictures), teacher=f"local-dir:{folder}")
    untrained = assemble(config, ALONE).student.eval()
    found["untrained"] = probed(untrained, sources.train, sources)
    found["parameters"] = {"teacher": parameter_count(teacher), "student": parameter_count(untrained)}
    unlabelled = trained(assemble(config, ALONE))
    for amount, per_class in PER_CLASS.items():
        part = few(sources.train, per_class, seed)
        found[f"no labels, probed with {amount}"] = probed(unlabelled, part, sources)
        alone = with_labels(config, config.epochs * len(sources.train) // len(part))
        student = trained(assemble(alone, ALONE), part)
        found[amount] = probed(student, sources.train, sources) | {"top1": own_top1(student, sources)}
        say(f"seed {seed}: {amount} {found[amount]}")
    return found


def main() -> None:
    torch.set_num_threads(1)
    start = time.process_time()
    with TemporaryDirectory() as scratch:
        pictures = Path(scratch) / "pictures"
        train = find_sources(recipe("student")).train
        assert isinstance(train, MapPart)
        write_pictures(train, pictures / "train")
        # A folder must have a second part; this benchmark looks at none.
        write_pictures(replace(train, numbers=list(train.numbers or [])[:2]), pictures / "val")
        seeds = [of_seed(seed, pictures, Path(scratch), print) for seed in range(SEEDS)]
    result = {
        "command": COMMAND,
        "date": date.today().isoformat(),
        "core_minutes": round((time.process_time() - start) / 60, 1),
        "device": processor(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "seeds": SEEDS,
        "figures": {name: by_kind([seed[name] for seed in seeds]) for name in seeds[0]},
    }
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_page(result)


def by_kind(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """The seeds' figures by what was measured."""
    return {kind: [round(row[kind], 2) for row in rows] for kind in rows[0]}


def write_page(result: Mapping[str, Any]) -> None:
    """Puts the tables into the page, between its two marks."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{tables(result)}\n{END}{tail}", encoding="utf-8")


def tables(result: Mapping[str, Any]) -> str:
    """The tables as markdown, with how they were made."""
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
    # Only writes the page again, from the figures that are there.
    if sys.argv[1:] == ["--page"]:
        write_page(json.loads(RESULTS.read_text(encoding="utf-8")))
    else:
        main()
