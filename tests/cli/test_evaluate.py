"""`isometry evaluate` on folders of real small runs: what it says, what it writes, what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import timm
import torch
from PIL import ExifTags, Image

from helpers.messages import mentions
from helpers.pruned_runs import SMALL, dense_run, small_network
from helpers.runs import run
from isometry.cli.main import main
from isometry.config import PruneConfig, RunConfig
from isometry.data import find_sources
from isometry.evaluation.saved_network import SavedNetwork, head_was_trained, open_folder
from isometry.files import OUTPUTS
from isometry.models.build import save_model
from isometry.prune.gates import gated_convs
from isometry.prune.saving import save_network
from isometry.prune.sites import add_gates
from isometry.recipes import config_to_yaml

DATA_CONFIG = {"input_size": (1, 16, 16), "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0}
SIDEWAYS = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
ON_DIGITS = ["--dataset", "digits", "--device", "cpu"]


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """A folder without a config.yaml."""
    return dense_run(tmp_path / "dense")


@pytest.fixture(scope="session")
def digit_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some digits as a person has them: train/ and test/ of class folders; and the first two digits alone."""
    root = tmp_path_factory.mktemp("digits")
    sources = find_sources(RunConfig(dataset="digits"))
    for part, images, count in (
        ("train", sources.train, 60),
        ("val", sources.val, 30),
        ("test", sources.test, 30),
    ):
        for number in range(count):
            image, label = images.load(number)
            folder = root / "all" / part / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number}.png")
    for label in ("0", "1"):
        (root / "two").mkdir(exist_ok=True)
        (root / "two" / label).symlink_to(root / "all" / "train" / label)
    (root / "plain").symlink_to(root / "all" / "train" / "3")
    return root


def evaluated(*words: str) -> dict:
    """What ``evaluation.json`` holds after a command that works."""
    assert main(["evaluate", *words]) == 0
    out = Path(words[words.index("--out") + 1]) if "--out" in words else Path(words[0])
    return json.loads((out / "evaluation.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command which can't work says."""
    capsys.readouterr()
    assert main(["evaluate", *words]) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    return output.err


@pytest.mark.parametrize("name", ["evaluation.json", "evaluation.svg"])
def test_files_of_the_users_are_not_replaced(dense, tmp_path, capsys, name):
    words = (str(dense), *ON_DIGITS, "--out", str(tmp_path / "out"))
    evaluated(*words)
    evaluated(*words)
    file, record = tmp_path / "out" / name, tmp_path / "out" / OUTPUTS
    known = json.loads(record.read_text())
    del known[name]
    record.write_text(json.dumps(known))
    kept = file.read_bytes()
    assert f"{name}: isometry has no record of writing this file" in refused(capsys, *words)
    assert file.read_bytes() == kept


@pytest.mark.parametrize("name", ["evaluation.json", "evaluation.svg", OUTPUTS])
def test_a_folder_in_place_of_a_file_is_told_before_anything_is_measured(
    dense, tmp_path, capsys, monkeypatch, name
):
    monkeypatch.setattr("isometry.cli.evaluate._evaluate", None)
    (tmp_path / name).mkdir()
    told = refused(capsys, str(dense), *ON_DIGITS, "--out", str(tmp_path))
    assert f"{tmp_path / name}: is " in told
    assert "folder" in told
    assert "move it elsewhere, or give another --out" in told


def test_a_class_map_that_is_gone_is_told_and_another_one_can_be_given(
    dense, digit_folders, tmp_path, capsys
):
    gone, other = tmp_path / "map.txt", tmp_path / "other.txt"
    data = str(digit_folders / "all")
    config = RunConfig(model="cifar_resnet20", data_dir=data, class_map=str(gone), losses={"ce": 1})
    (dense / "config.yaml").write_text(config_to_yaml(config))
    said = refused(capsys, str(dense))
    assert f"the class map is gone ({gone}); give another with --class-map" in said
    other.write_text("".join(f"{digit}\n" for digit in range(10)))
    found = evaluated(str(dense), "--class-map", str(other), "--device", "cpu")
    assert found["scores"]["top1"]["images"] == 30


def test_a_run_is_judged_as_it_judged_itself(tiny_teacher, tmp_path, capsys):
    found = evaluated(str(tiny_teacher.parent), "--out", str(tmp_path), "--device", "cpu")
    summary = json.loads((tiny_teacher.parent / "summary.json").read_text())
    top1 = found["scores"]["top1"]
    assert top1["value"] == pytest.approx(summary[-1]["top1"])
    assert top1["low"] < top1["value"] < top1["high"]
    assert (found["part"], top1["images"]) == ("test", 500)
    assert np.array(found["scores"]["confusion"]).sum() == 500
    assert [row["name"] for row in found["scores"]["classes"]] == [str(digit) for digit in range(10)]
    assert "probes" not in found
    assert found["conditions"]["torch"] == torch.__version__
    output = capsys.readouterr().out
    assert f"{top1['value']:.1f} %" in output
    assert f"{top1['low']:.1f} to {top1['high']:.1f} %" in output
    assert "ECE" in output
    ElementTree.parse(tmp_path / "evaluation.svg")


def test_features_are_judged_on_request(dense, capsys):
    words = [str(dense / "student"), *ON_DIGITS, "--probe", "--out", str(dense)]
    found = evaluated(*words)
    (row,) = found["probes"]["features"]
    assert found["probes"]["train"] == 900
    # Untrained convolutions tell digits apart far better than chance, and their classifier does not.
    assert row["linear"]["value"] > 50
    assert found["scores"]["top1"]["value"] < 40
    output = capsys.readouterr().out
    assert "linear probe" in output
    assert f"{row['knn']['value']:.1f} %" in output
    assert evaluated(*words)["probes"] == found["probes"]


def test_a_gated_network_is_judged_with_its_gates_closed(tmp_path):
    torch.manual_seed(1)
    network = add_gates(small_network(), "cifar_resnet20")
    for conv in gated_convs(network).values():
        torch.nn.init.normal_(conv.gate.excite.weight)
        conv.gate.threshold.fill_(0.9)
    save_network(network.eval(), tmp_path / "student", [str(digit) for digit in range(10)], DATA_CONFIG)
    config = RunConfig(
        dataset="digits",
        model="cifar_resnet20",
        img_size=16,
        losses={"ce": 1},
        prune=PruneConfig(keep_rate=0.5),
    )
    (tmp_path / "config.yaml").write_text(config_to_yaml(config))
    gated = evaluated(str(tmp_path), "--device", "cpu")["scores"]
    for conv in gated_convs(network).values():
        conv.gate.threshold.zero_()
    save_network(network, tmp_path / "student", [str(digit) for digit in range(10)], DATA_CONFIG)
    assert evaluated(str(tmp_path), "--device", "cpu")["scores"]["confusion"] != gated["confusion"]


def test_a_student_without_labels_is_judged_by_its_features(tmp_path, digit_folders, capsys):
    """As written in the docs, with a DINOv3 and a MobileNetV4, on images that have no labels."""
    student = tmp_path / "run"
    words = ["--teacher", "vit_small_patch16_dinov3", "--student", "mobilenetv4_conv_small"]
    words += ["--data-dir", str(digit_folders / "plain"), "--losses.whole", "1", "--losses.intra", "1"]
    words += ["--teacher-weights", "none", "--teacher-kwargs", "embed_dim=32", "depth=2", "num_heads=2"]
    words += ["--img-size", "32", "-b", "2", "--workers", "0", "--epochs", "1", "--device", "cpu"]
    ended = run("distill", *words, "--out", str(student), said=tmp_path / "said")
    assert ended.code == 0, ended.err
    assert timm.create_model(f"local-dir:{student}/student", pretrained=True).num_classes == 0
    assert "has no labels" in refused(capsys, str(student), "--device", "cpu")
    found = evaluated(str(student), "--data-dir", str(digit_folders / "all"), "--device", "cpu")
    assert "scores" not in found
    assert [row["numbers"] for row in found["probes"]["features"]] == [960, 1280]
    assert not (student / "evaluation.svg").exists()
    assert "its features are evaluated" in capsys.readouterr().out
    # Its own config is a recipe again.
    assert main(["check", "--config", str(student / "config.yaml"), "--out", str(tmp_path / "again")]) == 0


@pytest.mark.parametrize(
    ("losses", "model", "trained"),
    [
        ({"whole": 1.0, "intra": 1.0}, "resnet18", False),
        ({"whole": 1.0, "soft": 1.0}, "resnet18", True),
        ({"whole": 1.0, "ce": 0}, "resnet18", False),
        ({"ce": 1.0}, "resnet18", True),
        ({"whole": 1.0}, "local-dir:runs/first/student", True),
    ],
)
def test_whether_a_head_was_trained_is_told_by_the_terms(losses, model, trained):
    config = RunConfig(model=model, losses=losses)
    assert head_was_trained(SavedNetwork("a", small_network(), config=config)) == trained


def test_a_run_that_taught_no_head_is_not_judged_by_it(tmp_path, dense):
    config = RunConfig(dataset="digits", model="cifar_resnet20", img_size=16, losses={"whole": 1})
    (dense / "config.yaml").write_text(config_to_yaml(config))
    found = evaluated(str(dense), "--device", "cpu")
    assert "scores" not in found
    (note,) = found["notes"]
    assert "classifier" in note
    assert "features" in note


def test_images_of_other_classes_are_refused_but_for_their_features(dense, digit_folders, capsys):
    words = [
        str(dense / "student"),
        "--data-dir",
        str(digit_folders / "two"),
        "--device",
        "cpu",
        "--out",
        str(dense),
    ]
    assert "has 10 classes and the data 2" in refused(capsys, *words)
    assert set(evaluated(*words, "--probe")) >= {"probes"}


def test_as_many_classes_of_other_names_are_refused(tmp_path, capsys):
    save_model(small_network(), tmp_path, [f"letter {letter}" for letter in "abcdefghij"], DATA_CONFIG)
    line = refused(capsys, str(tmp_path), *ON_DIGITS)
    assert "class 0 is 'letter a' and the data's is '0'" in line
    assert "--probe" in line


def test_images_that_could_not_be_read_are_named_and_leave_the_count(dense, digit_folders, tmp_path, capsys):
    shutil.copytree(digit_folders / "all", tmp_path / "some", symlinks=False)
    broken = next((tmp_path / "some" / "test" / "3").iterdir())
    broken.write_bytes(broken.read_bytes()[:60])
    config = RunConfig(model="cifar_resnet20", data_dir=str(tmp_path / "some"), img_size=16, losses={"ce": 1})
    (dense / "config.yaml").write_text(config_to_yaml(config))
    assert f"cannot read the image {broken}" in refused(capsys, str(dense), "--device", "cpu")
    allowed = evaluated(str(dense), "--device", "cpu", "--skip-bad-images")
    (dense / "config.yaml").write_text(config_to_yaml(replace(config, skip_bad_images=True)))
    result = evaluated(str(dense), "--device", "cpu")
    assert (allowed["notes"], allowed["scores"]) == (result["notes"], result["scores"])
    assert result["notes"][0] == f"1 unreadable image is left out of the figures: {broken}"
    images = [image for image in (tmp_path / "some" / "test").rglob("*") if image.is_file()]
    assert result["scores"]["top1"]["images"] == len(images) - 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", *ON_DIGITS], "timm has no such model"),
        (["local-dir:nowhere", *ON_DIGITS], "no such folder"),
        ([*ON_DIGITS], "expected DIR first"),
        (["one", "two", *ON_DIGITS], "expected DIR first"),
    ],
)
def test_what_is_no_network_is_named(words, message, capsys):
    assert message in refused(capsys, *words)


def test_a_file_is_no_folder_for_the_results(dense, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["evaluate", str(dense), "--out", str(tmp_path / "file"), "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert mentions(line, f"--out {tmp_path / 'file'} … folder")
    assert (tmp_path / "file").read_text() == "mine"


def test_without_images_nothing_can_be_judged(dense, capsys):
    assert "--data-dir or --dataset" in refused(capsys, str(dense))


# --- fine-tuning


QUICK = ["epochs=1", "workers=0", "batch_size=20", "warmup_epochs=0", "lr=0.01"]


@pytest.mark.usefixtures("quick_results")
def test_fine_tuning_tabulates_each_folder(dense, digit_folders, capsys):
    folders = [str(digit_folders / "all"), str(digit_folders / "two")]
    words = [
        str(dense),
        "--transfer",
        *folders,
        "--overrides",
        *QUICK,
        "--device",
        "cpu",
        "--out",
        str(dense),
    ]
    found = evaluated(*words)
    assert "scores" not in found
    first, second = found["transfer"]
    assert (first["classes"], first["train"], first["images"], first["part"]) == (10, 60, 30, "test")
    assert (second["classes"], second["part"], second["epochs"]) == (2, "val", 1)
    assert second["low"] <= second["value"] <= second["high"]
    summary = json.loads((dense / "transfer" / "all" / "summary.json").read_text())
    assert first["value"] == summary[-1]["top1"]
    assert open_folder(str(dense / "transfer" / "two"), command="test").network.num_classes == 2
    output = capsys.readouterr().out
    assert f"{first['low']:.1f} to {first['high']:.1f} %" in output
    # The same command again trains nothing anew, and another one does not pass for it.
    assert evaluated(*words)["transfer"] == found["transfer"]
    other = [word.replace("0.01", "0.02") for word in words]
    assert "--lr was 0.01 and is 0.02 now" in refused(capsys, *other)


@pytest.mark.usefixtures("quick_results")
def test_a_network_without_classes_gets_those_of_the_folder(tmp_path, digit_folders):
    data = {**DATA_CONFIG, "input_size": (1, 16, 16)}
    save_model(
        timm.create_model("cifar_resnet20", **{**SMALL, "num_classes": 0}), tmp_path / "student", None, data
    )
    words = ["--transfer", str(digit_folders / "two"), "--overrides", *QUICK, "--device", "cpu"]
    (row,) = evaluated(str(tmp_path / "student"), *words, "--out", str(tmp_path))["transfer"]
    assert row["classes"] == 2


def test_fine_tuning_refuses_before_it_trains(dense, digit_folders, tmp_path, capsys):
    two, plain = str(digit_folders / "two"), str(digit_folders / "plain")
    assert "have no labels" in refused(capsys, str(dense), "--transfer", two, plain)
    assert "same name" in refused(capsys, str(dense), "--transfer", two, f"{two}/../two")
    assert "epoch: no such key" in refused(capsys, str(dense), "--transfer", two, "--overrides", "epoch=3")
    gated = add_gates(small_network(), "cifar_resnet20")
    save_network(gated, tmp_path / "student", None, DATA_CONFIG)
    assert "has gates" in refused(capsys, str(tmp_path), "--transfer", two)
    assert not list(dense.glob("transfer"))
    assert not list(tmp_path.glob("transfer"))


def test_a_run_from_before_photographs_were_turned_is_evaluated_as_it_was_trained(tmp_path, capsys):
    generator, exif = np.random.default_rng(0), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for number in range(120):
        path = (
            tmp_path / "pictures" / ("train" if number < 20 else "val") / "ab"[number % 2] / f"{number}.jpg"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((20, 20)).save(path, exif=exif)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("vit_tiny_patch16_224", **SIDEWAYS, num_classes=2).eval()
        for parameter in network.parameters():
            parameter.data.normal_(0, 0.3)
    save_model(network, tmp_path / "run" / "student", ["a", "b"], {"input_size": (3, 16, 16)})
    config = RunConfig(
        model="vit_tiny_patch16_224", data_dir=str(tmp_path / "pictures"), workers=0, losses={"ce": 1}
    )
    text = config_to_yaml(config).replace("exif: upright\n", "")
    assert "exif" not in text
    (tmp_path / "run" / "config.yaml").write_text(text)
    found = evaluated(str(tmp_path / "run"), "--device", "cpu")
    assert "photographs seen as they are stored (--exif ignore)" in capsys.readouterr().out
    again = {exif: evaluated(str(tmp_path / "run"), "--exif", exif) for exif in ("ignore", "upright")}
    assert "photographs seen upright" in capsys.readouterr().out
    assert found["exif"] == "ignore"
    assert found["scores"] == again["ignore"]["scores"] != again["upright"]["scores"]
