"""Provenance of a run."""

import shlex
import sys

import timm
import torch

import isometry
from helpers.runs import TINY_STUDENT, trainer_of
from isometry.evaluation.environment import machine, versions
from isometry.training.provenance import provenance


def test_the_command_is_quoted_for_a_shell(monkeypatch):
    words = ["train", "--data-dir", "my photos", "--aa", "it's $HOME"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/isometry", *words])
    facts = dict(provenance(trainer_of(*TINY_STUDENT, "--epochs", "1")))
    assert shlex.split(facts["Command"]) == ["isometry", *words]
    assert facts["Seed"] == "42"
    assert "Teacher's weights" not in facts


def test_versions_and_machine_are_those_of_this_process():
    told = versions()
    for version in (isometry.__version__, torch.__version__, timm.__version__):
        assert version in told
    assert machine(torch.device("cpu")).count(", ") == 1
