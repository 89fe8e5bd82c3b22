"""Weights come from tensors alone: what is read, what is refused, and that a pickle is never opened."""

import argparse
import hashlib
import os
import pickle
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from isometry.errors import UserError
from isometry.files import sha256_of
from isometry.models.weights import is_online, read_weights

STATE = {"head.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.zeros(2)}


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) for k in STATE)


def test_safetensors_are_read(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert same(read_weights(tmp_path / "w.safetensors", flag="--teacher-weights"))


@pytest.mark.parametrize(
    "checkpoint",
    [
        STATE,
        {"model": STATE},
        {"model": {f"module.{k}": v for k, v in STATE.items()}},
        {"state_dict": {f"_orig_mod.{k}": v for k, v in STATE.items()}, "epoch": 3},
        {"state_dict": STATE, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {0: torch.ones(2)}}},
    ],
    ids=["plain", "deit", "ddp", "compiled", "timm"],
)
def test_checkpoints_of_tensors_are_unpacked(tmp_path, checkpoint):
    torch.save(checkpoint, tmp_path / "w.pth")
    assert same(read_weights(tmp_path / "w.pth", flag="--teacher-weights"))


def test_the_moving_average_comes_first(tmp_path):
    raw = {name: value + 1 for name, value in STATE.items()}
    torch.save({"state_dict": raw, "state_dict_ema": STATE}, tmp_path / "w.pth.tar")
    assert same(read_weights(tmp_path / "w.pth.tar", flag="--teacher-weights"))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.bin"])
@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_is_never_opened(tmp_path, name, write):
    sprung = tmp_path / "sprung"
    write({"model": STATE, "extra": Trap(sprung)}, tmp_path / name)
    with pytest.raises(UserError, match=name) as told:
        read_weights(tmp_path / name, flag="--teacher-weights")
    assert not sprung.exists()
    assert "\n" not in str(told.value)
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists(), "the trap itself works"


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x08\0\0\0\0\0\0\0{}      "])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"--teacher-weights .*{name}"):
        read_weights(tmp_path / name, flag="--teacher-weights")


def test_a_file_cut_short_is_refused(tmp_path):
    whole, cut = tmp_path / "w.safetensors", tmp_path / "cut.safetensors"
    save_file(STATE, whole)
    cut.write_bytes(whole.read_bytes()[:-4])
    with pytest.raises(UserError, match="safetensors"):
        read_weights(cut, flag="--teacher-weights")


@pytest.mark.parametrize("content", [{"lr": 0.1}, [1, 2], {"model": {"lr": 0.1}}, 3.0])
def test_a_checkpoint_without_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="state_dict"):
        read_weights(tmp_path / "w.pth", flag="--teacher-weights")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--initial-checkpoint .*gone\.pth"):
        read_weights(tmp_path / "gone.pth", flag="--initial-checkpoint")


def test_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc" * 1000)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_the_network_is_looked_up_once(monkeypatch):
    asked = []

    def nowhere(host, port):
        asked.append(host)
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr("isometry.models.weights.getproxies", dict)
    assert not is_online()
    assert len(asked) == 1
    monkeypatch.setattr("isometry.models.weights.getproxies", lambda: {"https": "http://proxy"})
    assert is_online()
