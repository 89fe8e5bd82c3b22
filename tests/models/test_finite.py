"""Whether all weights are finite, in few launches and with one wait for the device; weights and answers that the user
gave and that are not finite are refused by every command."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import isometry
from helpers.messages import mentions
from helpers.runs import DIGITS, TINY_STUDENT
from isometry.cli.main import main
from isometry.errors import UserError
from isometry.models.finite import FirstLook, all_finite
from isometry.models.teacher import TeacherOutput

WAITS = "aten._local_scalar_dense"


class Calls(TorchDispatchMode):
    """The operators that are called inside the block, but for `detach`, which launches nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket is not torch.ops.aten.detach:
            self.names.append(str(function.overloadpacket))
        return function(*args, **(kwargs or {}))


def deep() -> nn.Module:
    """Two hundred tensors, statistics of norms among them."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(34)))


def mixed(value: float) -> nn.Module:
    """Tensors of several types and of no elements, and a value among them."""
    module = deep().append(nn.Linear(2, 2, dtype=torch.bfloat16))
    module.register_buffer("none", torch.empty(0))
    module.register_buffer("large", torch.tensor([3e38, -3e38] * 9))
    module.register_buffer("precise", torch.tensor([1e300, value], dtype=torch.float64))
    return module


def test_large_weights_of_any_type_are_finite() -> None:
    assert all_finite(mixed(-1e307))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_weight_that_is_not_finite_is_found(value: float) -> None:
    assert not all_finite(mixed(value))
    for number in (0, 100, -1):
        module = deep()
        tensors = [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]
        tensors[number].view(-1)[-1] = value
        assert not all_finite(module)


def test_a_module_without_weights_is_finite() -> None:
    assert all_finite(nn.ReLU())


def test_it_takes_few_launches_and_one_wait() -> None:
    module = deep()
    with Calls() as calls:
        all_finite(module)
    assert calls.names.count(WAITS) == 1
    assert len(calls.names) <= 10


# --- what the user gave
# ------------------------------------------------------------------------------------------------------

BAD = "blocks.1.mlp.fc1.weight"


def spoilt(teacher: Path, folder: Path, value: float, scale: bool = False) -> Path:
    """A copy of a saved network with one such weight; or, with finite ones, too large for its answers."""
    place = Path(shutil.copytree(teacher, folder / "network"))
    weights = load_file(place / "model.safetensors")
    if scale:
        weights["head.weight"].fill_(value)
    else:
        weights[BAD][0, 0] = value
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    return place


def refused(capsys: pytest.CaptureFixture[str], *words: str, why: str) -> None:
    code, err = main(words), capsys.readouterr().err
    assert code == 2, err
    (line,) = err.splitlines()
    assert mentions(line, why)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_every_command(
    tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    network = spoilt(tiny_teacher, tmp_path, value)
    name, file = f"local-dir:{network}", str(network / "model.safetensors")
    out = ["--out", str(tmp_path / "out"), "--epochs", "1"]
    told = f"NaN or infinite, in 1 of its tensors, e.g. {BAD}"
    for command in ("check", "distill"):
        words = [command, *TINY_STUDENT, "--teacher", name, "--losses.hard", "1", *out]
        refused(capsys, *words, why=f"--teacher {name}: … {told}")
    refused(capsys, "train", *DIGITS, "--model", name, *out, why=f"--model {name}: … {told}")
    taught = [
        "--teacher",
        "cait_xxs24_224",
        "--teacher-weights",
        file,
        "--teacher-kwargs",
        "img_size=8",
        "in_chans=1",
    ]
    taught += [
        "patch_size=4",
        "embed_dim=32",
        "depth=2",
        "depth_token_only=1",
        "num_heads=2",
        "num_classes=10",
    ]
    refused(capsys, "check", *TINY_STUDENT, *taught, why=told)
    images = ["--dataset", "digits", "--device", "cpu"]
    refused(capsys, "evaluate", str(network), *images, why=told)
    refused(capsys, "bench", str(network), *images, "--runtimes", "eager", why=told)
    refused(capsys, "export", str(network), "--to", "onnx", *images, why=told)
    refused(capsys, "export", str(network), "--to", "timm", *images, why=told)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("student"))
    with pytest.raises(UserError, match="NaN or infinite"):
        isometry.load(network)


def test_answers_that_are_not_finite_are_refused_where_they_would_be_used(
    tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finite weights whose products overflow."""
    network = spoilt(tiny_teacher, tmp_path, 3e38, scale=True)
    out = ["--out", str(tmp_path / "out"), "--epochs", "1"]
    told = "answers to … images are NaN or infinite"
    words = [*TINY_STUDENT, "--teacher", f"local-dir:{network}", "--losses.hard", "1"]
    refused(capsys, "check", *words, why=f"the teacher: … {told}")
    refused(capsys, "distill", *words, *out, why=f"the teacher: … {told}")
    refused(
        capsys,
        "train",
        *DIGITS,
        "--model",
        f"local-dir:{network}",
        *out[:1],
        f"{out[1]}2",
        why="the student: … NaN",
    )
    images = ["--dataset", "digits", "--device", "cpu"]
    refused(capsys, "evaluate", str(network), *images, why=told)
    refused(capsys, "bench", str(network), *images, "--runtimes", "eager", why=told)
    refused(capsys, "export", str(network), "--to", "onnx", *images, why=told)
    refused(capsys, "export", str(network), "--to", "timm", *images, why=told)


def test_answers_are_looked_at_once_in_training_and_once_outside() -> None:
    look, good, bad = FirstLook(), torch.zeros(2), torch.tensor([0.0, math.nan])
    look(good, TeacherOutput(good, {3: good}), training=True)
    look(bad, None, training=True)
    with pytest.raises(UserError, match="the student"):
        look((good, bad), None, training=False)
    with pytest.raises(UserError, match="the teacher"):
        FirstLook()(good, TeacherOutput(good, {3: bad}), training=True)
