"""Distillation without labels: refused settings, `--num-classes 0`, and the page of the experiment."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch

from helpers.pruned_runs import SMALL
from helpers.runs import TINY_STUDENT, config_of, trainer_of
from isometry.config import RunConfig
from isometry.data import find_sources, without_labels
from isometry.distributed import World
from isometry.errors import UserError
from isometry.evaluation.saved_network import SavedNetwork, evaluation_images, sources_for
from isometry.evaluation.variants import measure_variants
from isometry.models.spec import image_spec
from isometry.training.assemble import assemble

ROOT = Path(__file__).parents[2]
ALONE = World(0, 1, torch.device("cpu"))
TEACHER = ["--teacher", "vit_small_patch16_dinov3", "--teacher-weights", "none"]
TEACHER += ["--teacher-kwargs", "embed_dim=32", "depth=2", "num_heads=2", "patch_size=4", "num_classes=0"]


def test_a_teacher_without_classes_has_no_soft_labels():
    words = [*TINY_STUDENT, *TEACHER, "--in-chans", "3", "--num-classes", "0", "--losses.soft", "1"]
    with pytest.raises(UserError, match=r"teacher .*0 classes"):
        assemble(config_of(*words), ALONE)


def test_without_classes_labels_are_ignored():
    trainer = trainer_of(
        *TINY_STUDENT, *TEACHER, "--in-chans", "3", "--num-classes", "0", "--losses.whole", "1"
    )
    assert trainer.run.student.num_classes == 0
    assert not trainer.run.sources.labelled
    assert "labels are not used" in trainer.run.sources.description
    # The network has fewer classes than the data: labels must not be read.
    images, _ = trainer.preprocess(next(iter(trainer.loaders.train.epoch(0))))
    assert images.shape[1:] == (3, 8, 8)


def test_a_term_on_labels_needs_classes():
    with pytest.raises(UserError, match=r"losses\.ce"):
        assemble(config_of(*TINY_STUDENT, "--num-classes", "0"), ALONE)


def test_fewer_classes_than_in_the_data_are_refused():
    with pytest.raises(UserError, match="10 classes"):
        assemble(config_of(*TINY_STUDENT, "--num-classes", "3"), ALONE)


def test_without_labels_only_the_labels_change():
    sources = find_sources(RunConfig(dataset="digits"))
    bare = without_labels(sources)
    assert (bare.train, bare.val, bare.test) == (sources.train, sources.val, sources.test)
    assert (bare.num_classes, bare.class_names, bare.labelled) == (None, None, False)
    assert without_labels(bare) == bare


def test_a_network_without_classes_is_measured_without_accuracy():
    config = RunConfig(dataset="digits", img_size=16, workers=0, validation_batch_size=250)
    network = timm.create_model("cifar_resnet20", **{**SMALL, "num_classes": 0}).eval()
    sources = sources_for(SavedNetwork("a", network), config, command="bench")
    with evaluation_images(network, sources, image_spec(network, 16), config, ALONE) as material:
        (row,) = measure_variants({"dense": network}, material, [1], 1e-6)
    assert "top1" not in row
    assert row["macs"] > 0


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return runpy.run_path(str(ROOT / "benchmarks" / "unlabelled.py"))
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_the_tables_of_the_page_are_those_of_the_results(script):
    page = (ROOT / "docs" / "unlabelled.md").read_text(encoding="utf-8")
    result = json.loads((script["RESULTS"] / "unlabelled.json").read_text(encoding="utf-8"))
    between = page.partition(script["BEGIN"])[2].partition(script["END"])[0]
    assert between.strip() == script["tables"](result).strip()
    assert result["seeds"] >= 5
    assert all(
        len(values) == result["seeds"] for row in result["figures"].values() for values in row.values()
    )


def test_the_page_is_written_between_its_marks_only(script, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{script['BEGIN']}\nold\n{script['END']}\nafter\n", encoding="utf-8")
    write = script["write_page"]
    write.__globals__["PAGE"] = page
    result = json.loads((script["RESULTS"] / "unlabelled.json").read_text(encoding="utf-8"))
    write(result)
    once = page.read_text(encoding="utf-8")
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "old" not in once
    write(result)
    assert page.read_text(encoding="utf-8") == once


def test_a_subset_has_labels_of_every_class_and_images_of_the_part(script):
    train = find_sources(RunConfig(dataset="digits")).train
    chosen = script["subset"](train, 10, seed=0)
    labels = [chosen.load(number)[1] for number in range(len(chosen))]
    assert sorted(labels) == sorted([*range(10)] * 10)
    assert set(chosen.numbers) <= set(train.numbers)
    assert chosen.numbers != script["subset"](train, 10, seed=1).numbers
    assert len(script["subset"](train, 900, seed=0)) == 900
