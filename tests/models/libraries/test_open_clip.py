"""Image towers of open_clip, of a small architecture that the test adds to it."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from isometry.errors import UserError
from isometry.models.libraries.base import build_external
from isometry.models.taps import TappedModel

CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 30, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def small(tmp_path: Path) -> None:
    (tmp_path / "small-clip.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(tmp_path)


def test_its_tokens_are_those_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    built = build_external("open_clip:small-clip", {}, "none", trusted=False)
    teacher: Any = built.model
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = teacher.network.forward_intermediates(images, indices=[0, 2], output_fmt="NCHW")
        _, features = TappedModel(teacher, [0, 2])(images)
    for ours, theirs in zip(features, wanted["image_intermediates"], strict=True):
        torch.testing.assert_close(ours, theirs)
    assert teacher.num_classes == 0
    assert teacher.pretrained_cfg["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert capsys.readouterr() == ("", "")


def test_weights_may_be_those_of_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = open_clip.create_model("small-clip")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    teacher: Any = build_external(
        "open_clip:small-clip", {}, str(tmp_path / "weights.pt"), trusted=False
    ).model
    for ours, theirs in zip(teacher.parameters(), model.visual.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ViT-B-61", "has no model ViT-B-61; did you mean ViT-B-16"),
        ("ViT-B-16/laion3b", "no weights laion3b for ViT-B-16; there are openai, laion400m_e31"),
        ("small-clip", "has no weights for it; give a file with --teacher-weights"),
    ],
)
def test_names_that_it_does_not_have_are_refused_with_near_ones(name: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        build_external(f"open_clip:{name}", {}, "pretrained", trusted=False)


def test_a_file_that_is_more_than_weights_is_not_opened(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"

    class Evil:
        def __reduce__(self) -> Any:
            return open, (str(mark), "w")

    torch.save({"weights": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="can't be built"):
        build_external("open_clip:small-clip", {}, str(tmp_path / "evil.pt"), trusted=False)
    assert not mark.exists()
