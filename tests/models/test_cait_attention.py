"""Talking heads: timm's function with its parameters, from fewer passes."""

import copy

import pytest
import timm
import torch
from timm.models.cait import TalkingHeadAttn

from isometry.models.cait_attention import FasterTalkingHeadAttn, use_faster_talking_heads


def attention(**kwargs) -> TalkingHeadAttn:
    """With biases that are not zero and mixing that is no identity."""
    torch.manual_seed(0)
    module = TalkingHeadAttn(24, num_heads=3, qkv_bias=True, **kwargs).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def mixed(module: torch.nn.Module) -> torch.nn.Module:
    copied = copy.deepcopy(module)
    use_faster_talking_heads(copied)
    return copied


@pytest.mark.parametrize("images", [1, 3])
def test_the_function_is_timms(images):
    ours, theirs = mixed(attention()), attention()
    assert type(ours) is FasterTalkingHeadAttn
    tokens = torch.randn(images, 7, 24, dtype=torch.float64)
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-12, atol=1e-12)


def test_each_mixing_and_the_bias_after_it_count():
    """Without any of them the result is another: the comparison above sees them."""
    tokens = torch.randn(2, 7, 24, dtype=torch.float64)
    whole = mixed(attention())(tokens)
    for name in ("proj_l.weight", "proj_w.weight", "proj_w.bias"):
        without = mixed(attention())
        torch.nn.init.zeros_(without.get_parameter(name))
        assert (without(tokens) - whole).abs().max() > 1e-3, name


def test_a_softmax_does_not_see_the_bias_before_it():
    tokens = torch.randn(2, 7, 24, dtype=torch.float64)
    module = attention()
    before = module(tokens)
    torch.nn.init.normal_(module.proj_l.bias, std=10)
    torch.testing.assert_close(module(tokens), before, rtol=1e-12, atol=1e-12)


def test_in_bfloat16_it_is_as_near_to_the_truth_as_timms():
    tokens = torch.randn(2, 49, 24)
    truth = attention()(tokens.double())
    errors = [
        (module.bfloat16()(tokens.bfloat16()).double() - truth).norm() / truth.norm()
        for module in (mixed(attention()), attention())
    ]
    assert errors[0] < 1.5 * errors[1]


def test_in_training_dropout_is_timms():
    module = attention(attn_drop=0.5).train()
    tokens = torch.randn(2, 7, 24, dtype=torch.float64)
    results = []
    for each in (module, mixed(module)):
        torch.manual_seed(1)
        results.append(each(tokens))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_a_cait_keeps_its_names_weights_and_logits():
    torch.manual_seed(0)
    small = {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3, "num_classes": 5}
    theirs = timm.create_model("cait_xxs24_224", **small).double().eval()
    ours = mixed(theirs)
    assert sum(isinstance(module, FasterTalkingHeadAttn) for module in ours.modules()) == 3
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-12, atol=1e-12)


def test_modules_of_another_kind_stay_as_they_are():
    class Other(TalkingHeadAttn):
        pass

    other = Other(24, num_heads=3)
    use_faster_talking_heads(torch.nn.Sequential(other, torch.nn.Linear(2, 2)))
    assert type(other) is Other
