"""Checkpoints on disks that fill up, files that are damaged, and every optimizer's state."""

import json
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from timm.optim import create_optimizer_v2

from isometry.errors import UserError
from isometry.training.checkpoint import (
    has_checkpoint,
    join_optimizer_state,
    load_checkpoint,
    save_checkpoint,
    split_optimizer_state,
    tidy_checkpoint,
    write_atomically,
)

WEIGHTS = {
    "w": torch.arange(6.0).view(2, 3),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "n": torch.tensor(7),
}


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow past 50 kB, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 kB, where this user may mount one; else a folder, which ``small_files`` limits all the
    same.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield disk
    if mounted:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def files(folder: Path) -> list[str]:
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last", {"model": WEIGHTS, "terms": {}}, {"step": 3, "pi": 0.1 + 0.2}, "step3")
    parts, state = load_checkpoint(tmp_path / "last")
    assert state == {"step": 3, "pi": 0.1 + 0.2}
    assert list(parts) == ["model"]
    for name, tensor in WEIGHTS.items():
        assert parts["model"][name].dtype == tensor.dtype
        assert torch.equal(parts["model"][name], tensor)


def test_a_new_checkpoint_replaces_the_old_one_and_what_a_kill_left(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"model": WEIGHTS}, {}, "step1")
    (tmp_path / "model-step2.safetensors.new").write_bytes(b"half")
    save_checkpoint(tmp_path, {"model": WEIGHTS}, {}, "step2")
    assert files(tmp_path) == ["checkpoint.json", "model-step2.safetensors"]


def test_tensors_that_share_memory_are_saved_apart(tmp_path: Path) -> None:
    tied = torch.ones(3)
    save_checkpoint(tmp_path, {"model": {"a": tied, "b": tied, "c": tied[::2]}}, {}, "x")
    assert {name: t.tolist() for name, t in load_checkpoint(tmp_path)[0]["model"].items()} == {
        "a": [1, 1, 1],
        "b": [1, 1, 1],
        "c": [1, 1],
    }


@pytest.mark.parametrize("kind", ["small_files", "small_disk"])
def test_a_full_disk_leaves_the_checkpoint_before_and_nothing_else(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = (request.getfixturevalue(kind) or tmp_path) / "last"
    if kind == "small_disk":
        request.getfixturevalue("small_files")
    save_checkpoint(folder, {"model": WEIGHTS}, {"step": 1}, "step1")
    before = files(folder)
    with pytest.raises(
        UserError, match=r"could not save .*before is intact: make room and go on with --resume"
    ):
        save_checkpoint(folder, {"model": {"w": torch.zeros(50_000)}}, {"step": 2}, "step2")
    assert files(folder) == before
    assert load_checkpoint(folder)[1] == {"step": 1}


def test_a_first_save_on_a_full_disk_promises_no_checkpoint(tmp_path: Path, small_files: None) -> None:
    with pytest.raises(UserError, match="could not save") as caught:
        save_checkpoint(tmp_path, {"model": {"w": torch.zeros(50_000)}}, {}, "step1")
    assert "--resume" not in str(caught.value)
    assert files(tmp_path) == []
    assert not has_checkpoint(tmp_path)


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "config.yaml"
    write_atomically(path, "old")
    with pytest.raises(UserError, match=r"config\.yaml: could not save \(file too large\); make room"):
        write_atomically(path, "new" * 50_000)
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("checkpoint.json", b"{"),
        ("checkpoint.json", b"[]"),
        ("checkpoint.json", b"{}"),
        ("checkpoint.json", b"\xff\xfe"),
        ("checkpoint.json", b'{"files": {"model": "gone.safetensors"}}'),
        ("model-x.safetensors", b"\x80\x02}q\x00."),
        ("model-x.safetensors", b""),
    ],
)
def test_a_damaged_checkpoint_is_said_in_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"model": WEIGHTS}, {}, "x")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="the checkpoint can't be read") as caught:
        load_checkpoint(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_tidying_keeps_what_the_checkpoint_names(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"model": WEIGHTS}, {}, "step2")
    (tmp_path / "model-step1.safetensors").write_bytes(b"stale")
    tidy_checkpoint(tmp_path)
    assert files(tmp_path) == ["checkpoint.json", "model-step2.safetensors"]


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
    parts, state = load_checkpoint(tmp_path)
    other = network()
    other.load_state_dict(parts["model"])
    resumed = create_optimizer_v2(other, name, lr=1e-2, weight_decay=0.05)
    join_optimizer_state(resumed, parts.get("optimizer", {}), state["rest"])
    # Lookahead and others act every few steps.
    for seed in range(3, 11):
        step(model, optimizer, seed)
        step(other, resumed, seed)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_an_optimizer_whose_state_needs_a_pickle_is_refused() -> None:
    model = network()
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-2)
    optimizer.state[next(model.parameters())]["how"] = step
    with pytest.raises(UserError, match="needs a pickle"):
        split_optimizer_state(optimizer)


def test_the_index_can_be_read_by_a_person(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"model": WEIGHTS}, {"step": 1}, "step1")
    text = (tmp_path / "checkpoint.json").read_text()
    assert json.loads(text) == {"files": {"model": "model-step1.safetensors"}, "step": 1}
    assert len(text.splitlines()) > 3
