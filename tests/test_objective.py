"""The objective: one task of timm's kind, with the teacher kept out of everything but the loss."""

import copy

import pytest
import timm
import torch
from timm.task import TrainingTask
from torch import nn

from isometry.errors import UserError
from isometry.losses import WholeBatch
from isometry.objective import Objective, parse_terms
from isometry.taps import TappedModel, tokens_on_grid

SMALL = {"img_size": 32, "patch_size": 8, "num_heads": 3}


def student(name="vit_tiny_patch16_224", **kwargs):
    torch.manual_seed(1)
    return timm.create_model(name, embed_dim=24, depth=3, num_classes=5, **{**SMALL, **kwargs})


def teacher(**kwargs):
    torch.manual_seed(2)
    given = {"embed_dim": 36, "depth": 4, "num_classes": 5, "init_values": 0.1, **SMALL, **kwargs}
    return timm.create_model("cait_xxs24_224", **given)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(4, 3, 32, 32, generator=generator), torch.tensor([0, 1, 2, 4])


ALL = {"ce": 1, "soft": 1, "hard": 1, "embedding": 1, "whole": 4, "intra": 1, "inter": 0.1, "random": 0.2}


def test_it_is_a_training_task_of_timm_and_returns_loss_terms_and_logits(batch):
    objective = Objective(student(), ALL, teacher(), generator=torch.Generator())
    assert isinstance(objective, TrainingTask)
    result = objective(*batch)
    assert set(result) == {"loss", "output", *ALL}
    assert result["output"].shape == (4, 5)
    expected = sum(weight * result[name] for name, weight in ALL.items())
    torch.testing.assert_close(result["loss"], expected)


def test_gradients_reach_the_students_first_layer_and_no_teacher_parameter(batch):
    small, large = student(), teacher()
    objective = Objective(small, {"whole": 1}, large)
    objective(*batch)["loss"].backward()
    assert small.patch_embed.proj.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in large.parameters())


def test_the_teacher_stays_in_eval_mode_and_leaves_no_graph(batch):
    large = teacher(drop_path_rate=0.5)
    objective = Objective(student(), {"soft": 1, "whole": 1}, large).train()
    assert not any(module.training for module in large.modules())
    logits, features = objective._ask_teacher(batch[0])
    assert not logits.requires_grad
    assert not any(feature.requires_grad for feature in features)


def test_the_teacher_is_in_no_parameters_no_state_and_no_moving_average():
    small, large = student(), teacher()
    objective = Objective(small, {"soft": 1, "whole": 1}, large)
    objective.setup_ema()
    ours = {id(parameter) for parameter in objective.parameters()}
    assert not ours & {id(parameter) for parameter in large.parameters()}
    assert set(objective.get_checkpoint_state()["state_dict"]) == set(small.state_dict())
    assert set(objective.get_checkpoint_state(ema=True)["state_dict_ema"]) == set(small.state_dict())


def test_the_teacher_is_not_run_when_no_term_needs_it(batch):
    large = teacher()
    large.forward_features = large.forward = None
    result = Objective(student(), {"ce": 1, "whole": 0}, large)(*batch)
    assert torch.isfinite(result["loss"])
    assert set(result) == {"loss", "ce", "output"}


def test_projections_train_but_are_not_part_of_the_student():
    small = student()
    names = set(small.state_dict())
    objective = Objective(small, {"embedding": 1}, teacher())
    assert set(objective.get_checkpoint_state()["state_dict"]) == names
    assert len(objective.get_task_state()) == 2 * len(objective.pairs)
    trained = sum(parameter.numel() for parameter in objective.trainable_module.parameters())
    assert trained > sum(parameter.numel() for parameter in small.parameters())


def test_state_goes_round_through_a_checkpoint(batch):
    first = Objective(student(), {"embedding": 1}, teacher())
    small, large = student(), teacher()
    torch.manual_seed(9)
    second = Objective(small, {"embedding": 1}, large)
    before = first(*batch)["loss"]
    assert second(*batch)["loss"] != before
    state = first.get_checkpoint_state()
    second.load_checkpoint_state(state["state_dict"], state["task_state"])
    assert second(*batch)["loss"] == before


@pytest.mark.parametrize(("reduction", "combine"), [("mean", torch.mean), ("paper", torch.sum)])
def test_blocks_are_averaged_or_summed(batch, reduction, combine):
    small, large = student().eval(), teacher().eval()
    objective = Objective(small, {"whole": 1}, large, reduction=reduction, taps=([0, 2], [1, 3])).eval()
    _, ours = TappedModel(small, [0, 2])(batch[0])
    _, theirs = TappedModel(large, [1, 3])(objective.teacher_view(batch[0]))
    each = torch.stack(
        [
            WholeBatch(reduction)(tokens_on_grid(a, (4, 4)), tokens_on_grid(b, (4, 4)))
            for a, b in zip(ours, theirs, strict=True)
        ]
    )
    torch.testing.assert_close(objective(*batch)["whole"], combine(each))


def test_the_teacher_gets_its_own_normalisation_and_resolution(batch):
    small = student(img_size=64)
    large = teacher()
    small.pretrained_cfg.update(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    large.pretrained_cfg.update(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    objective = Objective(small, {"soft": 1}, large)
    plain = torch.full((2, 3, 64, 64), 0.7)
    seen = objective.teacher_view((plain - 0.5) / 0.5)
    assert seen.shape == (2, 3, 32, 32)
    for channel, (mean, std) in enumerate(zip((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), strict=True)):
        torch.testing.assert_close(seen[:, channel], torch.full((2, 32, 32), (0.7 - mean) / std))


def test_a_grey_student_may_have_a_teacher_on_rgb():
    objective = Objective(student(in_chans=1), {"soft": 1, "whole": 1}, teacher())
    result = objective(torch.randn(2, 1, 32, 32), torch.tensor([0, 1]))
    assert torch.isfinite(result["loss"])


def test_channels_that_can_not_be_made_are_refused():
    with pytest.raises(UserError, match="set --in-chans 1"):
        Objective(student(), {"soft": 1}, teacher(in_chans=1))


def test_with_a_distillation_head_the_teachers_label_goes_to_it(batch):
    """DeiT: the class token learns from the labels and the distillation token from the teacher."""
    small = student("deit_tiny_distilled_patch16_224")
    large = teacher()
    objective = Objective(small, {"ce": 0.5, "hard": 0.5}, large).train()
    (logits, distilled), _ = objective.trainable_module(batch[0])
    with torch.no_grad():
        decision = large(objective.teacher_view(batch[0])).argmax(1)
    result = objective(*batch)
    torch.testing.assert_close(result["ce"], nn.functional.cross_entropy(logits, batch[1]))
    torch.testing.assert_close(result["hard"], nn.functional.cross_entropy(distilled, decision))
    torch.testing.assert_close(result["output"], (logits + distilled) / 2)
    assert objective.eval()(*batch)["output"].shape == (4, 5)


def test_the_moving_average_is_of_the_student_alone_and_follows_it():
    small = student()
    objective = Objective(small, {"random": 1, "embedding": 1}, teacher(), generator=torch.Generator())
    objective.setup_ema(decay=0.5)
    before = copy.deepcopy(small.head.weight.detach())
    with torch.no_grad():
        small.head.weight.add_(1.0)
    objective.update_ema()
    torch.testing.assert_close(objective.get_eval_model(ema=True).head.weight, before + 0.5)


def test_it_moves_with_its_teacher():
    objective = Objective(student(), {"soft": 1}, teacher()).double()
    assert next(objective.teacher.parameters()).dtype == torch.float64
    result = objective(torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1]))
    assert result["output"].dtype == torch.float64


def test_bfloat16_autocast_gives_the_same_loss_within_its_precision(batch):
    objective = Objective(student(), {"soft": 1, "whole": 4}, teacher()).eval()
    exact = objective(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = objective(*batch)
    assert rough["whole"].dtype == torch.float32
    assert rough["whole"].item() == pytest.approx(exact["whole"].item(), rel=0.05)


def test_a_compiled_objective_gives_the_same_loss(batch):
    plain = Objective(student(), {"soft": 1, "whole": 4}, teacher()).eval()
    expected = plain(*batch)["loss"]
    plain.compile(backend="eager")
    torch.testing.assert_close(plain(*batch)["loss"], expected)
    assert set(plain.get_checkpoint_state()["state_dict"]) == set(student().state_dict())


@pytest.mark.parametrize(
    ("losses", "large", "message"),
    [
        ({}, teacher(), "every term is switched off"),
        ({"whole": 0}, teacher(), "every term is switched off"),
        ({"soft": 1}, None, r"losses.soft needs a teacher; name one with --teacher, or set --losses.soft 0"),
        ({"ce": 1, "whole": 1}, None, r"losses.whole needs a teacher"),
        ({"soft": 1}, teacher(num_classes=7), "the teacher has 7 classes and the data 5"),
        ({"whole": -1}, teacher(), "must be a number of at least 0, not -1"),
        ({"whole": float("nan")}, teacher(), "must be a number of at least 0"),
        ({"hole": 1}, teacher(), "did you mean whole"),
    ],
)
def test_what_can_not_work_is_refused(losses, large, message):
    with pytest.raises(UserError, match=message):
        Objective(student(), losses, large)


def test_a_teacher_of_other_classes_may_teach_geometry(batch):
    result = Objective(student(), {"ce": 1, "whole": 1}, teacher(num_classes=7))(*batch)
    assert torch.isfinite(result["loss"])


def test_terms_carry_their_options():
    (term,) = parse_terms({"soft": {"weight": 2, "temperature": 3}, "whole": 0})
    assert (term.name, term.weight, term.options) == ("soft", 2.0, {"temperature": 3})
