"""Tokens of a frozen transformer: the same bits, in another layout, for fewer copies."""

import copy
from collections import Counter

import torch
from timm.layers.patch_embed import PatchEmbed
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.small_transformers import cait, vit
from isometry.models.taps import TappedModel
from isometry.models.token_layout import use_tokens_in_rows


class LayerNormInputs(TorchDispatchMode):
    """Counts the inputs of layer norms by whether they are contiguous: norms copy those that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.contiguous: Counter[bool] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.native_layer_norm.default:
            self.contiguous[args[0].is_contiguous()] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_norms_need_no_copies_and_bits_are_those_of_timm() -> None:
    torch.manual_seed(0)
    plain = cait().eval()
    changed = copy.deepcopy(plain)
    use_tokens_in_rows(changed)
    use_tokens_in_rows(changed)
    images = torch.randn(4, 3, 64, 64)
    logits, features = TappedModel(plain, [0, 1, 2], "NLC").eval()(images)
    with LayerNormInputs() as norms:
        found_logits, found_features = TappedModel(changed, [0, 1, 2], "NLC").eval()(images)
    assert norms.contiguous[True] >= 6
    assert norms.contiguous[False] == 0
    assert torch.equal(found_logits, logits)
    for found, wanted in zip(found_features, features, strict=True):
        assert torch.equal(found, wanted)
        assert found.is_contiguous()


def test_other_networks_stay_as_they_are() -> None:
    network = vit()
    use_tokens_in_rows(network)
    assert type(network.patch_embed) is PatchEmbed


@torch.no_grad()
def test_timm_alone_keeps_the_layout_of_the_map() -> None:
    """Once it does not, this module has nothing to do."""
    with LayerNormInputs() as norms:
        cait().eval()(torch.randn(4, 3, 64, 64))
    assert norms.contiguous[False] >= 6
