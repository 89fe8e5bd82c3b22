"""The objective as on a GPU: terms of all blocks or gated layers at once, with the values of one after another."""

import pytest
import timm
import torch
from torch import Tensor, nn

from isometry.functional import relations
from isometry.losses import base
from isometry.prune.sites import add_gates
from isometry.training.objective import Objective

TERMS = {"soft": 1, "embedding": 1, "whole": 4, "intra": 1, "inter": 0.1, "random": {"weight": 0.2, "k": 30}}


def networks(student: str, teacher: str) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    small = {"vit": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3}}
    given = small.get(student[:3], {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 24)})
    return timm.create_model(student, num_classes=5, **given), timm.create_model(
        teacher, num_classes=5, **given
    )


def results(objective: Objective) -> dict[str, Tensor]:
    """Values of the terms, and gradients by parameter."""
    generator = torch.Generator().manual_seed(3)
    found = objective.train()(torch.randn(4, 3, 32, 32, generator=generator), torch.tensor([0, 1, 2, 4]))
    found["loss"].backward()
    values = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    return values | {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


def compare(objectives: list[Objective], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = results(objectives[0])
    for module in (relations, base):
        monkeypatch.setattr(module, "launches_dominate", lambda device: True)
    at_once = results(objectives[1])
    assert alone.keys() == at_once.keys()
    for name, value in alone.items():
        torch.testing.assert_close(
            at_once[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("pair", [("vit_tiny_patch16_224",) * 2, ("resnet18", "resnet18")])
def test_distillation(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    objectives = []
    for _ in range(2):
        student, teacher = networks(*pair)
        drawing = torch.Generator().manual_seed(1)
        objectives.append(Objective(student, TERMS, teacher, generator=drawing))
    compare(objectives, monkeypatch)


def test_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    objectives = []
    for _ in range(2):
        student, _ = networks("resnet18", "resnet18")
        objectives.append(
            Objective(add_gates(student, "resnet18"), {"ce": 1, "similarity": 1, "sparsity": 0.1})
        )
    compare(objectives, monkeypatch)
