"""Losses between images: two and four processes relate their images as one does the joined batch, or each its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from helpers.runs import as_rank, in_processes
from isometry import functional
from isometry.losses import BatchLoss, build_loss

IMAGES, STUDENT, TEACHER = 8, 10, 14
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "whole": ("whole", {}, 6),
    "whole, summed": ("whole", {"reduction": "paper"}, 6),
    "whole, centred": ("whole", {"centre": True}, 6),
    "inter, positions that divide": ("inter", {}, 8),
    "inter, positions that do not": ("inter", {}, 7),
    "inter, summed": ("inter", {"reduction": "paper"}, 7),
    "inter, fewer positions than processes": ("inter", {}, 1),
    "similarity": ("similarity", {}, 1),
}
"""The loss, its options, and tokens an image."""


def sides(tokens: int) -> tuple[Tensor, Tensor]:
    """What the student's layer gets, and the other side: (images, tokens, channels)."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(IMAGES, tokens, STUDENT, generator=generator) + 0.5
    return inputs, torch.randn(IMAGES, tokens, TEACHER, generator=generator) + 1


def layer() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(STUDENT, STUDENT)


def step(name: str, options: dict[str, Any], model: nn.Module, inputs: Tensor, other: Tensor) -> Tensor:
    """The value of the loss, whose gradients the model has then."""
    loss = build_loss(name, options).train()
    student = model(inputs)
    if name == "similarity":
        student, other = student.flatten(1).relu(), other.flatten(1)
    value = loss(student, other)
    (2 * value).backward()
    return value.detach()


def step_of_two_blocks(
    name: str, options: dict[str, Any], model: nn.Module, inputs: Tensor, other: Tensor, at_once: bool
) -> Tensor:
    """The values of the loss for two blocks, in one call or in two."""
    loss = build_loss(name, options).train()
    blocks = [(model(inputs), other), (model(inputs.flip(-1)), other.flip(-1))]
    if name == "similarity":
        blocks = [(student.flatten(1).relu(), features.flatten(1)) for student, features in blocks]
    if at_once:
        values = loss(*map(torch.stack, zip(*blocks, strict=True)))
    else:
        values = torch.stack([loss(*block) for block in blocks])
    (values * torch.tensor([2.0, 3.0])).sum().backward()
    return values.detach()


def on_rank_as_on_a_gpu(rank: int, rendezvous: str, folder: Path) -> None:
    as_rank(rank, rendezvous)
    functional.relations.launches_dominate = lambda device: True
    try:
        found = {}
        for case, (name, options, tokens) in CASES.items():
            model = DistributedDataParallel(layer())
            share = (x.chunk(2)[rank] for x in sides(tokens))
            values = step_of_two_blocks(name, options, model, *share, at_once=True)
            found[case] = (values, model.module.weight.grad, model.module.bias.grad)
        torch.save(found, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def close_to(wanted: Tensor, of_weights: Tensor) -> float:
    """An absolute tolerance, of the largest entry; of biases also that of the weights, as it may be zero in all."""
    return 1e-5 * float(max(wanted.abs().max(), of_weights.abs().max() if wanted.ndim == 1 else 0))


def test_processes_relate_the_joined_batch_of_several_blocks_at_once(tmp_path: Path) -> None:
    in_processes(2, on_rank_as_on_a_gpu, tmp_path, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for case, (name, options, tokens) in CASES.items():
        model = layer()
        values = step_of_two_blocks(name, options, model, *sides(tokens), at_once=False)
        for rank in found:
            for ours, wanted in zip(rank[case], (values, model.weight.grad, model.bias.grad), strict=True):
                atol = close_to(wanted, model.weight.grad)
                torch.testing.assert_close(
                    ours, wanted, rtol=1e-5, atol=atol, msg=lambda m, c=case: f"{c}: {m}"
                )


def on_rank(rank: int, rendezvous: str, ranks: int, relations: str, folder: Path) -> None:
    as_rank(rank, rendezvous, ranks)
    try:
        found = {}
        for case, (name, options, tokens) in CASES.items():
            model = DistributedDataParallel(layer())
            share = (x.chunk(ranks)[rank] for x in sides(tokens))
            value = step(name, {**options, "relations": relations}, model, *share)
            found[case] = (value, model.module.weight.grad, model.module.bias.grad)
        torch.save(found, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def found_by(ranks: int, relations: str, folder: Path) -> list[dict[str, tuple[Tensor, ...]]]:
    in_processes(ranks, on_rank, folder, ranks, relations, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_relate_the_joined_batch(ranks: int, tmp_path: Path) -> None:
    found = found_by(ranks, "global", tmp_path)
    for case, (name, options, tokens) in CASES.items():
        model = layer()
        value = step(name, options, model, *sides(tokens))
        for rank in found:
            for ours, wanted in zip(rank[case], (value, model.weight.grad, model.bias.grad), strict=True):
                torch.testing.assert_close(
                    ours,
                    wanted,
                    rtol=1e-5,
                    atol=close_to(wanted, model.weight.grad),
                    msg=lambda m, c=case: f"{c}: {m}",
                )


def test_processes_can_keep_to_themselves(tmp_path: Path) -> None:
    found = found_by(2, "local", tmp_path)
    for case, (name, options, tokens) in CASES.items():
        shares = [[x.chunk(2)[rank] for x in sides(tokens)] for rank in range(2)]
        models = [layer(), layer()]
        for rank, (share, model) in enumerate(zip(shares, models, strict=True)):
            torch.testing.assert_close(found[rank][case][0], step(name, options, model, *share))
        mean = (models[0].weight.grad + models[1].weight.grad) / 2
        torch.testing.assert_close(found[0][case][1], mean, rtol=1e-5, atol=1e-6)


def on_rank_alone(rank: int, rendezvous: str, folder: Path) -> None:
    as_rank(rank, rendezvous)
    # None may leave before all have met.
    dist.barrier()
    try:
        if rank == 0:
            # The other has no images left.
            loss = build_loss("whole", {}).eval()
            torch.save(loss(*sides(6)), folder / "value.pt")
    finally:
        dist.destroy_process_group()


def test_evaluation_waits_for_no_other_process(tmp_path: Path) -> None:
    in_processes(2, on_rank_alone, tmp_path, tmp_path)
    value = torch.load(tmp_path / "value.pt", weights_only=True)
    torch.testing.assert_close(value, build_loss("whole", {})(*sides(6)))


def test_the_whole_maps_traffic_does_not_depend_on_the_batch() -> None:
    whole, inter = build_loss("whole", {}), build_loss("inter", {})
    assert isinstance(whole, BatchLoss)
    assert isinstance(inter, BatchLoss)
    assert whole.sent_bytes(16, 196, 192, 384) == whole.sent_bytes(256, 196, 192, 384) == 8 * 576 * 577 // 2
    assert inter.sent_bytes(32, 196, 192, 384) == 2 * inter.sent_bytes(16, 196, 192, 384)


def on_rank_counting(rank: int, rendezvous: str, folder: Path) -> None:
    as_rank(rank, rendezvous)
    handed = [0]
    for name, place in (("all_reduce", 0), ("all_to_all_single", 1)):
        original = getattr(dist, name)

        def counting(*given: Any, original: Any = original, place: int = place, **named: Any) -> Any:
            handed[0] += (
                given[place].nbytes if given[place].dim() else 0
            )  # a scalar, inter's sum, is no traffic
            return original(*given, **named)

        setattr(dist, name, counting)
    try:
        found = {}
        for loss_name in ("whole", "inter"):
            handed[0] = 0
            inputs, other = (x.chunk(2)[rank] for x in sides(6))
            build_loss(loss_name, {}).train()(inputs.clone().requires_grad_(), other).backward()
            found[loss_name] = handed[0]
        torch.save(found, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_what_is_said_to_be_sent_is_sent(tmp_path: Path) -> None:
    in_processes(2, on_rank_counting, tmp_path, tmp_path)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found == {
            name: build_loss(name, {}).sent_bytes(IMAGES // 2, 6, STUDENT, TEACHER) for name in found
        }


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(Exception, match=r"losses\.whole\.relations 'some': must be one of global, local"):
        build_loss("whole", {"relations": "some"})
