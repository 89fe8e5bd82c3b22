"""Normalisation, erasing and mixing, against the formulas."""

from typing import Any

import pytest
import torch

from helpers.image_files import RGB16
from isometry.config import DataConfig
from isometry.data import Batch, ImageSpec, Preprocess
from isometry.errors import UserError
from isometry.seeding import seed_global_generators

CLASSES = 10


def batch_of(count: int = 8, unlabelled: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    targets = torch.full((count,), -1) if unlabelled else torch.arange(count) % CLASSES
    return Batch(images, targets, torch.arange(count), [])


def preprocess(num_classes: int | None = CLASSES, **options: Any) -> Preprocess:
    return Preprocess(DataConfig(**options), RGB16, num_classes, "cpu")


def expected(batch: Batch) -> torch.Tensor:
    """(image/255 − mean)/std, written out channel by channel in float64."""
    images = batch.images.double() / 255
    for channel in range(3):
        images[:, channel] = (images[:, channel] - RGB16.mean[channel]) / RGB16.std[channel]
    return images


def test_normalisation():
    batch = batch_of()
    for images, targets in (preprocess()(batch), preprocess(mixup=1.0, reprob=1.0).normalise(batch)):
        assert images.dtype == torch.float32
        torch.testing.assert_close(images.double(), expected(batch), rtol=0, atol=1e-6)
        torch.testing.assert_close(targets, batch.targets)


def test_the_batch_itself_is_not_changed():
    batch = batch_of()
    preprocess(mixup=1.0, reprob=1.0)(batch)
    torch.testing.assert_close(batch.images, batch_of().images, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("count", [1, 2, 7, 8])
@pytest.mark.parametrize("strengths", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_mixed_targets_are_distributions(mode: str, count: int, strengths: dict[str, float]):
    seed_global_generators(3)
    images, targets = preprocess(mixup_mode=mode, smoothing=0.1, **strengths)(batch_of(count))
    assert images.shape == (count, 3, 16, 16)
    assert targets.shape == (count, CLASSES)
    assert images.isfinite().all()
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(count))
    assert (targets > 0).all()


@pytest.mark.parametrize("count", [7, 8])
def test_mixup_is_the_convex_combination_that_its_targets_say(count: int):
    seed_global_generators(4)
    batch = batch_of(count)
    images, targets = preprocess(mixup=0.8)(batch)
    plain = expected(batch)
    share = targets[0, 0].double()  # each image has a class of its own
    assert 0 < share < 1
    even = count // 2 * 2
    mixed = share * plain[:even] + (1 - share) * plain[:even].flip(0)
    torch.testing.assert_close(images[:even].double(), mixed, rtol=0, atol=1e-5)
    torch.testing.assert_close(images[even:].double(), plain[even:], rtol=0, atol=1e-6)


def test_an_odd_batchs_last_target_is_smoothed_alone():
    seed_global_generators(4)
    _, targets = preprocess(mixup=0.8, smoothing=0.1)(batch_of(3))
    assert targets[2].tolist() == pytest.approx([0.01, 0.01, 0.91] + 7 * [0.01])


def test_images_without_labels_are_mixed_and_stay_without():
    seed_global_generators(5)
    batch = batch_of(7, unlabelled=True)
    images, targets = preprocess(num_classes=None, mixup=0.8)(batch)
    assert targets.tolist() == [-1] * 7
    assert not torch.allclose(images[:6].double(), expected(batch)[:6])


@pytest.mark.parametrize("remode", ["const", "rand", "pixel"])
def test_erasing_is_a_function_of_the_global_seed(remode: str):
    erased = []
    for seed in (6, 6, 7):
        seed_global_generators(seed)
        erased.append(preprocess(reprob=1.0, remode=remode)(batch_of())[0])
    torch.testing.assert_close(erased[0], erased[1], rtol=0, atol=0)
    assert not torch.equal(erased[0], erased[2])
    changed = (erased[0].double() - expected(batch_of())).abs() > 1e-5
    share = changed.any(dim=1).double().mean()
    assert 0.02 < share < 1 / 3


def test_erasing_probability_zero_draws_nothing():
    seed_global_generators(6)
    state = torch.get_rng_state()
    preprocess()(batch_of())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_outside_the_classes_is_named(label: int):
    batch = batch_of()
    batch.targets[3] = label
    with pytest.raises(UserError, match=f"image 3 .*{label}.*10 classes"):
        preprocess()(batch)


def test_spec_from_a_models_configuration():
    cfg = {"input_size": (3, 224, 224), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.3, 0.4), "crop_pct": 0.9}
    spec = ImageSpec.from_pretrained_cfg({**cfg, "interpolation": "bilinear", "crop_mode": "squash"}, 96)
    assert spec == ImageSpec((3, 96, 96), (0.5, 0.5, 0.5), (0.2, 0.3, 0.4), "bilinear", 0.9, "squash")
    assert ImageSpec.from_pretrained_cfg(cfg).input_size == (3, 224, 224)


def test_spec_of_a_network_of_one_channel_averages_the_colours():
    cfg = {"input_size": (1, 8, 8), "mean": (0.2, 0.4, 0.6), "std": (0.1, 0.2, 0.3)}
    spec = ImageSpec.from_pretrained_cfg(cfg)
    assert spec.mean == pytest.approx((0.4,))
    assert spec.std == pytest.approx((0.2,))


def test_spec_of_an_empty_configuration_is_imagenets():
    spec = ImageSpec.from_pretrained_cfg({})
    assert spec.input_size == (3, 224, 224)
    assert spec.mean == pytest.approx((0.485, 0.456, 0.406))
