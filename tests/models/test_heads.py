"""Second heads: those of timm's distilled architectures are trained as such; any other is refused in one line."""

import pytest
import timm
import torch
from torch import nn

from isometry.errors import UserError
from isometry.models.build import build_model
from isometry.models.heads import as_logits
from isometry.models.spec import ModelSpec
from isometry.models.taps import TappedModel

DISTILLED = {
    "deit_tiny_distilled_patch16_224": {"img_size": 64, "embed_dim": 24, "depth": 1, "num_heads": 3},
    "pit_ti_distilled_224": {"img_size": 64},
    "levit_128s": {"img_size": 64},
    "efficientformer_l1": {},
    "efficientformerv2_s0": {},
    "swiftformer_xs": {},
    "repvit_m0_9": {"distillation": True},
    "iformer_t": {"distillation": True},
    "efficientvim_m1_dist": {},
}
"""Every architecture of timm 1.0.31 that can return two logits, in a small size; those that it lacks are left out."""


@pytest.mark.parametrize("name", [name for name in DISTILLED if timm.is_model(name)])
def test_both_logits_of_a_distilled_architecture_in_training_and_their_mean_in_evaluation(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **DISTILLED[name]).train()
    model.set_distilled_training(True)
    side = DISTILLED[name].get("img_size", 224)
    images = torch.randn(2, 3, side, side)
    first, second = as_logits(model, model(images))
    assert first.shape == second.shape == (2, 5)
    assert not torch.equal(first, second)
    assert as_logits(model.eval(), model(images)).shape == (2, 5)


def test_the_auxiliary_head_of_inception_is_refused_for_student_and_teacher():
    for flag in ("--model", "--teacher"):
        with pytest.raises(UserError) as caught:
            build_model(ModelSpec("inception_v3", {"aux_logits": True}), flag=flag)
        assert str(caught.value).startswith(
            f"{flag} inception_v3: has an auxiliary head, which no loss here trains"
        )
    network, _ = build_model(ModelSpec("inception_v3", num_classes=5))
    assert network.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 5)


class AuxiliaryInTraining(nn.Module):
    """As torchvision's Inception: a second head's logits in training only."""

    def __init__(self):
        super().__init__()
        self.fc, self.aux = nn.Linear(4, 5), nn.Linear(4, 5)

    def forward(self, x):
        return (self.fc(x), self.aux(x)) if self.training else self.fc(x)


def test_another_second_head_is_no_distillation_head():
    model = TappedModel(AuxiliaryInTraining(), [])
    assert model.eval()(torch.zeros(2, 4))[0].shape == (2, 5)
    with pytest.raises(UserError, match="returns more than its logits and has no distillation head"):
        model.train()(torch.zeros(2, 4))
