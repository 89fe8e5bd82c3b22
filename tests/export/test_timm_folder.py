"""`isometry export --to timm`: a folder for timm, and a card with the measured figures only."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import ExifTags, Image

from helpers.exported import QUICK, cut_folder, export, gated_folder, names_in, vit_folder
from helpers.messages import mentions
from helpers.pruned_runs import dense_run
from helpers.runs import TINY_STUDENT, run
from isometry.cli.main import main
from isometry.data.image_modes import to_mode
from isometry.evaluation.scores import wilson
from isometry.export.model_card import DEEP_GREYS, _scaled, _use
from isometry.export.timm_folder import CARD, FIGURES
from isometry.models.network_folder import MANIFEST
from isometry.models.spec import image_spec
from isometry.prune.saving import load_network


@pytest.fixture(scope="module")
def distilled(tiny_teacher, tmp_path_factory):
    """A run distilled on the digits, with growth."""
    out = tmp_path_factory.mktemp("distilled") / "run"
    words = [*TINY_STUDENT, "--teacher", f"local-dir:{tiny_teacher}", "--epochs", "2", "--grow.depth", "1,2"]
    words += ["--losses.whole", "1", "--losses.soft", "1", "--out", str(out)]
    ended = run("distill", *words, said=out.parent / "said")
    assert ended.code == 0, ended.err
    return out


@pytest.fixture(scope="module")
def folder(distilled):
    """The exported run."""
    assert export(distilled, "--to", "timm", "--seconds", "0.01", "--license", "apache-2.0") == 0
    return distilled / "timm"


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


@torch.no_grad()
def test_the_code_on_the_card_runs_in_plain_timm(folder, distilled, tmp_path):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8, 8), dtype=torch.uint8, generator=generator).numpy()
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=100)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / CARD).read_text(), re.DOTALL)
    code = code.replace("local-dir:FOLDER", f"local-dir:{folder}")
    code += (
        "import sys, torch\n"
        "assert not any(name.startswith('isometry') for name in sys.modules)\n"
        "torch.save(output, 'output.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    network = load_network(distilled)
    spec = image_spec(network)
    seen = torch.from_numpy(np.array(Image.open(tmp_path / "photo.jpg")))[None, None] / 255
    wanted = network((seen - spec.mean[0]) / spec.std[0])
    torch.testing.assert_close(torch.load(tmp_path / "output.pt"), wanted)


def test_the_card_has_the_figures_of_the_run_and_of_the_export(folder, distilled):
    card, told = (folder / CARD).read_text(), json.loads((folder / FIGURES).read_text())
    teacher, student = json.loads((distilled / "summary.json").read_text())
    accuracy = told["accuracy"]
    assert accuracy["top1"] == pytest.approx(student["top1"])
    low, high = (100 * share for share in wilson(round(accuracy["top1"] * 5), 500))
    assert mentions(card, f"{student['top1']:.1f} % … {low:.1f} to {high:.1f} %, 500 test images")
    assert f"**teacher's top-1**: {teacher['top1']:.1f} % on test" in card
    assert f"**parameters**: {student['params']:,}" in card
    assert f"**multiply-accumulates**: {student['macs']:,}" in card
    weights = (folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in card
    for speed in told["speeds"]:
        assert f"**latency, batch {speed['batch_size']}**: median" in card
    assert f"torch {torch.__version__}, timm {timm.__version__}" in card
    assert mentions(card, "distilled … from … `cait_xxs24_224`")
    assert "1 × whole" in card
    assert "random weights" in card
    assert mentions(card, "**depth … 1,2")
    assert re.findall(r"@inproceedings\{(\w+)", card) == ["hao2022manifold", "ding2023expansion"]
    assert front_matter(card) == {
        "license": "apache-2.0",
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "isometry", "knowledge-distillation", "model-growth"],
    }


def test_the_folder_has_no_local_paths(folder, distilled):
    assert names_in(folder) == [
        ".isometry.json",
        "README.md",
        "config.json",
        "export.json",
        "model.safetensors",
    ]
    for name in (".isometry.json", "README.md", "config.json", "export.json"):
        assert str(distilled.parent) not in (folder / name).read_text()
        assert "local-dir:/" not in (folder / name).read_text()


def test_a_second_export_replaces_the_first(folder, distilled, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(distilled, again, ignore=shutil.ignore_patterns("last", "best"))
    (again / "timm" / "mine").write_text("kept")
    before = names_in(again / "timm")
    assert export(again, "--to", "timm", "--seconds", "0.01") == 0
    assert names_in(again / "timm") == before
    assert (again / "timm" / "mine").read_text() == "kept"
    assert front_matter((again / "timm" / CARD).read_text())["license"] == "unknown"
    assert mentions((again / "timm" / CARD).read_text(), "## Licence … not specified")


def test_without_the_images_the_card_has_no_accuracy(distilled, tmp_path, capsys):
    moved = tmp_path / "run"
    shutil.copytree(distilled, moved, ignore=shutil.ignore_patterns("timm", "last", "best"))
    config = yaml.safe_load((moved / "config.yaml").read_text())
    (moved / "config.yaml").write_text(yaml.safe_dump({**config, "dataset": "", "data_dir": "/gone/photos"}))
    (moved / "summary.json").unlink()
    assert export(moved, "--to", "timm", "--seconds", "0.01") == 0
    assert mentions(capsys.readouterr().out, "not measured: … /gone/photos")
    card = (moved / "timm" / CARD).read_text()
    assert "top-1" not in card
    assert "**images**: photos" in card
    assert "/gone" not in card + (moved / "timm" / FIGURES).read_text()


def test_the_card_says_that_the_teacher_was_random(distilled, tmp_path):
    assert "random" not in (distilled / "timm" / CARD).read_text().replace("random weights\n", "")
    again = tmp_path / "run"
    shutil.copytree(distilled, again, ignore=shutil.ignore_patterns("timm", "last", "best"))
    config = yaml.safe_load((again / "config.yaml").read_text())
    (again / "config.yaml").write_text(yaml.safe_dump({**config, "teacher_weights": "none"}))
    assert export(again, "--to", "timm", "--seconds", "0.01") == 0
    card = (again / "timm" / CARD).read_text()
    assert mentions(card, "distilled … `cait_xxs24_224` with random weights … **teacher** … random weights")


def test_an_untrained_head_has_no_accuracy(distilled, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(distilled, moved, ignore=shutil.ignore_patterns("timm", "last", "best"))
    config = yaml.safe_load((moved / "config.yaml").read_text())
    (moved / "config.yaml").write_text(yaml.safe_dump({**config, "losses": {"whole": 1}}))
    assert export(moved, "--to", "timm", "--seconds", "0.01") == 0
    assert "**top-1**" not in (moved / "timm" / CARD).read_text()


def test_the_card_of_a_folder_without_a_run(tmp_path):
    folder = vit_folder(tmp_path / "student", classes=0)
    assert export(folder, "--to", "timm", *QUICK, "--out", tmp_path / "out") == 0
    card = (tmp_path / "out" / CARD).read_text()
    assert front_matter(card)["pipeline_tag"] == "image-feature-extraction"
    assert "top-1" not in card
    assert "## Training" not in card
    assert "## Cite" not in card


def test_the_card_imports_an_architecture_of_this_package(tmp_path, capsys):
    folder = dense_run(tmp_path)
    assert export(folder, "--to", "timm", *QUICK, "--out", tmp_path / "out") == 0
    assert mentions((tmp_path / "out" / CARD).read_text(), "import isometry.models.cifar_resnet")
    assert mentions(capsys.readouterr().out, "cifar_resnet20 … timm: import isometry.models.cifar_resnet")


@pytest.mark.parametrize("make", [gated_folder, cut_folder])
def test_a_pruned_network_is_refused(tmp_path, capsys, make):
    folder = make(tmp_path / "pruned")
    before = names_in(tmp_path)
    assert export(folder, "--to", "timm", *QUICK) == 2
    said = capsys.readouterr().err
    assert mentions(said, "pruned … timm")
    assert said.count("\n") == 1
    assert names_in(tmp_path) == before


def test_other_folders_are_not_overwritten(tmp_path, capsys):
    folder = vit_folder(tmp_path / "student")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine").touch()
    for place in (tmp_path / "photos", folder):
        assert export(folder, "--to", "timm", *QUICK, "--out", place) == 2
        assert f"--out {place}: " in capsys.readouterr().err
    assert names_in(tmp_path / "photos") == ["mine"]


def test_an_empty_folder_is_as_good_as_none(tmp_path, monkeypatch, capsys):
    folder = vit_folder(tmp_path / "student")
    (tmp_path / "empty").mkdir()
    assert export(folder, "--to", "timm", *QUICK, "--out", tmp_path / "empty") == 0
    assert names_in(tmp_path / "empty") == [MANIFEST, CARD, "config.json", FIGURES, "model.safetensors"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert export(folder, "--to", "timm", *QUICK, "--out", ".") == 2
    assert (
        f"--out .: give the folder's own name, such as --out {tmp_path / 'here'}" in capsys.readouterr().err
    )


def test_a_card_that_was_edited_is_not_overwritten(tmp_path, capsys):
    folder = vit_folder(tmp_path / "student")
    assert export(folder, "--to", "timm", *QUICK) == 0
    card = folder / "timm" / CARD
    card.write_text(card.read_text() + "by hand\n")
    before = {name: (folder / name).read_bytes() for name in names_in(folder) if (folder / name).is_file()}
    capsys.readouterr()
    assert export(folder, "--to", "timm", *QUICK) == 2
    said = capsys.readouterr().err
    assert f"{card}: was changed since isometry wrote it" in said
    assert said.count("\n") == 1
    assert before == {
        name: (folder / name).read_bytes() for name in names_in(folder) if (folder / name).is_file()
    }


def test_a_folder_of_the_user_with_an_export_json_is_not_touched(tmp_path, capsys):
    folder, place = vit_folder(tmp_path / "student"), tmp_path / "place"
    place.mkdir()
    for name in (FIGURES, CARD, "thesis.txt"):
        (place / name).write_text("mine")
    assert export(folder, "--to", "timm", *QUICK, "--out", place) == 2
    assert f"--out {place}: exists" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in place.iterdir()} == dict.fromkeys(
        (FIGURES, CARD, "thesis.txt"), "mine"
    )


@pytest.mark.parametrize("name", ["timm", "model.safetensors", "config.json"])
def test_links_are_neither_followed_nor_copied(tmp_path, capsys, name):
    folder, outside = vit_folder(tmp_path / "student"), tmp_path / "outside"
    if name == "timm":
        outside.mkdir()
    else:
        (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    before = names_in(tmp_path)
    assert export(folder, "--to", "timm", *QUICK) == 2
    assert f"{folder / name}: is a link" in capsys.readouterr().err
    assert names_in(tmp_path) == before


def test_a_corrupted_copy_is_not_written(tmp_path, monkeypatch, capsys):
    folder = vit_folder(tmp_path / "student")

    def spoiled(source, target):
        content = bytearray(source.read_bytes())
        content[-1] ^= 0x40 * (source.suffix == ".safetensors")
        target.write_bytes(content)

    monkeypatch.setattr(shutil, "copyfile", spoiled)
    before = names_in(tmp_path)
    assert export(folder, "--to", "timm", *QUICK) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert names_in(tmp_path) == before


def test_a_damaged_summary_is_named(distilled, tmp_path, capsys):
    broken = tmp_path / "run"
    shutil.copytree(distilled, broken, ignore=shutil.ignore_patterns("timm", "last", "best"))
    (broken / "summary.json").write_text('{"model"')
    assert export(broken, "--to", "timm", "--seconds", "0.01") == 2
    assert f"{broken / 'summary.json'}: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def deep_greys(tmp_path_factory):
    """Turned photographs of 12 bits, which differ in where they are bright, and a run that tells them apart."""
    root, generator = tmp_path_factory.mktemp("deep"), np.random.default_rng(0)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    for number in range(80):
        pixels = generator.integers(0, 1000, (8, 8), dtype=np.uint16)
        pixels[slice(4) if number % 2 else slice(4, 8)] += 3000
        path = root / "images" / ("train" if number < 40 else "val") / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, exif=exif)
    words = [*TINY_STUDENT, "--dataset", "", "--data-dir", str(root / "images"), "--batch-size", "20"]
    words += ["--no-aug", "--epochs", "30", "--lr", "1e-2", "--pixel-range", "auto", "--exif", "ignore"]
    ended = run("train", *words, "--out", str(root / "run"), said=root / "said")
    assert ended.code == 0, ended.err
    assert json.loads((root / "run" / "summary.json").read_text())[-1]["top1"] == 100
    return root


def top1(folder, *words):
    assert main(["evaluate", str(folder), "--out", str(folder), "--device", "cpu", *map(str, words)]) == 0
    return json.loads((folder / "evaluation.json").read_text())["scores"]["top1"]["value"]


def test_an_export_and_a_copied_student_are_judged_on_images_read_as_in_training(deep_greys, tmp_path):
    images, student = ["--data-dir", deep_greys / "images"], tmp_path / "copied"
    assert (
        export(deep_greys / "run", "--to", "timm", "--seconds", "0.01", "--out", tmp_path / "exported") == 0
    )
    shutil.copytree(deep_greys / "run" / "student", student)
    told = json.loads((student / "config.json").read_text())["isometry_images"]
    assert told["exif"] == "ignore"
    low, high = map(int, told["pixel_range"].split(","))
    # Values are 0 to 3999, and the 0.2 % lowest and highest are left out.
    assert 0 <= low < 20
    assert 3980 < high <= 3999
    for folder in (student, tmp_path / "exported"):
        assert json.loads((folder / "config.json").read_text())["isometry_images"] == told
        assert top1(folder, *images) == 100
        assert top1(folder, *images, "--pixel-range", "0,65535") < 100, "an option goes first"
        assert top1(folder, *images, "--exif", "upright") == 0
    assert export(student, "--to", "timm", "--seconds", "0.01", *images, "--out", tmp_path / "again") == 0
    for name in ("exported", "again"):
        exported = json.loads((tmp_path / name / FIGURES).read_text())
        assert exported["input"] | told == exported["input"]
        assert exported["accuracy"]["top1"] == 100


@pytest.mark.parametrize("exif", ["ignore", "upright"])
def test_the_code_on_the_card_scales_deep_greys(deep_greys, tmp_path, exif):
    """As many are right as the card claims, also where no photograph is upright."""
    words = ["--data-dir", deep_greys / "images", "--seconds", "0.01", "--exif", exif]
    assert export(deep_greys / "run", "--to", "timm", *words, "--out", tmp_path / "timm") == 0
    claimed = json.loads((tmp_path / "timm" / FIGURES).read_text())["accuracy"]["top1"]
    assert claimed == (100 if exif == "ignore" else 0)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "timm" / CARD).read_text(), re.DOTALL)
    code = code.replace("local-dir:FOLDER", f"local-dir:{tmp_path / 'timm'}")
    paths = sorted((deep_greys / "images" / "val").rglob("*.png"))
    right = 0
    for path in paths:
        known: dict = {}
        exec(code.replace("photo.jpg", str(path)), known)
        right += "ab"[int(known["output"].argmax())] == path.parent.name
    assert 100 * right / len(paths) == claimed


@pytest.mark.parametrize(
    "pixels",
    [
        np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16),
        np.linspace(0, 65535, 64).reshape(8, 8).astype(np.int32),
        np.linspace(0, 1, 64).reshape(8, 8).astype(np.float32),
        np.linspace(0, 255, 64).reshape(8, 8).astype(np.uint8),
    ],
    ids=lambda pixels: str(pixels.dtype),
)
def test_the_code_on_a_card_reads_greys_as_training_does(pixels):
    """Without --pixel-range, where Pillow's own conversion makes nearly all white."""
    known = {"image": Image.fromarray(pixels), "np": np, "Image": Image}
    exec("\n".join(_scaled(None)), known)
    trained = to_mode(Image.fromarray(pixels), "L")
    assert np.array_equal(np.asarray(known["image"].convert("L")), np.asarray(trained))
    assert len(np.unique(np.asarray(trained))) > 60


@pytest.mark.parametrize(("channels", "in_code"), [(1, True), (3, False)])
def test_a_card_says_how_deep_greys_are_read(channels, in_code):
    facts = {
        "model": "resnet18",
        "registered_by": None,
        "class_names": [],
        "input": {"shape": [channels, 8, 8], "exif": "upright"},
    }
    used = _use(facts)
    assert ("65535 is white" in used and "import numpy" in used) == in_code
    assert (DEEP_GREYS in used) == (not in_code)
    assert DEEP_GREYS not in _use(facts | {"input": facts["input"] | {"pixel_range": "0,4095"}})
