"""Functions of the user's own as teachers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from isometry.errors import UserError
from isometry.models.libraries.base import build_external

MODULE = """
import timm, torch
from isometry.models.external_teacher import ExternalTeacher

def of_timm(**arguments):
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", **shape, **arguments)

class Wrapped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=16, num_heads=2, num_classes=6)
    def forward(self, images):
        return self.inner(images)

def plain():
    return Wrapped()

def adapted():
    return ExternalTeacher(of_timm(num_classes=3), (3, 32, 32), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), name="mine")

def number():
    return 5

def broken():
    raise KeyError("x")
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"teachers_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_model_of_timm_and_an_adapted_one_are_used_as_they_are(module: str) -> None:
    timms = build_external(f"python:{module}.of_timm", {"num_classes": 4}, "pretrained", trusted=True)
    assert timms.model.num_classes == 4
    mine: Any = build_external(f"python:{module}:adapted", {}, "pretrained", trusted=True).model
    assert mine.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    assert timms.notes == []


def test_of_any_other_module_what_is_taken_for_granted_is_said(module: str) -> None:
    built = build_external(f"python:{module}.plain", {}, "pretrained", trusted=True)
    model: Any = built.model
    assert (model.num_classes, len(model.feature_info)) == (6, 2)
    (note,) = built.notes
    assert "3×224×224, normalised as for ImageNet, its answer is 6 numbers an image, taken as logits" in note


def test_weights_of_a_file_replace_those_of_the_function(module: str, tmp_path: Path) -> None:
    first: Any = build_external(f"python:{module}.adapted", {}, "pretrained", trusted=True).model
    state = {name: torch.full_like(tensor, 0.5) for name, tensor in first.network.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    given = build_external(
        f"python:{module}.adapted", {}, str(tmp_path / "weights.safetensors"), trusted=True
    )
    assert all((each == 0.5).all() for each in given.model.parameters())


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (".number", "gives a int and no torch.nn.Module"),
        (".broken", "can't be built"),
        (".missing", "can't be built .*missing"),
    ],
)
def test_functions_that_give_no_teacher_are_refused_in_one_line(function: str, why: str, module: str) -> None:
    with pytest.raises(UserError, match=rf"^--teacher python:{module}{function}: [^\n]*{why}"):
        build_external(f"python:{module}{function}", {}, "pretrained", trusted=True)


@pytest.mark.parametrize(
    ("name", "why"), [("nowhere", "MODULE.FUNCTION"), ("nowhere_at.all", "nowhere_at"), ("", "name after")]
)
def test_names_that_are_none_are_refused(name: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        build_external(f"python:{name}", {}, "pretrained", trusted=True)
