"""Training of the classifier alone: the backbone keeps its bits, buffers included."""

import pytest
import torch
from safetensors.torch import load_file

from helpers.runs import DIGITS, TINY_STUDENT, run, trainer_of
from isometry.errors import UserError

RESNET = [*DIGITS, "--model", "cifar_resnet20", "--img-size", "16"]
FROZEN = ["--freeze", "--epochs", "1", "--losses.ce", "1"]


@pytest.mark.parametrize("words", [RESNET, TINY_STUDENT], ids=["batch norm", "dropout"])
def test_the_backbone_keeps_its_bits(words):
    trainer = trainer_of(*words, *FROZEN, "--drop", "0.2", "--drop-path", "0.2", "--weight-decay", "0.5")
    before = {name: value.clone() for name, value in trainer.run.student.state_dict().items()}
    trainer.train_epoch()
    after = trainer.run.student.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(("head.", "fc."))}
    assert len(changed) == 2
    trainer.loaders.close()


def test_a_run_delivers_the_backbone_that_it_was_given(tmp_path, tiny_teacher):
    words = [*DIGITS, "--model", f"local-dir:{tiny_teacher}", *FROZEN]
    ended = run("train", *words, "--out", str(tmp_path / "run"), said=tmp_path / "said")
    assert ended.code == 0, ended.err
    before = load_file(tiny_teacher / "model.safetensors")
    after = load_file(tmp_path / "run" / "student" / "model.safetensors")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "head.weight",
        "head.bias",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-classes", "0", "--losses.ce", "1"], "no classifier"),
        (["--grow.depth", "1,2"], "a network that grows"),
    ],
)
def test_what_would_train_nothing_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        trainer_of(*TINY_STUDENT, "--freeze", "--epochs", "2", *words)


def test_terms_on_features_are_refused(tiny_teacher):
    words = [
        "--freeze",
        "--teacher",
        f"local-dir:{tiny_teacher}",
        "--losses.soft",
        "1",
        "--losses.whole",
        "1",
    ]
    with pytest.raises(UserError, match=r"--freeze: losses.whole .* --losses.whole 0"):
        trainer_of(*TINY_STUDENT, *words)
