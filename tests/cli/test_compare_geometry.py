"""The dense figures of a comparison's networks: right values, read again, and never those of something else."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from rich.console import Console

from helpers.scenes import FEW
from isometry.cli import compare_geometry as module
from isometry.cli.compare_geometry import FILE, Geometry, compare_geometry
from isometry.config import RunConfig
from isometry.data import find_sources
from isometry.data.dense import digit_scenes
from isometry.evaluation.dense.feature_extractor import TEACHER
from isometry.evaluation.inference import labelled_batches
from isometry.files import write_atomically
from isometry.models.build import save_model
from isometry.models.spec import image_spec
from isometry.recipes import config_to_yaml
from oracles import dense as oracle

ALONE = "retrieval: 3 of 12 images are alone in their class: no queries"
KEPT = "kept neighbours, all patches"
BASE = replace(
    RunConfig(), dataset="digit-scenes", img_size=96, in_chans=1, workers=0, crop_pct=1.0, device="cpu"
)
SIZE = {"patch_size": 16, "depth": 1, "num_heads": 2, "in_chans": 1, "img_size": 96, "num_classes": 10}


def vit(seed: int, width: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("vit_tiny_patch16_224", embed_dim=width, **SIZE).eval()


def write_run(folder: Path, seed: int, width: int = 24) -> Path:
    network = vit(seed, width)
    data = {"input_size": (1, 96, 96), "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0}
    folder.mkdir(parents=True, exist_ok=True)
    save_model(network, folder / "student", None, data)
    write_atomically(folder / "config.yaml", config_to_yaml(BASE))
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch) -> dict[str, list[Path]]:
    for name, count in FEW.items():
        monkeypatch.setattr(digit_scenes, name, count)
    write_run(tmp_path / "teacher", 9, 32)
    return {
        name: [write_run(tmp_path / name / f"seed-{seed}", first + seed) for seed in (0, 1)]
        for name, first in (("soft", 0), ("whole", 2))
    }


def found_in(runs: dict[str, list[Path]]) -> Geometry:
    teacher = runs["soft"][0].parents[1] / "teacher" / "student"
    return compare_geometry(BASE, teacher, runs, Console(quiet=True))


def forbidden(*_: object) -> None:
    raise AssertionError("figures were computed again")


@torch.no_grad()
def patches(network: torch.nn.Module) -> tuple[torch.Tensor, list[int]]:
    """Patches of the test scenes, (B, N, C), by timm's forward alone, and labels."""
    sources = find_sources(BASE)
    assert sources.test is not None
    spec = image_spec(network)
    spec = replace(spec, mean=(0.5,), std=(0.5,), crop_pct=1.0)
    with labelled_batches(sources.test, sources, spec, BASE, torch.device("cpu")) as pairs:
        images, labels = zip(*pairs, strict=True)
    return network.forward_features(torch.cat(images))[:, 1:].double(), torch.cat(labels).tolist()


def nearest(tokens_NC: torch.Tensor, count: int) -> list[set[int]]:
    unit = tokens_NC / tokens_NC.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T).numpy()
    np.fill_diagonal(cosines, -2)
    return [set(np.argsort(-row, kind="stable")[:count].tolist()) for row in cosines]


def test_figures_are_those_of_slow_computations(runs):
    geometry = found_in(runs)
    theirs, labels = patches(vit(9, 32))
    for name, first in (("soft", 0), ("whole", 2)):
        for seed in (0, 1):
            row = geometry.figures[name][seed]
            ours, _ = patches(vit(first + seed, 24))
            shares = [
                len(mine & their) / 10
                for mine, their in zip(
                    nearest(ours.flatten(0, 1), 10), nearest(theirs.flatten(0, 1), 10), strict=True
                )
            ]
            assert row[KEPT] == pytest.approx(100 * np.mean(shares), abs=0.05)
            pooled = ours.mean(1).tolist()
            shares = oracle.agreement(pooled, theirs.mean(1).tolist(), 5)
            assert row["kept neighbours, images"] == pytest.approx(100 * np.mean(shares))
            recall, precision, _ = oracle.retrieval(pooled, labels)
            assert row["recall@1"] == pytest.approx(100 * recall[1])
            assert row["mAP"] == pytest.approx(100 * precision)
    recall, precision, _ = oracle.retrieval(theirs.mean(1).tolist(), labels)
    assert [row["mAP"] for row in geometry.figures[TEACHER]] == [pytest.approx(100 * precision)] * 2
    assert KEPT not in geometry.figures[TEACHER][0]
    assert geometry.names[:3] == ["recall@1", "recall@5", "mAP"]
    assert geometry.notes == [ALONE]


def test_figures_are_read_again_with_the_same_bits(runs, monkeypatch):
    geometry = found_in(runs)
    texts = [(run / FILE).read_text() for each in runs.values() for run in each]
    with monkeypatch.context() as patched:
        patched.setattr(module, "dense_figures", forbidden)
        assert found_in(runs) == geometry
    for each in runs.values():
        for run in each:
            (run / FILE).unlink()
    assert found_in(runs) == geometry
    assert [(run / FILE).read_text() for each in runs.values() for run in each] == texts


def test_the_teacher_sees_each_image_once(runs, monkeypatch):
    seen: list[int] = []
    original = timm.models.VisionTransformer.forward_intermediates

    def counted(self, images, *words, **more):
        if self.embed_dim == 32:
            seen.append(len(images))
        return original(self, images, *words, **more)

    monkeypatch.setattr(timm.models.VisionTransformer, "forward_intermediates", counted)
    found_in({"soft": runs["soft"][:1]})
    alone = sum(seen)
    assert alone > 0
    seen.clear()
    for path in runs["soft"]:
        (path / FILE).unlink(missing_ok=True)
    found_in(runs)
    assert sum(seen) == alone


def change_network(run: Path) -> None:
    write_run(run, 7)


def change_teacher(run: Path) -> None:
    write_run(run.parents[1] / "teacher", 8, 32)


def change_format(run: Path) -> None:
    told = json.loads((run / FILE).read_text())
    (run / FILE).write_text(json.dumps({**told, "format": module.FORMAT + 1}))


def change_images(_: Path) -> None:
    digit_scenes.TEST = 10


def damage(run: Path) -> None:
    (run / FILE).write_text((run / FILE).read_text()[:-40])


def forget_figures(run: Path) -> None:
    told = json.loads((run / FILE).read_text())
    (run / FILE).write_text(json.dumps({**told, "figures": [{"figure": "mAP", "of": "trained"}]}))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (change_network, "is of another network, teacher, data or version; computed again"),
        (change_teacher, "is of another network, teacher, data or version; computed again"),
        (change_format, "is of another network, teacher, data or version; computed again"),
        (change_images, "is of another network, teacher, data or version; computed again"),
        (damage, "can't be read"),
        (forget_figures, "can't be read"),
    ],
)
def test_figures_of_something_else_are_computed_again_and_said(runs, monkeypatch, change: Callable, note):
    # Restored after the test, whatever changes it.
    monkeypatch.setattr(digit_scenes, "TEST", FEW["TEST"])
    one = {"soft": runs["soft"][:1]}
    before = found_in(one)
    change(one["soft"][0])
    after = found_in(one)
    assert [note in said for said in after.notes] == [True, False]
    assert str(one["soft"][0] / FILE) in after.notes[0]
    computed = change in (change_network, change_teacher, change_images)
    assert (after.figures != before.figures) is computed
    assert found_in(one) == Geometry(after.figures, after.notes[1:])


def test_a_network_that_diverged_is_left_out_and_said(runs, monkeypatch):
    original = module.load_network

    def diverged(folder: Path) -> torch.nn.Module:
        network = original(folder)
        if "whole" in folder.parts and "seed-1" in folder.parts:
            torch.nn.init.constant_(network.norm.weight, float("nan"))
        return network

    monkeypatch.setattr(module, "load_network", diverged)
    geometry = found_in(runs)
    assert geometry.figures["whole"][1] == {}
    assert not (runs["whole"][1] / FILE).exists()
    assert list(geometry.having(KEPT)) == ["soft"]
    left_out, alone = geometry.notes
    assert left_out.startswith(f"{runs['whole'][1]}: dense figures are left out (the features of the network")
    assert alone == ALONE


def test_a_teacher_of_original_pixels_sees_them_as_in_training(runs, tmp_path):
    network = timm.create_model(
        "vit_tiny_patch16_224", embed_dim=32, **{**SIZE, "img_size": 192, "patch_size": 32}
    )
    data = {"input_size": (1, 192, 192), "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0}
    save_model(network, tmp_path / "large", None, data)
    original = replace(BASE, teacher_pixels="original")
    one = {"soft": runs["soft"][:1]}
    found = compare_geometry(original, tmp_path / "large", one, Console(quiet=True))
    assert any("images are read at 192×192 pixels for the teacher" in note for note in found.notes)
    (one["soft"][0] / FILE).unlink()
    plain = compare_geometry(BASE, tmp_path / "large", one, Console(quiet=True))
    assert plain.figures != found.figures
