"""The objective as a timm training task; the teacher is part of nothing but the loss."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.task import TrainingTask
from torch import Tensor, nn

import isometry.losses.base
from helpers.runs import as_rank, in_two_processes
from isometry.errors import UserError
from isometry.losses import Loss, WholeBatch
from isometry.losses.base import INPUTS, Input, parse_terms
from isometry.models.taps import TappedModel, tokens_on_grid
from isometry.models.teacher import BatchPosition
from isometry.prune.gates import gated_convs, take_gate_outputs
from isometry.prune.sites import add_gates
from isometry.training.objective import Objective
from oracles import gates as oracle

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
    output = objective.teacher_output(batch[0])
    assert not output.logits.requires_grad
    assert not any(tokens.requires_grad for tokens in output.tokens.values())


def test_another_source_of_teacher_outputs_gets_the_batch_and_its_position(batch):
    objective = Objective(student(), {"soft": 1, "whole": 1}, teacher()).train()
    position, seen = BatchPosition(2, 50), []

    def source(input, position=None):
        seen.append((input, position))
        return objective.teacher(input)

    torch.manual_seed(0)
    loss = objective(*batch)["loss"]
    objective.teacher_source = source
    torch.manual_seed(0)
    assert torch.equal(objective(*batch, position)["loss"], loss)
    objective(*batch)
    assert [(input is batch[0], given) for input, given in seen] == [(True, position), (True, None)]


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
    _, theirs = TappedModel(large, [1, 3])(objective.teacher.adapter(batch[0]))
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
    seen = objective.teacher.adapter((plain - 0.5) / 0.5)
    assert seen.shape == (2, 3, 32, 32)
    for channel, (mean, std) in enumerate(zip((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), strict=True)):
        torch.testing.assert_close(seen[:, channel], torch.full((2, 32, 32), (0.7 - mean) / std))


def test_a_teacher_that_takes_any_size_gets_the_one_it_was_trained_on():
    """On images half as large it would answer too, and be right by chance alone."""
    convolutional = timm.create_model("cifar_resnet20", num_classes=5)
    objective = Objective(student(img_size=64), {"soft": 1}, convolutional, img_size=64)
    assert objective.teacher.adapter(torch.zeros(2, 3, 64, 64)).shape == (2, 3, 32, 32)


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
    (logits, distilled), _, _ = objective.trainable_module(batch[0])
    with torch.no_grad():
        decision = large(objective.teacher.adapter(batch[0])).argmax(1)
    result = objective(*batch)
    torch.testing.assert_close(result["ce"], nn.functional.cross_entropy(logits, batch[1]))
    torch.testing.assert_close(result["hard"], nn.functional.cross_entropy(distilled, decision))
    torch.testing.assert_close(result["output"], (logits + distilled) / 2)
    assert objective.eval()(*batch)["output"].shape == (4, 5)


@pytest.mark.parametrize("term", ["ce", "soft"])
def test_one_kind_of_label_trains_both_heads_because_the_answer_is_their_mean(batch, term):
    small = student("deit_tiny_distilled_patch16_224")
    objective = Objective(small, {term: 1}, teacher()).train()
    objective(*batch)["loss"].backward()
    assert small.head.weight.grad.abs().sum() > 0
    torch.testing.assert_close(small.head.weight.grad.sum(), small.head_dist.weight.grad.sum())
    assert (small.head.bias.grad == small.head_dist.bias.grad).all()


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
    assert next(objective.teacher.model.parameters()).dtype == torch.float64
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


def test_a_teacher_of_other_classes_works_with_terms_on_tokens(batch):
    result = Objective(student(), {"ce": 1, "whole": 1}, teacher(num_classes=7))(*batch)
    assert torch.isfinite(result["loss"])


def test_terms_carry_their_options():
    (term,) = parse_terms({"soft": {"weight": 2, "temperature": 3}, "whole": 0})
    assert (term.name, term.weight, term.options) == ("soft", 2.0, {"temperature": 3})


@pytest.mark.parametrize("name", ["loss", "output", "saliencies", "cross_entropy"])
def test_a_term_may_not_have_the_name_of_another_result(name):
    with pytest.raises(UserError, match=rf"losses\.{name}"):
        parse_terms({name: 1})


class EasyImages(Loss):
    """A loss of somebody's own: the share of images that the student gets nearly right."""

    inputs = ("student_logits", "cross_entropy")

    def forward(self, logits_BK: Tensor, cross_entropy_B: Tensor) -> Tensor:
        return (logits_BK.logsumexp(1) * torch.exp(-cross_entropy_B)).mean()


def test_cross_entropies_are_there_for_students_without_gates_too(batch, monkeypatch):
    found = {**isometry.losses.base.available(), "easy": EasyImages}
    monkeypatch.setattr(isometry.losses.base, "available", lambda: found)
    objective = Objective(student(), {"easy": 1})
    result = objective(*batch)
    assert objective.needs_labels
    entropies = nn.functional.cross_entropy(result["output"], batch[1], reduction="none")
    torch.testing.assert_close(result["easy"], EasyImages()(result["output"], entropies))
    assert set(result) == {"loss", "easy", "output"}


# --- students with gates

LAYERS = 6
GATED = {"ce": 1.0, "sparsity": 5e-3, "similarity": 1.0}


def gated(**more):
    """Three blocks of two gated convolutions, with gates that look at the image."""
    torch.manual_seed(4)
    network = timm.create_model("cifar_resnet20", layers=(1, 1, 1), num_classes=5, **more)
    add_gates(network, "cifar_resnet20", group=4)
    for conv in gated_convs(network).values():
        nn.init.normal_(conv.gate.excite.weight)
        conv.gate.threshold.fill_(0.5)
    return network


def pruning(losses=GATED, network=None, large=None):
    """An objective after an epoch: images of a cross-entropy below 1.5 are easy."""
    objective = Objective(network or gated(), losses, large, img_size=32)
    if "sparsity" in losses:
        objective.losses["sparsity"][0].limit.fill_(1.5)
    return objective


def test_terms_on_gates_are_summed_over_the_layers(batch):
    network = gated()
    result = pruning(network=network)(*batch)
    network(batch[0])
    glances = take_gate_outputs(list(gated_convs(network).values()))
    assert len(glances) == LAYERS
    entropies = nn.functional.cross_entropy(result["output"], batch[1], reduction="none")
    assert min(entropies) < 1.5 < max(entropies), "there are easy images and hard ones"
    saliencies = [glance.saliency.detach() for glance in glances]
    expected = oracle.sparsity(saliencies, entropies.tolist(), 1.5, 1.0)
    assert result["sparsity"].item() == pytest.approx(expected, rel=1e-4)
    expected = oracle.similarity([(pi, x.pooled.detach()) for pi, x in zip(saliencies, glances, strict=True)])
    assert result["similarity"].item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(result["loss"], sum(weight * result[name] for name, weight in GATED.items()))


def test_every_declared_input_is_computed_as_often_as_its_scope_says(batch):
    objective = pruning({"soft": 1, "whole": 1, **GATED}, large=teacher())
    outputs, teacher_output = objective.trainable_module(batch[0]), objective.teacher_output(batch[0])
    inputs = objective._loss_inputs(outputs, teacher_output, batch[1])
    assert inputs.keys() == INPUTS.keys()
    lengths = {"block": len(objective.pairs), "layer": LAYERS}
    for name, value in inputs.items():
        scope = INPUTS[name].scope
        assert isinstance(value, Tensor) if scope == "batch" else len(value) == lengths[scope], name


def test_a_new_input_needs_its_declaration_and_its_value(batch, monkeypatch):
    monkeypatch.setitem(INPUTS, "token_norms", Input("block", needs_teacher=True))

    class Norms(Loss):
        """The mean norm of the student's tokens."""

        inputs = ("token_norms", "labels")

        def forward(self, norms: Tensor, labels: Tensor) -> Tensor:
            return norms.mean() + 0 * labels.sum()

    def loss_inputs(self, *args):
        inputs = compute(self, *args)
        return inputs | {"token_norms": [tokens.norm(dim=2) for tokens in inputs["student_tokens"]]}

    compute = Objective._loss_inputs
    monkeypatch.setattr(Objective, "_loss_inputs", loss_inputs)
    monkeypatch.setattr(isometry.losses.base, "available", lambda: {"norms": Norms})
    objective = Objective(student(), {"norms": 1}, teacher(), taps=([0, 2], [1, 3]))
    assert objective.needs_labels
    _, features, _ = objective.trainable_module(batch[0])
    expected = torch.stack([tokens.norm(dim=2).mean() for tokens in features]).mean()
    torch.testing.assert_close(objective(*batch)["norms"], expected)
    with pytest.raises(UserError, match=r"losses\.norms needs a teacher"):
        Objective(student(), {"norms": 1})


@pytest.mark.parametrize("reduction", ["mean", "paper"])
def test_layers_are_summed_for_every_reduction(batch, reduction):
    plain = pruning({"similarity": 1})(*batch)
    other = Objective(gated(), {"similarity": 1}, reduction=reduction)(*batch)
    torch.testing.assert_close(other["similarity"], plain["similarity"])


def test_a_gated_student_also_gives_saliencies_and_cross_entropies_without_gradient(batch):
    result = pruning()(*batch)
    assert set(result) == {"loss", "output", "saliencies", "cross_entropy", *GATED}
    assert [tuple(each.shape) for each in result["saliencies"]] == [
        (4, g // 4) for g in (16, 16, 32, 32, 64, 64)
    ]
    entropies = nn.functional.cross_entropy(result["output"], batch[1], reduction="none")
    torch.testing.assert_close(result["cross_entropy"], entropies.detach())
    assert not any(each.requires_grad for each in (*result["saliencies"], result["cross_entropy"]))


def test_saliencies_do_not_depend_on_the_terms(batch):
    result = pruning({"ce": 1})(*batch)
    assert len(result["saliencies"]) == LAYERS
    assert (result["cross_entropy"] > 0).all()


def test_labels_that_no_term_needs_may_be_no_classes(batch):
    result = pruning({"similarity": 1})(batch[0], torch.full((4,), -1))
    assert torch.isfinite(result["loss"])
    assert result["cross_entropy"].tolist() == [0] * 4


def test_labels_may_be_mixed(batch):
    mixed = torch.full((4, 5), 0.2)
    result = pruning()(batch[0], mixed)
    torch.testing.assert_close(result["cross_entropy"].mean(), result["ce"])


@pytest.mark.parametrize("name", ["sparsity", "similarity"])
def test_terms_on_gates_teach_the_gates(batch, name):
    network = gated()
    pruning({name: 1}, network)(*batch)["loss"].backward()
    for conv in gated_convs(network).values():
        assert conv.gate.excite.weight.grad.abs().sum() > 0


def test_a_gated_student_is_distilled_at_the_same_time(batch):
    losses = {"soft": 1, "whole": 4, **GATED}
    objective = pruning(losses, large=teacher())
    result = objective(*batch)
    assert len(objective.pairs) == 4
    torch.testing.assert_close(result["loss"], sum(weight * result[name] for name, weight in losses.items()))
    torch.testing.assert_close(result["similarity"], pruning()(*batch)["similarity"])


def test_no_graph_is_kept_after_a_step_and_the_objective_can_be_copied(batch):
    objective = pruning()
    result = objective(*batch)
    result["loss"].backward()
    assert all(conv.gate_output is None for conv in gated_convs(objective.student).values())
    other = copy.deepcopy(objective)
    ours, theirs = (list(gated_convs(each.student).values()) for each in (objective, other))
    assert all(a is b for a, b in zip(other.trainable_module.gated, theirs, strict=True))
    assert not any(a is b for a, b in zip(ours, theirs, strict=True))
    torch.testing.assert_close(other.eval()(*batch)["loss"], objective.eval()(*batch)["loss"])


def test_validation_between_steps_changes_no_step(batch):
    objective = pruning().eval()
    before = objective(*batch)["loss"]
    with torch.inference_mode():
        objective.get_eval_model()(torch.randn(7, 3, 32, 32))
    torch.testing.assert_close(objective(*batch)["loss"], before)


def test_a_compiled_gated_objective_gives_the_same_terms_and_gradients(batch):
    plain, compiled = pruning(), pruning()
    compiled.compile(backend="eager")
    found, expected = compiled(*batch), plain(*batch)
    for name in ("loss", *GATED):
        torch.testing.assert_close(found[name], expected[name])
    torch.testing.assert_close(found["saliencies"], expected["saliencies"])
    for result in (found, expected):
        result["loss"].backward()
    for ours, theirs in zip(compiled.student.parameters(), plain.student.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert set(compiled.get_checkpoint_state()["state_dict"]) == set(gated().state_dict())


def test_the_limit_of_easy_images_is_saved_with_the_terms_and_not_with_the_student():
    objective = pruning()
    state = objective.get_checkpoint_state()
    assert not any("limit" in name for name in state["state_dict"])
    other = Objective(gated(), GATED)
    other.load_checkpoint_state(state["state_dict"], state["task_state"])
    assert other.losses["sparsity"][0].limit == 1.5


def test_thresholds_are_in_the_moving_average():
    objective = pruning()
    objective.setup_ema(decay=0.5)
    averaged = gated_convs(objective.get_eval_model(ema=True))
    assert [float(conv.gate.threshold) for conv in averaged.values()] == [0.5] * LAYERS


def test_double_precision_reaches_the_gates(batch):
    result = pruning().double()(batch[0].double(), batch[1])
    assert result["output"].dtype == torch.float64
    assert torch.isfinite(result["loss"])


def test_bfloat16_autocast_keeps_saliencies_and_their_terms_exact_types(batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = pruning()(*batch)
        result["loss"].backward()
    assert result["output"].dtype == torch.bfloat16
    found = [*result["saliencies"], result["cross_entropy"], *(result[name] for name in GATED)]
    assert {tensor.dtype for tensor in found} == {torch.float32}


@pytest.mark.parametrize("name", ["sparsity", "similarity"])
def test_terms_on_gates_are_refused_without_gates(name):
    told = rf"losses.{name} needs a model with gates; use isometry prune, or set --losses.{name} 0"
    with pytest.raises(UserError, match=told) as error:
        Objective(student(), {"ce": 1, name: 1})
    assert "\n" not in str(error.value)
    assert set(Objective(student(), {"ce": 1, name: 0}).losses) == {"ce"}


def step(task: Objective, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """A step's terms and gradients, with the norms as they are: over half a batch they would learn other things."""
    task.eval().losses.train()  # terms relate the images of all processes in training only
    result = task(images, labels)
    result["loss"].backward()
    named = task.get_trainable_module().named_parameters()
    gradients = {name.removeprefix("module."): parameter.grad for name, parameter in named}
    return {name: result[name].detach() for name in ("loss", *GATED)} | gradients


def eight() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(3)), torch.arange(8) % 5


def half_a_step(rank: int, rendezvous: str, out: str) -> None:
    """What one of two processes gets."""
    world = as_rank(rank, rendezvous)
    task = pruning()
    task.prepare_distributed()
    images, labels = eight()
    found = step(task, images[rank::2], labels[rank::2])
    for name in ("loss", *GATED):
        found[name] = world.mean(found[name])
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, f"{out}/{rank}.safetensors")
    world.close()


def test_two_processes_take_the_pruning_step_of_one(tmp_path: Path) -> None:
    in_two_processes(half_a_step, tmp_path, str(tmp_path))
    wanted = step(pruning(), *eight())
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(
                found[name], tensor, rtol=1e-3, atol=1e-5, msg=lambda told, name=name: f"{name}: {told}"
            )


def test_student_and_teacher_are_two_networks():
    """Else the teacher's freezing would freeze the student."""
    network = student()
    with pytest.raises(ValueError, match="student and teacher are one network"):
        Objective(network, {"soft": 1}, network)
    sharing = student()
    sharing.head = network.head
    with pytest.raises(ValueError, match="or share weights"):
        Objective(network, {"soft": 1}, sharing)
    assert all(parameter.requires_grad for parameter in network.parameters())
    Objective(network, {"soft": 1}, copy.deepcopy(network))
