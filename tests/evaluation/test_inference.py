"""Predictions and features of networks of several kinds."""

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F

from helpers.pruned_runs import small_network
from isometry.config import RunConfig
from isometry.data import find_sources
from isometry.evaluation.inference import HEAD, POOLED, features_of, labelled_batches, predict
from isometry.models.spec import image_spec

PLAIN = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
NETWORKS = {
    "vit_tiny_patch16_224": PLAIN,
    "vit_small_patch16_dinov3": {**PLAIN, "embed_dim": 32},
    "cait_xxs24_224": {**PLAIN, "depth_token_only": 1},
    "swin_tiny_patch4_window7_224": {
        **{"img_size": 32, "patch_size": 2, "window_size": 2, "embed_dim": 24},
        **{"depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)},
    },
    "resnet10t": {},
    "mobilenetv4_conv_small": {},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
}


def network(name: str, **more):
    torch.manual_seed(0)
    return timm.create_model(name, **{**NETWORKS[name], "num_classes": 7, **more}).eval()


def batches(count: int = 3, size: int = 4, channels: int = 3):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, size, channels, 32, 32, generator=generator)
    labels = torch.randint(0, 7, (count, size), generator=generator)
    return list(zip(images, labels, strict=True))


@pytest.mark.parametrize("classes", [3, 7])
def test_predictions_are_those_of_the_network(classes):
    model = network("resnet10t", num_classes=classes)
    pairs = [(images, labels % classes) for images, labels in batches()]
    found = predict(model, pairs)
    with torch.no_grad():
        logits = model(torch.cat([images for images, _ in pairs]))
    labels = torch.cat([labels for _, labels in pairs])
    assert found.classes == classes
    assert found.labels.tolist() == labels.tolist()
    assert found.predictions.tolist() == logits.argmax(1).tolist()
    assert found.confidences == pytest.approx(logits.softmax(1).amax(1).numpy(), rel=1e-4)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert found.within_five.tolist() == (ranks < 5).tolist()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("classes", [0, 7])
def test_features_of_networks_with_and_without_a_classifier(name, classes):
    model = network(name, num_classes=classes)
    features, labels = features_of(model, batches())
    assert labels.tolist() == torch.cat([labels for _, labels in batches()]).tolist()
    assert POOLED in features
    for found in features.values():
        assert found.shape[0] == 12
        assert found.ndim == 2
        assert np.isfinite(found).all()
        assert np.ptp(found, axis=0).max() > 0


def test_features_before_the_head_are_the_input_of_the_head():
    model = network("vit_tiny_patch16_224")
    features, _ = features_of(model, batches())
    images = torch.cat([images for images, _ in batches()])
    with torch.no_grad():
        logits = F.linear(torch.from_numpy(features[HEAD]), model.head.weight, model.head.bias)
        assert torch.allclose(logits, model(images), atol=1e-4)
        # After the final norm, without the class token.
        patches = model.forward_features(images)[:, 1:].mean(1)
    assert torch.allclose(torch.from_numpy(features[POOLED]), patches, atol=1e-5)


def test_equal_features_are_returned_once():
    assert set(features_of(network("resnet10t"), batches())[0]) == {POOLED}
    assert set(features_of(network("mobilenetv4_conv_small"), batches())[0]) == {POOLED, HEAD}


def test_pooled_features_exclude_prefix_tokens():
    """A change of the class token does not change pooled features."""
    model = network("vit_tiny_patch16_224")
    before, _ = features_of(model, batches())
    with torch.no_grad():
        block = model.blocks[-1]
        original = block.forward

        def nudged(x, *args, **kwargs):
            x = original(x, *args, **kwargs)
            x[:, 0] += torch.linspace(-3, 3, x.shape[-1])
            return x

        block.forward = nudged
    after, _ = features_of(model, batches())
    assert np.array_equal(after[POOLED], before[POOLED])
    assert not np.allclose(after[HEAD], before[HEAD])


def test_an_architecture_without_intermediate_features_has_those_before_its_head():
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = network("resnet10t")

        def forward_features(self, images):
            return self.model.forward_features(images)

        def forward_head(self, features, pre_logits=False):
            return self.model.forward_head(features, pre_logits=pre_logits)

    features, _ = features_of(Bare().eval(), batches())
    wanted, _ = features_of(network("resnet10t"), batches())
    assert set(features) == {HEAD}
    assert np.allclose(features[HEAD], wanted[POOLED], rtol=1e-4, atol=1e-5)


def test_a_split_is_read_in_order_without_augmentation():
    config = RunConfig(dataset="digits", img_size=16, workers=0, batch_size=128, crop_pct=1.0)
    sources, spec = find_sources(config), image_spec(small_network(), 16)
    with labelled_batches(sources.train, sources, spec, config, torch.device("cpu")) as pairs:
        images, labels = (torch.cat(column) for column in zip(*pairs, strict=True))
    assert images.shape == (900, *spec.input_size)
    assert labels.tolist() == [sources.train.load(number)[1] for number in range(900)]
    with labelled_batches(sources.train, sources, spec, config, torch.device("cpu")) as pairs:
        assert torch.equal(next(pairs)[0], images[:128])
