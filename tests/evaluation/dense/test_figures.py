"""The figures of real small networks, against slow loops from the definitions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch

from isometry.data import ImageSpec
from isometry.errors import UserError
from isometry.evaluation.dense import figures
from isometry.evaluation.dense.correspondence import draw_views, right_patches, seen
from isometry.evaluation.dense.feature_extractor import BEFORE, TEACHER, TRAINED, FeatureExtractor
from isometry.evaluation.dense.figures import dense_figures
from isometry.models.teacher import InputAdapter
from oracles import dense as oracle

SPEC = ImageSpec((3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
THEIRS = ImageSpec((3, 48, 48), (0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
VIT = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
IMAGES = 24


def vit(seed: int, **more: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("vit_tiny_patch16_224", **{**VIT, "img_size": 32, **more}).eval()


def networks() -> dict[str, FeatureExtractor]:
    """A teacher of 6×6 patches over a student of 4×4."""
    teacher = vit(2, embed_dim=36, img_size=48)
    return {
        TRAINED: FeatureExtractor(vit(0)),
        BEFORE: FeatureExtractor(vit(1)),
        TEACHER: FeatureExtractor(teacher, InputAdapter(SPEC, THEIRS)),
    }


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    small = torch.rand(IMAGES, 3, 6, 6, generator=generator) * 2 - 1
    images = torch.nn.functional.interpolate(small, (32, 32), mode="bilinear")
    return images, torch.arange(IMAGES) % 5


def found_in(
    extractors: dict[str, FeatureExtractor], labelled: bool = True
) -> tuple[dict[tuple[str, str], dict], list[str]]:
    images, labels = pictures()
    batches = [(images[:7], labels[:7]), (images[7:], labels[7:])]
    rows, notes = dense_figures(extractors, batches, SPEC, labelled)
    return {(row["figure"], row["of"]): row for row in rows}, notes


@torch.no_grad()
def tokens(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Patches of the last block after the norm, (B, 4·4, C), by timm's forward alone; means over 4×4 of 6×6."""
    patches = network.forward_features(images)[:, 1:]
    side = int(patches.shape[1] ** 0.5)
    cells = patches.unflatten(1, (side, side)).movedim(3, 1)
    return torch.nn.functional.adaptive_avg_pool2d(cells, 4).flatten(2).mT


def means(network: torch.nn.Module, images: torch.Tensor) -> list[list[float]]:
    with torch.no_grad():
        return network.forward_features(images)[:, 1:].mean(1).tolist()


def as_teacher(images: torch.Tensor) -> torch.Tensor:
    plain = images * 0.5 + 0.5
    scaled = (plain - 0.4) / 0.2
    return torch.nn.functional.interpolate(scaled, (48, 48), mode="bicubic", antialias=True)


def test_all_figures_are_those_of_loops():
    extractors = networks()
    rows, notes = found_in(extractors)
    images, labels = pictures()
    own: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        name: as_teacher if name == TEACHER else (lambda same: same) for name in extractors
    }
    pooled = {name: means(each.network, own[name](images)) for name, each in extractors.items()}
    for name in extractors:
        recall, precision, _ = oracle.retrieval(pooled[name], labels.tolist())
        assert rows["recall@1", name]["value"] == pytest.approx(100 * recall[1])
        assert rows["recall@5", name]["value"] == pytest.approx(100 * recall[5])
        assert rows["mAP", name]["value"] == pytest.approx(100 * precision)
    for name in (TRAINED, BEFORE):
        row = rows["kept neighbours, images", name]
        shares = oracle.agreement(pooled[name], pooled[TEACHER], 10)
        assert (row["value"], row["k"]) == (pytest.approx(100 * np.mean(shares)), 10)
        assert row["chance"] == pytest.approx(1000 / 23)
    patches = {name: tokens(each.network, own[name](images)).tolist() for name, each in extractors.items()}
    shares = [oracle.agreement(*pair, 7) for pair in zip(patches[TRAINED], patches[TEACHER], strict=True)]
    row = rows["kept neighbours, patches", TRAINED]
    assert (row["value"], row["k"]) == (pytest.approx(100 * np.mean(shares)), 7)
    for name, each in extractors.items():
        row = rows["correspondence", name]
        assert row["value"] == pytest.approx(100 * correspondence(each.network, own[name], images))
        assert row["chance"] == 100 / 16
    assert notes == []
    for row in rows.values():
        assert row["low"] <= row["value"] <= row["high"]


def correspondence(network: torch.nn.Module, own: Callable, images: torch.Tensor) -> float:
    hits = trials = 0
    for index, image in enumerate(images):
        first, second = draw_views(index)
        ours, theirs = (
            tokens(network, own(seen(image[None], [view], SPEC)))[0].tolist() for view in (first, second)
        )
        for token, wanted in zip(ours, right_patches(first, second, (4, 4)).tolist(), strict=True):
            if wanted >= 0:
                cosines = [oracle.cosine(token, other) for other in theirs]
                trials += 1
                hits += cosines.index(max(cosines)) == wanted
    return hits / trials


def test_patches_of_several_images_together(monkeypatch):
    monkeypatch.setattr(figures, "PATCHES_TOGETHER", 50)
    extractors = networks()
    rows, _ = found_in(extractors)
    row = rows["kept neighbours, all patches", TRAINED]
    assert (row["images"], row["k"], row["chance"]) == (3, 10, pytest.approx(1000 / 47))
    order = [0, 8, 16]
    images, _ = pictures()
    ours = tokens(extractors[TRAINED].network, images)[order].flatten(0, 1).tolist()
    theirs = tokens(extractors[TEACHER].network, as_teacher(images))[order].flatten(0, 1).tolist()
    assert row["value"] == pytest.approx(100 * np.mean(oracle.agreement(ours, theirs, 10)))


def test_a_sample_of_the_images_is_the_same_for_all_networks(monkeypatch):
    monkeypatch.setattr(figures, "IMAGES_OF_PATCHES", 6)
    monkeypatch.setattr(figures, "BATCH", 4)
    rows, notes = found_in({TRAINED: FeatureExtractor(vit(0)), TEACHER: FeatureExtractor(vit(0))})
    assert rows["kept neighbours, patches", TRAINED]["value"] == 100
    assert rows["kept neighbours, images", TRAINED]["value"] == 100
    assert rows["correspondence", TRAINED]["images"] == 6
    assert rows["correspondence", TRAINED] | {"of": TEACHER} == rows["correspondence", TEACHER]
    assert rows["mAP", TRAINED]["images"] == IMAGES
    assert notes == ["figures of patches are of 6 of the 24 images"]


def test_without_labels_and_teacher():
    rows, notes = found_in({TRAINED: FeatureExtractor(vit(0))}, labelled=False)
    assert set(rows) == {("correspondence", TRAINED)}
    assert notes == ["the images have no labels, so retrieval is left out"]


def test_one_patch_is_too_few():
    network = timm.create_model("resnet18", channels=(4, 4, 4, 4), layers=(1, 1, 1, 1)).eval()
    rows, notes = found_in({TRAINED: FeatureExtractor(network)})
    assert {figure for figure, _ in rows} == {"recall@1", "recall@5", "mAP"}
    assert "1×1 patches, too few" in notes[0]


def test_classes_of_one_image_are_counted():
    images, labels = pictures()
    labels[:2] = torch.tensor([7, 8])
    rows, notes = dense_figures({TRAINED: FeatureExtractor(vit(0))}, [(images, labels)], SPEC, True)
    assert rows[0]["images"] == 22
    assert notes == ["retrieval: 2 of 24 images are alone in their class: no queries"]
    _, notes = dense_figures({TRAINED: FeatureExtractor(vit(0))}, [(images[:3], torch.arange(3))], SPEC, True)
    assert notes == ["no class has two images, so retrieval is left out"]


def test_what_can_not_be_compared_is_refused():
    images, labels = pictures()
    with pytest.raises(UserError, match="need 3 images, and the split has 2"):
        dense_figures({TRAINED: FeatureExtractor(vit(0))}, [(images[:2], labels[:2])], SPEC, True)
    broken = vit(0)
    broken.norm.bias.data[3] = float("nan")
    with pytest.raises(UserError, match=r"trained.*not all finite"):
        dense_figures({TRAINED: FeatureExtractor(broken)}, [(images, labels)], SPEC, True)


def test_every_image_is_as_likely_in_the_sample(monkeypatch):
    monkeypatch.setattr(figures, "IMAGES_OF_PATCHES", 20)
    images = torch.arange(400.0).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    batches = [(images[start : start + 30], torch.zeros(30)[: 400 - start]) for start in range(0, 400, 30)]
    found = figures._see({TRAINED: FeatureExtractor(Plain())}, batches)
    assert found.indices == sorted(set(found.indices))
    assert len(found.indices) == 20
    assert found.sample[:, 0, 0, 0].tolist() == found.indices
    assert found.pooled[TRAINED][:, 0].tolist() == list(range(400))
    assert 100 < np.mean(found.indices) < 300
    assert max(found.indices) > 300


class Plain(torch.nn.Module):
    """A network that timm has no intermediate features of: it answers with the images."""

    def forward_features(self, images):
        return images

    def forward_head(self, last, pre_logits):
        return last


def test_an_architecture_without_blocks_has_figures_of_images():
    rows, notes = found_in({TRAINED: FeatureExtractor(Plain()), TEACHER: FeatureExtractor(Plain())})
    assert rows["kept neighbours, images", TRAINED]["value"] == 100
    assert ("correspondence", TRAINED) not in rows
    assert "no intermediate features of the network (trained)" in notes[0]
