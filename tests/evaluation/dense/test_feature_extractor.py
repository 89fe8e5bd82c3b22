"""A cached feature extractor returns what one without a cache does."""

import pytest
import timm
import torch

from isometry.evaluation.dense import feature_extractor
from isometry.evaluation.dense.feature_extractor import CachedFeatureExtractor, FeatureExtractor


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", **size).eval()


@torch.no_grad()
def test_features_are_cached_by_their_pixels_after_the_adapter(network):
    calls: list[int] = []
    network.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    doubled = torch.nn.Module()
    doubled.forward = lambda images: 2 * images
    cache: dict = {}
    first, second = (
        CachedFeatureExtractor(network, None, cache),
        CachedFeatureExtractor(network, doubled, cache),
    )
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    wanted = FeatureExtractor(network).features(images)
    calls.clear()
    for seen, given in ((first, images), (second, images / 2), (first, images.clone())):
        found = seen.features(given)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))
    assert len(calls) == 1
    # Others, even of the same values in another shape, are not taken for them.
    other = second.features(images)[1]
    assert not torch.equal(other, wanted[1])
    assert len(calls) == 2
    first.features(images[:2])
    assert len(calls) == 3


@torch.no_grad()
def test_beyond_the_limit_nothing_is_kept(network, monkeypatch):
    monkeypatch.setattr(feature_extractor, "MOST_BYTES", 4 * (2 * 24 * 16 + 2 * 24))
    found = CachedFeatureExtractor(network)
    for seed in (0, 1, 2):
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(found.features(images)[1], FeatureExtractor(network).features(images)[1])
    assert len(found.cache) == 1
