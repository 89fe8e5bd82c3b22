"""Runs that prune: the results of each kind, and edge cases."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isometry
from helpers.pruned_runs import SIZED, dense_run, small_network
from helpers.runs import trainer_of
from isometry.cli.main import main
from isometry.data import Batch, Preprocess
from isometry.functional.gates import layer_threshold
from isometry.prune.cutting import widths
from isometry.prune.gates import Gate, gated_convs, take_gate_outputs
from isometry.prune.saving import load_network
from isometry.prune.skipping import skipping
from isometry.report.page import render_report
from isometry.training import gate_thresholds, results
from isometry.training.checkpoint.files import load_checkpoint
from isometry.training.loop import Trainer

SLOW = pytest.mark.slow
SHORT = [*SIZED, "--batch-size", "300", "--epochs", "2"]
"""Six steps in two epochs."""


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network that is pruned."""
    return dense_run(tmp_path_factory.mktemp("dense"))


pytestmark = pytest.mark.usefixtures("quick_results")


def prune(out: Path, *words: str) -> list[dict[str, Any]]:
    """Runs `isometry prune` to its end; returns the rows of metrics."""
    assert main(["prune", *SHORT, *words, "--out", str(out)]) == 0
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def trained(out: Path) -> tuple[nn.Module, Tensor]:
    """The network that a run trained, built from its config and its best save, and all images of the test part."""
    trainer = trainer_of("--config", str(out / "config.yaml"))
    network = trainer.run.student
    network.load_state_dict(load_checkpoint(out / "best").parts["model"])
    assert trainer.loaders.test is not None
    return network.eval(), torch.cat([trainer.preprocess.normalise(b)[0] for b in trainer.loaders.test])


@torch.no_grad()
def channels_kept(network: nn.Module, images: Tensor) -> list[Tensor]:
    """How many gates of each layer are open for each image."""
    network(images)
    convs = list(gated_convs(network).values())
    glances = zip(convs, take_gate_outputs(convs), strict=True)
    return [conv.gate.kept(glance.saliency).sum(1) for conv, glance in glances]


@torch.no_grad()
def check_valid(out: Path) -> tuple[nn.Module, Tensor]:
    """The folder holds a network that can be used: as it was trained, at least a channel a layer, finite logits."""
    masked, images = trained(out)
    wanted = masked(images)
    for network in (load_network(out), isometry.load(out), isometry.load(out / "student")):
        assert not network.training
        found = network(images)
        assert found.isfinite().all()
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert all(int(kept.min()) >= 1 for kept in channels_kept(masked, images))
    return masked, images


def shape_in(out: Path) -> dict[str, Any]:
    """What the saved config says of pruning."""
    shape: dict[str, Any] = json.loads((out / "student" / "config.json").read_text())["isometry"]
    return shape


WHOLE = {"layer1.0.conv1": 8, "layer2.0.conv1": 16, "layer3.0.conv1": 16}


def test_gates(dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = prune(tmp_path / "run", "--model", str(dense), "--keep-rate", "0.5")
    masked, images = check_valid(tmp_path / "run")
    assert shape_in(tmp_path / "run") == {"group": 1, "widths": WHOLE}
    assert [row["keep_rate"] for row in rows] == pytest.approx([0.75, 0.5])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [row["role"] for row in summary] == ["start", "student"]
    assert summary[1]["macs"] < 0.7 * summary[0]["macs"]
    assert all(1 < kept.double().mean() < 16 for kept in channels_kept(masked, images))
    out = capsys.readouterr().out
    assert "before pruning" in out
    assert f"Model    local-dir:{tmp_path}/run/student" in out


def test_groups(dense: Path, tmp_path: Path) -> None:
    prune(tmp_path / "run", "--model", str(dense), "--keep-rate", "0.5", "--prune.group", "8")
    masked, _ = check_valid(tmp_path / "run")
    assert shape_in(tmp_path / "run") == {"group": 8, "widths": WHOLE}
    assert [conv.gate.excite.out_features for conv in gated_convs(masked).values()] == [1, 1, 2, 2, 2, 2]


def test_gates_of_the_moving_average(dense: Path, tmp_path: Path) -> None:
    average = ["--model-ema", "--model-ema-decay", "0.5"]
    rows = prune(tmp_path / "run", "--model", str(dense), "--keep-rate", "0.5", *average)
    masked, _ = check_valid(tmp_path / "run")
    assert "val_ema/top1" in rows[-1]
    parts = load_checkpoint(tmp_path / "run" / "last").parts
    assert torch.equal(masked.fc.weight, parts["ema"]["fc.weight"])
    assert not torch.equal(masked.fc.weight, parts["model"]["fc.weight"])


def test_a_teacher_and_gates_at_once(dense: Path, tmp_path: Path) -> None:
    rows = prune(tmp_path / "run", "--model", str(dense), "--teacher", str(dense), "--keep-rate", "0.5")
    check_valid(tmp_path / "run")
    for name in ("loss", "soft", "whole", "sparsity", "similarity"):
        assert rows[-1][f"train/{name}"] > 0, name
    weighted = {"soft": 1, "whole": 4, "sparsity": 5e-3, "similarity": 1}
    total = sum(weight * rows[-1][f"train/{name}"] for name, weight in weighted.items())
    assert rows[-1]["train/loss"] == pytest.approx(total, rel=1e-5)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [row["role"] for row in summary] == ["teacher", "start", "student"]


def test_a_network_that_was_never_trained(tmp_path: Path) -> None:
    sizes = ["--model-kwargs", "layers=[1,1,1]", "channels=[8,16,16]"]
    prune(tmp_path / "run", "--model", "cifar_resnet20", *sizes, "--from-scratch", "--keep-rate", "0.5")
    check_valid(tmp_path / "run")
    assert [row["role"] for row in json.loads((tmp_path / "run" / "summary.json").read_text())] == ["student"]


def test_filters_cut_by_their_norms(dense: Path, tmp_path: Path) -> None:
    prune(tmp_path / "run", "--model", str(dense), "--keep-rate", "0.5", "--prune.method", "l1")
    network, images = trained(tmp_path / "run")
    assert shape_in(tmp_path / "run") == {
        "group": None,
        "widths": {"layer1.0.conv1": 4, "layer2.0.conv1": 8, "layer3.0.conv1": 8},
    }
    with torch.no_grad():
        assert torch.equal(isometry.load(tmp_path / "run")(images), network(images))


def _closed_gates(self: Gate, channels: int, gates: int) -> None:
    _init(self, channels, gates)
    with torch.no_grad():
        self.excite.bias[1::2] = -100


_init = Gate.__init__


def test_channels_that_no_image_uses_are_cut_on_all_training_images(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gate, "__init__", _closed_gates)
    # Of 900 images an epoch sees 700, the others are no whole batch, and all of them are changed at random.
    words = ["--model", str(dense), "--keep-rate", "0.9", "--compact", "--batch-size", "350"]
    seen: list[Tensor] = []
    monkeypatch.setattr(results, "compact", _noting_images(seen, results.compact))
    monkeypatch.setattr(results, "render_report", render_report)
    prune(tmp_path / "run", *words)
    check_valid(tmp_path / "run")
    shape = shape_in(tmp_path / "run")
    assert shape["group"] == 1
    assert all(1 <= shape["widths"][name] <= width // 2 for name, width in WHOLE.items())
    assert widths(load_network(tmp_path / "run")) == shape["widths"]
    assert sum(map(len, seen)) == 900
    report = (tmp_path / "run" / "report.html").read_text()
    assert "channels that no training image uses" in report


def _noting_images(seen: list[Tensor], compact: Callable[..., Any]) -> Callable[..., Any]:
    def noting(network: nn.Module, batches: Any) -> Any:
        seen.extend(batches)
        return compact(network, batches)

    return noting


def test_a_folder_is_a_model_for_every_command(dense: Path, tmp_path: Path) -> None:
    """A run's, or its student's; and a run that goes on knows it under either name."""
    short = [*SHORT, "--batch-size", "450", "--epochs", "1"]
    run, student, named = str(dense), str(dense / "student"), f"local-dir:{dense}/student"
    for command, given in (
        ("train", ["--model", run]),
        ("train", ["--model", student, "--resume"]),
        ("distill", ["--student", student, "--teacher", run]),
        ("distill", ["--student", named, "--teacher", student, "--resume"]),
        ("prune", ["--model", run, "--keep-rate", "0.5"]),
        ("prune", ["--model", named, "--keep-rate", "0.5", "--resume"]),
    ):
        out = tmp_path / command
        assert main([command, *short, *given, "--out", str(out)]) == 0
        assert f"model: {named}\n" in (out / "config.yaml").read_text()


# --- what breaks others: no NaN, and always a network


def test_saliencies_that_are_all_zero(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first step on, in every layer: each is left with one channel, times 0."""

    def closed(self: Gate, channels: int, gates: int) -> None:
        _init(self, channels, gates)
        with torch.no_grad():
            self.excite.bias.fill_(-100)

    monkeypatch.setattr(Gate, "__init__", closed)
    average = ["--model-ema", "--model-ema-decay", "0.5"]
    rows = prune(tmp_path / "run", "--model", str(dense), "--keep-rate", "0.5", *average)
    masked, images = check_valid(tmp_path / "run")
    assert all((kept == 1).all() for kept in channels_kept(masked, images))
    assert rows[-1]["train/sparsity"] == 0


def test_a_class_that_no_image_has(tmp_path: Path) -> None:
    dense = dense_run(tmp_path / "dense", small_network(num_classes=12))
    prune(tmp_path / "run", "--model", str(dense), "--num-classes", "12", "--keep-rate", "0.5")
    masked, images = check_valid(tmp_path / "run")
    assert masked(images).shape == (500, 12)


@pytest.mark.parametrize(
    "more", [["--mixup", "0.5"], pytest.param(["--prune.group", "8", "--clip-grad", "1"], marks=SLOW)]
)
def test_mixed_precision(more: list[str], dense: Path, tmp_path: Path) -> None:
    words = ["--model", str(dense), "--keep-rate", "0.5", "--amp", "--losses.ce", "1"]
    rows = prune(tmp_path / "run", *words, "--losses.sparsity", "1", "--losses.similarity", "10", *more)
    check_valid(tmp_path / "run")
    assert rows[-1]["train/similarity"] > 0


def test_a_layer_with_every_channel_under_the_threshold(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_thresholds, "layer_threshold", lambda *given: 1e6 * layer_threshold(*given))
    rows = prune(tmp_path / "run", "--model", str(dense), "--keep-rate", "0.5")
    masked, images = check_valid(tmp_path / "run")
    assert all((kept == 1).all() for kept in channels_kept(masked, images))
    assert rows[-1]["train/loss"] < 100


@pytest.mark.parametrize(
    "more",
    [
        [],
        pytest.param(["--prune.group", "8"], marks=SLOW),
        pytest.param(["--compact"], marks=SLOW),
        ["--prune.method", "l1"],
    ],
)
def test_a_keep_rate_of_one_channel_a_layer(more: list[str], dense: Path, tmp_path: Path) -> None:
    prune(tmp_path / "run", "--model", str(dense), "--keep-rate", "1e-6", *more)
    masked, images = check_valid(tmp_path / "run")
    for conv in gated_convs(masked).values():
        assert conv.gate.threshold > 0
    assert all(kept.double().mean() < 8 for kept in channels_kept(masked, images))
    if "l1" in more:
        assert shape_in(tmp_path / "run")["widths"] == dict.fromkeys(WHOLE, 1)


def test_images_that_are_all_the_same(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Black ones: norms without any variance, and relations between equal rows or rows of zeros."""

    def black(self: Preprocess, batch: Batch) -> tuple[Tensor, Tensor]:
        images, labels = self.normalise(batch)
        return torch.zeros_like(images), labels

    monkeypatch.setattr(Preprocess, "__call__", black)
    rows = prune(tmp_path / "run", "--model", str(dense), "--keep-rate", "0.5")
    check_valid(tmp_path / "run")
    # Saliencies are alike, and features have no direction at all.
    assert rows[-1]["train/similarity"] == pytest.approx(6)


def test_one_image_a_step(dense: Path) -> None:
    trainer = trainer_of(*SIZED, "--model", str(dense), "--keep-rate", "0.5", "--batch-size", "1")
    trainer.objective.train()
    batches = trainer.loaders.train.epoch(0)
    for _ in range(5):
        trainer.train_step([next(batches)])
    trainer.synchronize()
    trainer.end_epoch()
    masked = trainer.objective.student.eval()
    assert skipping(masked)(torch.zeros(1, 1, 16, 16)).isfinite().all()


def test_a_rate_that_is_too_high_is_an_error_of_one_line(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(dense), "--keep-rate", "0.5", "--lr", "1e4", "--opt", "sgd"]
    assert main(["prune", *SHORT, *words, "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not finite" in line
    assert "try a smaller --lr or --clip-grad 1 in a new --out" in line
    assert not (tmp_path / "run" / "student").exists()


def test_a_saliency_that_is_not_finite_stops_the_run_before_it_sets_a_threshold(
    dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(*SIZED, "--model", str(dense), "--keep-rate", "0.5")
    gate = next(iter(gated_convs(trainer.objective.student).values())).gate
    with torch.no_grad():
        gate.excite.bias[0] = float("nan")
    sets: list[int] = []
    monkeypatch.setattr(
        gate_thresholds.GateThresholds, "set_thresholds", lambda self, epoch: sets.append(epoch)
    )
    with pytest.raises(isometry.errors.UserError, match="NaN or infinite"):
        Trainer.train_epoch(trainer)
    assert sets == []
