"""Every recipe loads, opens with its four lines, says its true cost, and runs in a shrink of seconds."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from helpers.cifar10_files import write_cifar10
from helpers.runs import plan_of
from helpers.scenes import FEW
from isometry.cli.arguments import parse
from isometry.cli.compare_plan import CompareConfig, make_plan
from isometry.cli.main import main
from isometry.config import RunConfig
from isometry.data import sources
from isometry.data.dense import digit_scenes
from isometry.losses import available
from isometry.models.cost import macs
from isometry.models.names import check_name
from isometry.models.spec import ModelSpec
from isometry.recipes import read_recipe, recipe_path

RECIPES = Path(__file__).parents[1] / "recipes"
ALL = sorted(RECIPES.rglob("*.yaml"))
COMPARISONS = [path for path in ALL if "variants" in read_recipe(path)]
RUNS = [path for path in ALL if path not in COMPARISONS]
IMAGENET = sorted((RECIPES / "imagenet").glob("*.yaml"))
DISTILLED = [path for path in IMAGENET if "teacher" in read_recipe(path)]
GROWN = [path for path in IMAGENET if "grow" in read_recipe(path)]
PRUNED = [path for path in RUNS if "prune" in read_recipe(path)]
CIFAR10_DENSE = {path.stem: path for path in (RECIPES / "cifar10").glob("resnet*.yaml")}
UNLABELLED = [path for path in RUNS if path.stem.startswith("unlabelled")]
IMAGES, EPOCHS = 1_281_167, 300

PLAIN = "patch_size=8 embed_dim=48 depth=4 num_heads=3"
SMALLER = {
    "deit": PLAIN,
    "cait": f"{PLAIN} depth_token_only=1",
    "resnet": "layers=[1,2,3,1] channels=[8,16,16,32]",
    "swin": "img_size=32 patch_size=2 window_size=2 embed_dim=24 depths=[1,1,2,1] num_heads=[1,2,2,4]",
    "vit_small_patch16_dinov3": PLAIN,
    "vit_tiny_patch16_224": PLAIN,
    # Has no arguments for its size; on 32 pixels it is small enough as it is.
    "mobilenetv4": "drop_rate=0",
}
"""Constructor arguments that make a small network of the same kind, by the first letters of its name."""


SMALLER_GROWTH = {
    "grow_deit_base_6_12": ["--grow.depth", "2,4"],
    "grow_deit_base_6_9_12": ["--grow.depth", "2,3,4"],
    "grow_deit_base_8_12": ["--grow.depth", "3,4"],
    "grow_deit_base_4_8_12": ["--grow.depth", "1,2,4"],
    "grow_resnet101_depth": ["--grow.depth", "1-1-1-1,1-2-3-1"],
    "grow_resnet101_width": ["--grow.width", "4-8-8-16,8-16-16-32"],
}


def name(path: Path) -> str:
    return str(path.relative_to(RECIPES))


def smaller(option: str, model: str) -> list[str]:
    sizes = next(sizes for start, sizes in SMALLER.items() if model.startswith(start))
    return [option, *sizes.split()]


def shrink(path: Path, images: Path, cifar10: Path) -> list[str]:
    """The command line that runs a recipe in seconds.

    The convention: the recipe as it is, but for one epoch; where it names ImageNet-sized
    networks, small ones of the same kind on 32 pixels; where it needs no labels, images without; where its
    teacher's weights would be fetched, a random teacher; and a teacher of the student's kind where it leaves the
    naming of one to the person.
    """
    config = parse(RunConfig, ["--config", str(path)])
    words = ["--config", str(path), "--epochs", "1", "--workers", "0", "--device", "cpu"]
    if not config.dataset:
        words += [
            "--data-dir",
            # The images of a class folder lie right inside it: by themselves they have no labels.
            str(images / "a" if path in UNLABELLED else images),
            "--img-size",
            "32",
            "-b",
            "8",
            *smaller("--student-kwargs", config.model),
        ]
    if config.dataset == "torch/cifar10":
        words += ["--data-dir", str(cifar10)]
    if path in PRUNED:
        return ["prune", *words, "--from-scratch"]
    if path in GROWN:
        # As many stages as it has, of the smaller network's sizes.
        words += ["--epochs", "3", *SMALLER_GROWTH[path.stem]]
    if config.teacher:
        words += ["--teacher-weights", "none", *smaller("--teacher-kwargs", config.teacher)]
    elif set(config.losses) - {"ce"}:
        sizes = [f"{key}={value}" for key, value in config.model_kwargs.items()]
        words += ["--teacher", config.model, "--teacher-weights", "none", "--teacher-kwargs", *sizes]
        # Of a CNN the size is no argument.
        words += [f"img_size={config.img_size}"] if "resnet" not in config.model else []
        words += [f"in_chans={config.in_chans}"]
        # Such a teacher has the student's blocks.
        if config.taps.student is not None:
            words += ["--taps.teacher", ",".join(map(str, config.taps.student))]
        config.teacher = config.model
    return ["distill" if config.teacher else "train", *words]


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of 4 classes with 6 images of 32 pixels each."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for label in "abcd":
        (folder / label).mkdir()
        for number in range(6):
            pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture
def few_digits(monkeypatch):
    """A third of the training digits, 50 to validate and to test, and few scenes of digits."""
    for part, count in FEW.items():
        monkeypatch.setattr(digit_scenes, part, count)
    parts = sources.open_digits()
    few = [
        replace(part, numbers=part.numbers[:count]) for part, count in zip(parts, (300, 50, 50), strict=True)
    ]
    monkeypatch.setattr(sources, "open_digits", lambda: few)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A folder of CIFAR-10's form with 20 images to train and 4 to test."""
    return write_cifar10(tmp_path / "cifar10", monkeypatch).root


def opening(path: Path) -> str:
    """The comment that a recipe opens with, as one text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(at for at, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.lstrip("#").strip() for line in lines[:end])


def test_there_are_the_recipes_that_are_promised():
    promised = {f"manifold_{s}_{t}" for s in ("tiny", "small") for t in ("s24", "xxs24")}
    promised |= {
        "manifold_tiny_s24_released",
        "manifold_tiny_s24_whole",
        "swin_tiny",
        "unlabelled_mobilenetv4_dinov3",
    }
    promised |= {f"grow_deit_base_{depths}" for depths in ("6_12", "6_9_12", "8_12", "4_8_12")}
    promised |= {"grow_resnet101_depth", "grow_resnet101_width", "manidp_resnet18", "manidp_resnet34"}
    assert promised == {path.stem for path in IMAGENET}
    cifar10 = {path.stem for path in (RECIPES / "cifar10").glob("manidp_*.yaml")}
    assert cifar10 == {f"manidp_resnet{depth}" for depth in (20, 32, 56)}
    assert set(CIFAR10_DENSE) == {"resnet20", "resnet32", "resnet56"}


@pytest.mark.parametrize("path", ALL, ids=name)
def test_a_recipe_opens_with_its_command_cost_and_figures(path):
    for word in ("command:", "cost:", "published:", "measured:"):
        assert len(re.findall(rf"^{word} +\S", opening(path), re.MULTILINE)) == 1, f"one line with {word}"
    assert f"--config recipes/{name(path)}" in " ".join(opening(path).split())
    measured = re.search(r"^measured: +(yes, here|no$)", opening(path), re.MULTILINE)
    assert measured


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_a_run_loads_and_names_what_there_is(path):
    config = parse(RunConfig, ["--config", str(path)])
    check_name(ModelSpec(config.model), "--model")
    if config.teacher:
        check_name(ModelSpec(config.teacher), "--teacher")
    assert set(config.losses) <= set(available())


@pytest.mark.parametrize("path", COMPARISONS, ids=name)
def test_a_comparison_loads_and_names_what_there_is(path):
    config = parse(CompareConfig, ["--config", str(path)])
    assert config.baseline in config.variants
    steps = config.teacher_recipe if isinstance(config.teacher_recipe, list) else [config.teacher_recipe]
    for recipe in (config.base, *steps, config.start_recipe):
        if isinstance(recipe, str):
            assert recipe_path(recipe, path) in RUNS
    config.out = "any"
    assert list(make_plan(config, str(path)).variants) == list(config.variants)


@pytest.mark.parametrize("path", DISTILLED, ids=name)
def test_the_cost_is_that_of_the_networks(path):
    config = parse(RunConfig, ["--config", str(path)])
    with torch.device("meta"):
        student, teacher = timm.create_model(config.model), timm.create_model(config.teacher)
    an_image = 3 * macs(student, (3, 224, 224)) + macs(teacher, (3, 224, 224))
    said = re.search(r"([\d.]+) GMACs an image .*?([\de+.]+) MACs for", opening(path), re.DOTALL)
    assert said
    assert float(said[1]) * 1e9 == pytest.approx(an_image, rel=0.005)
    assert float(said[2]) == pytest.approx(an_image * IMAGES * EPOCHS, rel=0.005)


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_the_cost_is_that_of_the_cifar_network(depth):
    path = CIFAR10_DENSE[f"resnet{depth}"]
    config = parse(RunConfig, ["--config", str(path)])
    assert config.model == f"cifar_resnet{depth}"
    with torch.device("meta"):
        an_image = 3 * macs(timm.create_model(config.model), (3, 32, 32))
    said = re.search(r"([\d.]+) GMACs an image .*?([\de+.]+) MACs for", opening(path), re.DOTALL)
    assert said
    assert float(said[1]) * 1e9 == pytest.approx(an_image, rel=0.005)
    assert float(said[2]) == pytest.approx(an_image * 50_000 * config.epochs, rel=0.005)


@pytest.mark.parametrize("path", PRUNED, ids=name)
def test_the_cost_is_that_of_the_network_that_is_pruned(path):
    config = parse(RunConfig, ["--config", str(path)])
    size, images = ((3, 32, 32), 50_000) if config.dataset else ((3, 224, 224), IMAGES)
    with torch.device("meta"):
        an_image = 3 * macs(timm.create_model(config.model), size)
    said = re.search(r"([\d.]+) GMACs an image .*?([\de+.]+) MACs for", opening(path), re.DOTALL)
    assert said
    assert float(said[1]) * 1e9 == pytest.approx(an_image, rel=0.005)
    assert float(said[2]) == pytest.approx(an_image * images * config.epochs, rel=0.005)


@pytest.mark.parametrize("path", PRUNED, ids=name)
def test_pruning_is_as_published(path):
    """METHODS of Tang et al. 2021, and timm's sgd, which has Nesterov's momentum."""
    config = parse(RunConfig, ["--config", str(path)])
    assert (config.opt, config.lr, config.sched, config.min_lr) == ("sgd", 0.05, "cosine", 0.0)
    assert config.losses == {"ce": 1, "sparsity": 5e-3, "similarity": 1}
    assert (config.prune.method, config.prune.group, config.prune.settle) == ("gates", 1, 0)
    assert config.epochs == (400 if config.dataset else 120)
    assert config.prune.keep_rate == 0.6 or path.stem != "manidp_resnet56"


@pytest.mark.parametrize("path", CIFAR10_DENSE.values(), ids=name)
def test_cifar_networks_train_as_he_trained_them(path):
    """Section 4.2 of He et al. 2016, but for a cosine over 200 epochs."""
    config = parse(RunConfig, ["--config", str(path)])
    assert (config.opt, config.momentum, config.lr, config.weight_decay) == ("sgd", 0.9, 0.1, 1e-4)
    assert (config.batch_size, config.hflip, config.color_jitter) == (128, 0.5, 0.0)
    assert (config.epochs, config.sched, config.warmup_epochs, config.min_lr) == (200, "cosine", 0, 0.0)


@pytest.mark.parametrize("path", GROWN, ids=name)
def test_the_cost_is_that_of_the_stages(path):
    config = replace(parse(RunConfig, ["--config", str(path)]), num_classes=1000)
    plan = plan_of(config)
    stages, costs = plan.schedule.stages, [row["macs"] for row in plan.costs((3, 224, 224))]
    an_image = 3 * sum(c * stage.epochs for c, stage in zip(costs, stages, strict=True)) / config.epochs
    said = re.search(
        r"([\d.]+) GMACs an image .*?([\de+.]+) MACs for.*?([\d.]+) times", opening(path), re.DOTALL
    )
    assert said
    assert float(said[1]) * 1e9 == pytest.approx(an_image, rel=0.005)
    assert float(said[2]) == pytest.approx(an_image * IMAGES * config.epochs, rel=0.005)
    assert float(said[3]) == pytest.approx(3 * costs[-1] / an_image, abs=0.005)


@pytest.mark.parametrize("path", [p for p in GROWN if "deit" in p.stem], ids=name)
def test_growth_is_as_published(path):
    """METHODS of Ding et al. 2023, with the training of DeiT-Base (arXiv:2012.12877)."""
    config = parse(RunConfig, ["--config", str(path)])
    assert config.grow.depth == path.stem.removeprefix("grow_deit_base_").replace("_", ",")
    assert config.grow.at is None
    assert (config.grow.depth_operator, config.grow.optimizer) == ("insert", "reset")
    assert (config.grow.lr, config.grow.ema) == ("continue", "restart")
    assert (config.epochs, config.sched, config.drop_path, config.model_ema) == (300, "cosine", 0.1, True)


@pytest.mark.parametrize("path", [p for p in IMAGENET if "s24" in p.stem], ids=name)
def test_the_settings_are_those_of_the_paper(path):
    """METHODS of arXiv:2107.01378v1 and of DeiT (arXiv:2012.12877)."""
    config = parse(RunConfig, ["--config", str(path)])
    assert (config.epochs, config.opt, config.weight_decay, config.warmup_epochs) == (300, "adamw", 0.05, 5)
    assert (config.lr, config.lr_base, config.lr_base_size, config.sched, config.min_lr) == (
        None,
        5e-4,
        512,
        "cosine",
        1e-5,
    )
    assert (config.mixup, config.cutmix, config.smoothing, config.reprob) == (0.8, 1.0, 0.1, 0.25)
    assert (config.aa, config.aug_repeats, config.drop_path) == ("rand-m9-mstd0.5-inc1", 3, 0.0)
    assert (config.model_ema, config.model_ema_decay, config.img_size) == (True, 0.99996, 224)
    if path.stem.count("_") == 2:
        assert config.reduction == "paper"
        assert config.losses == {
            "ce": 0.5,
            "hard": 0.5,
            "inter": 1,
            "intra": 1,
            "random": {"weight": 0.2, "k": 192},
        }
    else:
        assert config.reduction == "mean"
        assert "ce" not in config.losses


@pytest.mark.usefixtures("quick_results", "few_digits")
@pytest.mark.parametrize("path", RUNS, ids=name)
def test_a_run_runs(path, images, cifar10, tmp_path, capsys):
    assert main([*shrink(path, images, cifar10), "--out", str(tmp_path / "run")]) == 0, (
        capsys.readouterr().err
    )
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_results", "few_digits")
@pytest.mark.parametrize("path", COMPARISONS, ids=name)
def test_a_comparison_runs(path, tmp_path, capsys):
    config = parse(CompareConfig, ["--config", str(path)])
    # An epoch for each stage, where variants grow.
    epochs = 3 if any("grow" in variant for variant in config.variants.values()) else 1
    # Small images, as far as their networks take them; the recipes themselves run at full size above.
    img_size = 64 if config.tasks else 16 if config.start_recipe else 8
    batch_size = 20 if config.tasks else 300
    overrides = [f"epochs={epochs}", f"batch_size={batch_size}", "device=cpu", f"img_size={img_size}"]
    shrunk = ["--seeds", "1", "--overrides", *overrides]
    code = main(["compare", "--config", str(path), *shrunk, "--out", str(tmp_path / "all")])
    assert code == 0, capsys.readouterr().err
    with (tmp_path / "all" / "comparison.csv").open(encoding="utf-8", newline="") as file:
        names = [*(["start"] if config.start_recipe else []), *config.variants]
        names += ["teacher"] if config.tasks else []
        assert [row["variant"] for row in csv.DictReader(file)] == names
