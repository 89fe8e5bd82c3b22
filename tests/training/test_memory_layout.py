"""Channels last: the same losses, another layout in memory, and nothing of it in what is saved."""

import signal
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from helpers.runs import DIGITS, disturb, left_alone, signalled_at_step, trainer_of
from isometry.errors import UserError
from isometry.training.memory_layout import set_memory_format
from isometry.training.objective import Objective

RESNETS = ["--student", "cifar_resnet20", "--teacher", "cifar_resnet32", "--teacher-weights", "none"]
RESNETS += ["--teacher-kwargs", "in_chans=1", "--losses.soft", "1", "--losses.whole", "1", "--losses.ce", "1"]


def wide_convolutions(network: nn.Module) -> list[torch.Tensor]:
    """Weights whose layout is no matter of view."""
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    return [weight for weight in weights if weight.shape[1] > 1 and weight.shape[2] > 1]


def test_both_networks_have_the_layout_and_the_losses_stay_the_same():
    values = []
    for option in ([], ["--channels-last"]):
        trainer = trainer_of(*DIGITS, *RESNETS, "--epochs", "1", *option)
        for network in (trainer.run.student, trainer.run.teacher):
            weights = wide_convolutions(network)
            assert weights
            assert all(w.is_contiguous(memory_format=torch.channels_last) == bool(option) for w in weights)
        (batches, *_) = trainer.batches.groups(0, 0)
        trainer.train_step(batches)
        values.append(dict(trainer.meter.means(1)))
    assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_feature_maps_have_the_layout_too():
    trainer = trainer_of(*DIGITS, *RESNETS, "--epochs", "1", "--channels-last")
    maps = []
    last = [module for module in trainer.run.student.modules() if isinstance(module, nn.Conv2d)][-1]
    last.register_forward_hook(lambda module, inputs, output: maps.append(output))
    trainer.objective(torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3]))
    assert maps[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_a_run_that_stops_and_resumes_ends_with_the_same_bits_and_saves_the_usual_layout(tmp_path: Path):
    words = ["train", *DIGITS, "--model", "cifar_resnet20", "--channels-last", "--epochs", "1"]
    wanted, _ = left_alone(words, tmp_path)
    student = timm.create_model(f"local-dir:{tmp_path / 'run' / 'student'}", pretrained=True)
    assert all(weight.is_contiguous() for weight in student.parameters())
    again = tmp_path / "again"
    again.mkdir()
    disturb(words, again, wanted, signalled_at_step(3, signal.SIGTERM), code=0)


def test_weights_of_five_dimensions_are_refused_in_words():
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten())
    network.num_classes = 2
    with pytest.raises(UserError, match=r"--channels-last: not possible here .*leave it out"):
        set_memory_format(Objective(network, {"ce": 1}), torch.channels_last)
