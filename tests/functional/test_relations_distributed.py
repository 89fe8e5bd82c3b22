"""Two processes that share the tokens return the gap of one that has them all, and its gradient."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from helpers.runs import as_rank, in_processes
from isometry.functional import gram_gap, relations

SPLITS = {"even": (600, 600), "uneven": (1000, 200)}
RANKS = 2


def tokens() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(1200, 24, generator=generator) + 2
    return shared, shared @ torch.randn(24, 32, generator=generator)


def layer() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(24, 16)


def on_rank(rank: int, rendezvous: str, split: tuple[int, ...], folder: Path, as_on_a_gpu: bool) -> None:
    as_rank(rank, rendezvous)
    if as_on_a_gpu:
        relations.launches_dominate = lambda device: True
    try:
        inputs, teacher = (x.split(split)[rank] for x in tokens())
        student = inputs.clone().requires_grad_()
        teacher = teacher.clone().requires_grad_()
        value = gram_gap(student, teacher, group=dist.group.WORLD)
        value.backward()
        model = DistributedDataParallel(layer())
        gram_gap(model(inputs), teacher.detach(), group=dist.group.WORLD).backward()
        found = {
            "value": value.detach(),
            "student": student.grad,
            "teacher": teacher.grad,
            "weight": model.module.weight.grad,
        }
        torch.save(found, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("as_on_a_gpu", [False, True])
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_two_processes_equal_one(split: tuple[int, ...], as_on_a_gpu: bool, tmp_path: Path) -> None:
    in_processes(RANKS, on_rank, tmp_path, split, tmp_path, as_on_a_gpu)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]

    inputs, teacher = tokens()
    student = inputs.clone().requires_grad_()
    teacher.requires_grad_()
    value = gram_gap(student, teacher)
    value.backward()
    assert torch.equal(found[0]["value"], found[1]["value"])
    torch.testing.assert_close(found[0]["value"], value.detach())
    for name, tensor in (("student", student), ("teacher", teacher)):
        parts = torch.cat([rank[name] for rank in found])
        torch.testing.assert_close(parts, RANKS * tensor.grad, rtol=1e-5, atol=1e-6)

    model = layer()
    gram_gap(model(inputs), teacher.detach()).backward()
    for rank in found:
        torch.testing.assert_close(rank["weight"], model.weight.grad, rtol=1e-4, atol=1e-4)


def test_token_maps_cannot_be_spread(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        student, teacher = tokens()
        with pytest.raises(ValueError, match="group"):
            gram_gap(student, teacher, form="tokens", group=dist.group.WORLD)
        alone = gram_gap(student[:8], teacher[:8], group=dist.group.WORLD)
        torch.testing.assert_close(alone, gram_gap(student[:8], teacher[:8]))
    finally:
        dist.destroy_process_group()
