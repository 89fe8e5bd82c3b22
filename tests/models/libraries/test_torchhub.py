"""Networks of torch.hub, from a folder with a hubconf.py, which is what its cache holds of a repository."""

from pathlib import Path
from typing import Any

import pytest

from isometry.errors import UserError
from isometry.models.libraries.base import build_external

HUBCONF = """
import timm
dependencies = ["timm"]
open({mark!r}, "w").close()

def small(pretrained=True, **arguments):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2,
                              num_classes=3, **arguments)
    model.asked_for = pretrained
    return model
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "hubconf.py").write_text(HUBCONF.format(mark=str(tmp_path / "it ran")))
    return tmp_path


@pytest.mark.parametrize(("weights", "asked_for"), [("pretrained", True), ("none", False)])
def test_a_function_of_a_hubconf_gives_the_teacher(weights: str, asked_for: bool, repository: Path) -> None:
    model: Any = build_external(f"torchhub:{repository}:small", {}, weights, trusted=True).model
    assert (model.num_classes, model.asked_for) == (3, asked_for)


def test_nothing_runs_without_the_users_word(repository: Path) -> None:
    with pytest.raises(UserError, match=r"runs code that it names.*give --trust-remote-code with --teacher"):
        build_external(f"torchhub:{repository}:small", {}, "pretrained", trusted=False)
    assert not (repository / "it ran").exists()


@pytest.mark.parametrize(
    ("name", "weights", "why"),
    [
        ("{}:large", "pretrained", "can't be built .*large"),
        ("{}", "pretrained", "OWNER/REPOSITORY:NAME|can't be built"),
        ("{}:small", "file.safetensors", "come with their own"),
        ("nobody/nothing:small", "pretrained", "can't be built"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(
    name: str, weights: str, why: str, repository: Path
) -> None:
    with pytest.raises(UserError, match=rf"^--teacher torchhub:[^\n]*{why}[^\n]*$"):
        build_external(f"torchhub:{name.format(repository)}", {}, weights, trusted=True)
