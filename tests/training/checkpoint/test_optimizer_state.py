"""Every optimizer's state, taken apart, saved, and put together again."""

from pathlib import Path

import pytest
import torch
from timm.optim import create_optimizer_v2

from isometry.errors import UserError
from isometry.training.checkpoint.files import load_checkpoint, save_checkpoint
from isometry.training.checkpoint.optimizer_state import join_optimizer_state, split_optimizer_state


def network() -> torch.nn.Module:
    """Matrices and vectors, for optimizers that treat them apart."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 4))


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    """One step on random data."""
    optimizer.zero_grad()
    model(torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
    optimizer.step()


OPTIMIZERS = (
    "sgd momentum adamw nadamw lamb lambc lion adafactor adopt madgrad rmsproptf muon mars lookahead_adamw"
)


@pytest.mark.parametrize("name", OPTIMIZERS.split())
def test_an_optimizer_that_was_taken_apart_goes_on_bitwise(name: str, tmp_path: Path) -> None:
    model = network()
    optimizer = create_optimizer_v2(model, name, lr=1e-2, weight_decay=0.05)
    for seed in range(3):
        step(model, optimizer, seed)
    tensors, rest = split_optimizer_state(optimizer)
    save_checkpoint(tmp_path, {"optimizer": tensors, "model": model.state_dict()}, {"rest": rest}, "x")
    saved = load_checkpoint(tmp_path)
    other = network()
    other.load_state_dict(saved.parts["model"])
    resumed = create_optimizer_v2(other, name, lr=1e-2, weight_decay=0.05)
    join_optimizer_state(resumed, saved.parts.get("optimizer", {}), saved.state["rest"])
    # Lookahead and others act every few steps.
    for seed in range(3, 11):
        step(model, optimizer, seed)
        step(other, resumed, seed)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("forms", [(True, True), (False, True), (True, False)], ids=str)
@pytest.mark.parametrize("name", ["adamw", "momentum"])
def test_a_run_goes_on_bitwise_in_the_form_that_it_was_saved_in(
    name: str, forms: tuple[bool, bool], tmp_path: Path
) -> None:
    """Fused or not: whichever form the optimizer that takes over was built in."""
    models = network(), network()
    optimizers = [
        create_optimizer_v2(model, name, lr=1e-2, weight_decay=0.05, fused=fused)
        for model, fused in zip(models, forms, strict=True)
    ]
    for seed in range(3):
        step(models[0], optimizers[0], seed)
    tensors, rest = split_optimizer_state(optimizers[0])
    save_checkpoint(tmp_path, {"optimizer": tensors, "model": models[0].state_dict()}, {"rest": rest}, "x")
    saved = load_checkpoint(tmp_path)
    models[1].load_state_dict(saved.parts["model"])
    join_optimizer_state(optimizers[1], saved.parts["optimizer"], saved.state["rest"])
    assert [group["fused"] for group in optimizers[1].param_groups] == [forms[0]] * 2
    for seed in range(3, 6):
        for model, optimizer in zip(models, optimizers, strict=True):
            step(model, optimizer, seed)
    for one, two in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, two)


def test_an_optimizer_whose_state_needs_a_pickle_is_refused() -> None:
    model = network()
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-2)
    optimizer.state[next(model.parameters())]["how"] = step
    with pytest.raises(UserError, match="pickle"):
        split_optimizer_state(optimizer)
