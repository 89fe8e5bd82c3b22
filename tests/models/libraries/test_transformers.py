"""Teachers of transformers, in folders as its save_pretrained writes them; the oracle is its own hidden states."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from isometry.errors import UserError
from isometry.models.libraries.base import build_external
from isometry.models.taps import TappedModel

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 30,
}
STAGES: dict[str, Any] = {
    "hidden_sizes": [8, 12, 16, 20],
    "depths": [1, 1, 3, 1],
    "image_size": 64,
    "num_labels": 5,
}


def two_towers(config: Any, model: Any) -> Any:
    return model(config(text_config=dict(TEXT), vision_config=dict(SMALL)))


MODELS = {
    "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**SMALL)),
    "dinov2, registers": lambda: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**SMALL)),
    "siglip2": lambda: two_towers(hf.SiglipConfig, hf.SiglipModel),
    "clip": lambda: two_towers(hf.CLIPConfig, hf.CLIPModel),
    "vit, classes": lambda: hf.ViTForImageClassification(
        hf.ViTConfig(**SMALL, id2label={0: "cat", 1: "dog"})
    ),
    "convnext, classes": lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(**STAGES)),
}
FIRST = {"dinov2": 1, "dinov2, registers": 5, "siglip2": 0, "clip": 1, "vit, classes": 1}


def saved(name: str, folder: Path, **expected: Any) -> Any:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    model.save_pretrained(folder)
    normal = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], **expected}
    (folder / "preprocessor_config.json").write_text(json.dumps(normal))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_its_tokens_are_the_hidden_states_of_the_library(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path)
    built = build_external(f"transformers:{tmp_path}", {}, "pretrained", trusted=False)
    teacher: Any = built.model
    size = teacher.pretrained_cfg["input_size"]
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = getattr(model, "vision_model", model)(images, output_hidden_states=True)
        logits, features = TappedModel(teacher, [0, 2])(images)
    for place, feature in zip((0, 2), features, strict=True):
        wanted = output.hidden_states[place + 1]
        if name in FIRST:
            wanted = wanted[:, FIRST[name] :].mT.unflatten(2, (4, 4))
        torch.testing.assert_close(feature, wanted)
    assert (teacher.pretrained_cfg["mean"], teacher.pretrained_cfg["std"]) == (
        (0.5, 0.4, 0.3),
        (0.2, 0.3, 0.4),
    )
    assert built.notes == []
    if "classes" in name:
        torch.testing.assert_close(logits, output.logits)
    else:
        assert teacher.num_classes == 0


def test_names_of_classes_are_read(tmp_path: Path) -> None:
    saved("vit, classes", tmp_path)
    teacher: Any = build_external(f"transformers:{tmp_path}", {}, "pretrained", trusted=False).model
    assert teacher.pretrained_cfg["label_names"] == ["cat", "dog"]
    assert teacher.num_classes == 2


def test_weights_may_be_random_or_those_of_a_file(tmp_path: Path) -> None:
    model = saved("dinov2", tmp_path)
    name = f"transformers:{tmp_path}"
    torch.manual_seed(1)
    random: Any = build_external(name, {"num_hidden_layers": 2}, "none", trusted=False).model
    assert len(random.feature_info) == 2
    given: Any = build_external(name, {}, str(tmp_path / "model.safetensors"), trusted=False).model
    for ours, theirs in zip(given.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_guessed_normalisation_is_said(tmp_path: Path) -> None:
    saved("dinov2", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    (note,) = build_external(f"transformers:{tmp_path}", {}, "pretrained", trusted=False).notes
    assert "ImageNet's mean and standard deviation are used" in note


def test_images_that_are_not_normalised_have_mean_0_and_std_1(tmp_path: Path) -> None:
    saved("dinov2", tmp_path, do_normalize=False)
    teacher: Any = build_external(f"transformers:{tmp_path}", {}, "pretrained", trusted=False).model
    assert (teacher.pretrained_cfg["mean"], teacher.pretrained_cfg["std"]) == ((0.0,) * 3, (1.0,) * 3)


def without_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.norm1.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "arguments", "why"),
    [
        (without_a_weight, {}, r"weights lack .*norm1\.weight"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), {}, "can't be built"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "nonsense"}'),
            {},
            "can't be built",
        ),
        (empty, {}, "can't be built"),
        (lambda folder: None, {"colour": "red"}, "--teacher-kwargs colour"),
    ],
)
def test_what_can_not_be_built_is_refused_in_one_line(
    damage: Any, arguments: Any, why: str, tmp_path: Path
) -> None:
    saved("dinov2", tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=rf"^--teacher transformers:{tmp_path}: [^\n]*{why}[^\n]*$"):
        build_external(f"transformers:{tmp_path}", arguments, "pretrained", trusted=False)


def test_code_in_the_folder_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    imports = "from transformers import Dinov2Config\n"
    code = f"open({str(mark)!r}, 'w').close()\n{imports}class Mine(Dinov2Config):\n    pass\n"
    (tmp_path / "mine.py").write_text(code)
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}, **SMALL}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="can't be built"):
        build_external(f"transformers:{tmp_path}", {}, "none", trusted=False)
    assert not mark.exists()


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    saved("dinov2", tmp_path)
    (tmp_path / "other").mkdir()
    saved("convnext, classes", tmp_path / "other")
    with pytest.raises(UserError, match=r"its weights lack .* they are of another network"):
        build_external(
            f"transformers:{tmp_path}", {}, str(tmp_path / "other/model.safetensors"), trusted=False
        )
