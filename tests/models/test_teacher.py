"""The teacher's type: what it computes in, and what the terms are given."""

import pytest
import timm
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.runs import TERMS, TINY_STUDENT, config_of
from helpers.small_transformers import cait, vit
from isometry.distributed import World
from isometry.errors import UserError
from isometry.evaluation.accuracy import accuracy
from isometry.evaluation.timing import images_per_second
from isometry.losses import build_loss
from isometry.recipes import config_to_yaml
from isometry.training.assemble import Run, assemble
from isometry.training.objective import Objective
from isometry.training.run_memory import memory

SIDE = 64
ALONE = World(0, 1, torch.device("cpu"))
LOSSES = {"soft": 1.0, "whole": 1.0}
TEACHERS = {"cait": cait, "resnet": lambda: timm.create_model("resnet10t", num_classes=10)}


def objective(teacher: nn.Module) -> Objective:
    torch.manual_seed(0)
    return Objective(vit(), LOSSES, teacher, img_size=SIDE).train()


def teacher_of(kind: str) -> nn.Module:
    """With weights that say something, and the statistics of a norm that has seen images."""
    torch.manual_seed(1)
    network = TEACHERS[kind]()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        network.train()(torch.randn(8, 3, SIDE, SIDE))
    return network.eval()


def images() -> torch.Tensor:
    return torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_bfloat16_teacher_says_nearly_the_same_in_its_own_type(kind):
    whole, narrow = objective(teacher_of(kind)), objective(teacher_of(kind).bfloat16())
    wanted, found = whole.teacher_output(images()), narrow.teacher_output(images())
    assert wanted.logits.dtype == found.logits.dtype == torch.float32
    torch.testing.assert_close(found.logits, wanted.logits, rtol=0.1, atol=0.1 * float(wanted.logits.std()))
    assert not torch.equal(found.logits, wanted.logits)
    for block, tokens in wanted.tokens.items():
        assert (tokens.dtype, found.tokens[block].dtype) == (torch.float32, torch.bfloat16)
        error = (found.tokens[block].float() - tokens).norm() / tokens.norm()
        assert 0 < error < 0.05
    assert narrow.student.head.weight.dtype == torch.float32


def test_the_step_is_finite_and_near_and_the_student_stays_float32():
    losses = []
    for network in (teacher_of("cait"), teacher_of("cait").bfloat16()):
        task = objective(network)
        loss = task(images(), torch.arange(4))["loss"]
        loss.backward()
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in task.student.parameters())
        losses.append(float(loss.detach()))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_narrow_teacher_computes_in_its_type_whatever_autocast_says():
    task = objective(teacher_of("cait").half())
    plain = task.teacher_output(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = task.teacher_output(images())
    assert torch.equal(plain.logits, mixed.logits)
    assert all(tokens.dtype == torch.float16 for tokens in mixed.tokens.values())
    whole = objective(teacher_of("cait"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not torch.equal(whole.teacher_output(images()).logits, plain.logits)


def run_of(*words: str) -> Run:
    teacher = ["--teacher", "cait_xxs24_224", "--teacher-weights", "none", "--teacher-kwargs", "patch_size=4"]
    teacher += ["embed_dim=32", "depth=2", "depth_token_only=1", "num_heads=2", "img_size=8", "in_chans=1"]
    return assemble(config_of(*TINY_STUDENT, *teacher, *TERMS, *words), ALONE)


def test_the_option_halves_what_a_check_says_of_the_teacher():
    whole, narrow = run_of(), run_of("--teacher-dtype", "bfloat16")
    assert memory(narrow, ALONE).teacher * 2 == memory(whole, ALONE).teacher
    assert narrow.teacher_macs == whole.teacher_macs > 0
    assert "teacher_dtype: bfloat16" in config_to_yaml(narrow.config)


def test_accuracy_and_speed_of_a_narrow_teacher():
    from isometry.data import Preprocess, make_loaders

    run = run_of("--teacher-dtype", "bfloat16")
    loaders = make_loaders(run.sources, run.config, run.spec, seed=0)
    preprocess = Preprocess(run.config, run.spec, 10, "cpu")
    found = accuracy(
        run.teacher, loaders.val, preprocess, ALONE, torch.no_grad, run.objective.teacher.adapter
    )
    assert 0 <= found["top1"] <= 100
    assert images_per_second(run.teacher, (1, 8, 8), batch_size=2, seconds=0) > 0


def test_float16_needs_a_gpu():
    with pytest.raises(UserError, match=r"--teacher-dtype float16: .*bfloat16"):
        run_of("--teacher-dtype", "float16")


def test_one_process_keeps_the_teacher_whole_and_says_so():
    run = run_of("--teacher-shard")
    assert run.notes[-1] == "--teacher-shard: there is one process, which keeps the teacher whole"
    assert memory(run, ALONE).teacher == memory(run_of(), ALONE).teacher


class Copies(TorchDispatchMode):
    """Counts operators that copy a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten.clone.default, torch.ops.aten.copy_.default)
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("kind", "copied"),
    [("cait", False), ("prefixed", False), ("resnet", True)],
    ids=["cait", "vit", "resnet"],
)
def test_tokens_are_copied_only_from_feature_maps(kind: str, copied: bool, dtype: torch.dtype) -> None:
    network = (vit() if kind == "prefixed" else teacher_of(kind)).eval().to(dtype)
    teacher = objective(network).teacher
    adapted = images().to(dtype)
    with torch.no_grad(), Copies() as of_network:
        _, features = teacher.tapped(adapted)
    with Copies() as of_teacher:
        found = teacher(images())
    # In bfloat16, one for the images and one for the logits.
    extra = of_teacher.count - of_network.count - 2 * (dtype == torch.bfloat16)
    assert extra == (len(features) if copied else 0)
    for tokens, feature in zip(found.tokens.values(), features, strict=True):
        assert tokens.stride(-1) == 1
        assert tokens.is_contiguous() == feature.is_contiguous() or copied


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["whole", "intra", "inter", "random", "embedding"])
def test_prefix_tokens_between_the_images_change_no_bit(name: str, dtype: torch.dtype) -> None:
    """Tokens read from a cache have none there."""
    draw = torch.Generator().manual_seed(4)
    student = torch.randn(9, 23, 19, generator=draw).to(dtype).requires_grad_()
    between = torch.randn(9, 25, 37, generator=draw).to(dtype)[:, 2:]
    found = []
    for tokens in (between, between.contiguous()):
        torch.manual_seed(5)
        drawing = torch.Generator().manual_seed(6)
        loss = build_loss(name, {}, student_width=19, teacher_width=37, generator=drawing).to(dtype)
        value = loss(student, tokens)
        found.append((value, *torch.autograd.grad(value, [student, *loss.parameters()])))
    assert not between.is_contiguous()
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
