"""What an export says of its images is enough to judge it: the accuracy that it claims, from its metadata alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import ExifTags, Image, ImageOps

from helpers.exported import export
from helpers.messages import mentions
from isometry.models.build import save_model

ARCHITECTURES = {
    "center": "vit_tiny_patch16_224",
    "squash": "vit_medium_patch16_gap_384",
    "border": "deepseek_vit_412m",
}
"""One for each of timm's crop modes, which it has by default."""
SIZES = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 32}
CLASSES = [str(number) for number in range(5)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled images, wide and high, whose edges differ from their middle; half of them turned by EXIF."""
    root, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    exif = Image.Exif()
    for number in range(240):
        size = (72, 40) if number % 3 else (40, 60)
        pixels = generator.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        exif[ExifTags.Base.Orientation] = 6 if number % 2 else 1
        path = root / ("train" if number < 40 else "val") / CLASSES[number % 5] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path, exif=exif, quality=95)
    return root


def folder_of(place: Path, crop_mode: str) -> Path:
    """A random network in a folder; its crop mode is that of its architecture."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = timm.create_model(ARCHITECTURES[crop_mode], **SIZES, num_classes=len(CLASSES)).eval()
        for parameter in network.parameters():
            parameter.data.normal_(0, 0.3)
    assert network.pretrained_cfg["crop_mode"] == crop_mode
    save_model(network, place, CLASSES, {"input_size": (3, 32, 32), "crop_pct": 0.9})
    return place


def answers(root: Path, told: dict[str, Any], run, **changed: Any) -> dict[Path, str]:
    """The class that ``run`` gives each validation image, prepared by timm as ``told``."""
    told = told | changed
    names = ("interpolation", "mean", "std", "crop_pct", "crop_mode")
    transform = timm.data.create_transform(told["shape"], **{name: told[name] for name in names})
    found = {}
    for path in sorted((root / "val").rglob("*.jpg")):
        image = Image.open(path)
        if told["exif"] == "upright":
            image = ImageOps.exif_transpose(image)
        found[path] = CLASSES[int(run(transform(image.convert("RGB"))[None]).argmax())]
    return found


def check(root: Path, told: dict[str, Any], run, claimed: float) -> None:
    """The claim holds for images as they are told, and other images have other answers."""
    found = answers(root, told, run)
    right = sum(answer == path.parent.name for path, answer in found.items())
    assert 100 * right / len(found) == pytest.approx(claimed)
    assert answers(root, told, run, exif="ignore" if told["exif"] == "upright" else "upright") != found
    for other in set(ARCHITECTURES) - {told["crop_mode"]}:
        assert answers(root, told, run, crop_mode=other) != found


@pytest.mark.parametrize(
    ("crop_mode", "exif"), [("center", "upright"), ("squash", "ignore"), ("border", "upright")]
)
def test_an_onnx_file_is_judged_from_its_metadata_alone(
    tmp_path: Path, pictures: Path, crop_mode: str, exif: str
):
    folder = folder_of(tmp_path / "student", crop_mode)
    words = ["--data-dir", pictures, "--seconds", "0.01", "--exif", exif]
    assert export(folder, "--to", "onnx", *words) == 0
    file = folder / "student.onnx"
    props = {each.key: each.value for each in onnx.load(file).metadata_props}
    told = {key: json.loads(props[key]) for key in ("shape", "mean", "std", "crop_pct")}
    told |= {key: props[key] for key in ("interpolation", "crop_mode", "exif")}
    assert (told["crop_mode"], told["exif"]) == (crop_mode, exif)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    measured = json.loads(file.with_suffix(".json").read_text())
    claimed = next(row["top1"] for row in measured["forms"] if row["form"] == "onnx")
    check(pictures, told, lambda image: session.run(None, {"images": image.numpy()})[0], claimed)


@pytest.mark.parametrize("crop_mode", ARCHITECTURES)
@torch.no_grad()
def test_a_timm_folder_is_judged_from_its_files_alone(tmp_path: Path, pictures: Path, crop_mode: str):
    folder = folder_of(tmp_path / "student", crop_mode)
    words = ["--data-dir", pictures, "--seconds", "0.01", "--out", tmp_path / "timm"]
    assert export(folder, "--to", "timm", *words) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    exported = json.loads((tmp_path / "timm" / "export.json").read_text())
    config = timm.data.resolve_data_config({}, model=model)
    told = {**config, "shape": config["input_size"], "exif": exported["input"]["exif"]}
    for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode"):
        assert exported["input"][key] == (list(told[key]) if key in ("mean", "std") else told[key])
    check(pictures, told, model, exported["accuracy"]["top1"])
    card = (tmp_path / "timm" / "README.md").read_text()
    assert mentions(card, f"crop mode {crop_mode}, crop share 0.9; photographs turned upright by EXIF")
    assert "ImageOps.exif_transpose(Image.open" in card
