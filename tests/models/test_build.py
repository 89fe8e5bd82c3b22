"""ModelSpec <-> timm model: names, arguments, weights that fit or do not, and the saved form."""

import socket

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from isometry.config import RunConfig
from isometry.config.paths import expand_paths
from isometry.errors import UserError
from isometry.files import sha256_of
from isometry.models.build import build_model, check_name, save_model
from isometry.models.spec import ModelSpec, image_spec

TINY = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
VIT = "vit_tiny_patch16_224"


def tiny(**more):
    return timm.create_model(VIT, **TINY, img_size=16, **more)


def logits(model):
    return model.eval()(torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16))


@pytest.fixture
def saved(tmp_path):
    """A saved model of 5 classes and its folder."""
    torch.manual_seed(1)
    model = tiny(num_classes=5)
    names = ["ant", "bee", "cat", "dog", "eel"]
    save_model(
        model, tmp_path / "student", names, {"input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    )
    return model, tmp_path / "student"


def test_a_saved_model_gives_the_same_logits(saved):
    model, folder = saved
    again, source = build_model(ModelSpec(f"local-dir:{folder}", weights="pretrained"))
    by_timm = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert torch.equal(logits(again), logits(model))
    assert torch.equal(logits(by_timm), logits(model))
    assert source.sha256 == sha256_of(folder / "model.safetensors")
    assert again.pretrained_cfg["label_names"] == ["ant", "bee", "cat", "dog", "eel"]
    assert image_spec(again).input_size == (3, 16, 16)


def test_saving_again_replaces_the_files_of_before(saved):
    model, folder = saved
    before = (folder / "config.json").read_bytes()
    save_model(model, folder, None, {"input_size": (3, 16, 16)})
    assert sorted(p.name for p in folder.glob("[!.]*")) == ["config.json", "model.safetensors"]
    assert (folder / "config.json").read_bytes() != before
    assert not folder.with_name("student.new").exists()


def test_another_number_of_classes_changes_the_classifier_alone(saved):
    model, folder = saved
    for name, kwargs, weights in (
        (f"local-dir:{folder}", {}, "pretrained"),
        (VIT, TINY, str(folder / "model.safetensors")),
    ):
        other, _ = build_model(ModelSpec(name, kwargs, weights, num_classes=3, img_size=16))
        assert other.num_classes == 3
        assert logits(other).shape == (1, 3)
        for (key, old), new in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
            assert key.startswith("head") or torch.equal(old, new), key


def test_a_file_brings_its_number_of_classes(saved):
    model, folder = saved
    torch.save({"model": model.state_dict()}, folder / "w.pth")
    for name in ("model.safetensors", "w.pth"):
        again, source = build_model(ModelSpec(VIT, TINY, str(folder / name), img_size=16))
        assert torch.equal(logits(again), logits(model))
        assert source.description == f"file {folder / name}"


def test_a_file_without_a_classifier_loads(saved):
    model, folder = saved
    state = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("head")}
    save_file(state, folder / "body.safetensors")
    again, _ = build_model(ModelSpec(VIT, TINY, str(folder / "body.safetensors"), num_classes=7, img_size=16))
    assert again.num_classes == 7
    assert torch.equal(again.blocks[1].mlp.fc2.weight, model.blocks[1].mlp.fc2.weight)


@pytest.mark.parametrize("classes", [None, 3, 5, 1000])
@pytest.mark.parametrize(
    "spec",
    [
        ("resnet18", {}),
        (VIT, {**TINY, "depth": 3}),
        (VIT, {**TINY, "embed_dim": 48}),
        ("swin_tiny_patch4_window7_224", {}),
    ],
)
def test_weights_of_another_architecture_are_refused(saved, spec, classes):
    # Also where the classes differ: timm alone would then load whatever happens to fit, without a word.
    _, folder = saved
    path = folder / "model.safetensors"
    with pytest.raises(UserError, match="do not fit") as told:
        build_model(ModelSpec(*spec, weights=str(path), num_classes=classes), flag="--teacher")
    assert str(told.value).startswith(f"--teacher-weights {path}: ")
    assert "\n" not in str(told.value)


def test_a_folder_whose_weights_are_of_another_architecture_is_refused(saved):
    _, folder = saved
    save_file(timm.create_model("resnet18").state_dict(), folder / "model.safetensors")
    for classes in (None, 3):
        with pytest.raises(UserError, match=r"--model .*do not fit"):
            build_model(ModelSpec(f"local-dir:{folder}", weights="pretrained", num_classes=classes))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vit_tny", "vit_tiny_patch16_224"),
        ("deit_tiny_patch16", "deit_tiny_patch16_224"),
        ("resnet_18", "resnet18"),
        ("vit_tiny_patch16_224.augreg", "vit_tiny_patch16_224.augreg_in21k"),
        ("timm/resnet18", "resnet18"),
    ],
)
def test_unknown_names_bring_near_ones(name, near):
    with pytest.raises(UserError, match=near):
        check_name(ModelSpec(name), "--teacher")


@pytest.mark.parametrize(
    ("fill", "told"),
    [
        (lambda f: None, "no config.json"),
        (lambda f: (f / "config.json").write_text("{}"), "no model.safetensors"),
        (
            lambda f: [(f / n).write_text("{}") for n in ("config.json", "pytorch_model.bin")],
            "pytorch_model.bin is a pickle",
        ),
        (
            lambda f: [(f / n).write_text("{") for n in ("config.json", "model.safetensors")],
            "config.json is not",
        ),
        (
            lambda f: [(f / n).write_text("[]") for n in ("config.json", "model.safetensors")],
            "config.json is not",
        ),
        (
            lambda f: [
                (f / n).write_text('{"architecture": "nonesuch"}')
                for n in ("config.json", "model.safetensors")
            ],
            "names nonesuch",
        ),
    ],
)
def test_folders_that_hold_no_model(tmp_path, fill, told):
    fill(tmp_path)
    with pytest.raises(UserError, match=told):
        build_model(ModelSpec(f"local-dir:{tmp_path}", weights="pretrained"))


@pytest.mark.parametrize(
    "kwargs", [{"bogus": 1}, {"depth": "x"}, {"patch_size": 0}, {"num_heads": 5}, {"embed_dim": [3]}]
)
def test_arguments_that_the_architecture_refuses(kwargs):
    with pytest.raises(UserError, match=rf"--model {VIT}: .*{next(iter(kwargs))}="):
        build_model(ModelSpec(VIT, kwargs))


def test_no_network_is_one_line_and_no_retries(monkeypatch):
    def nowhere(*_):
        raise socket.gaierror("no network")

    def never(*_, **__):
        raise AssertionError("tried to fetch")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr("isometry.models.weights.getproxies", dict)
    monkeypatch.setattr("isometry.models.build.cached_from_hub", lambda _: None)
    monkeypatch.setattr("isometry.models.build.timm.create_model", never)
    for name in ("cait_s24_224", "hf-hub:someone/something"):
        with pytest.raises(UserError, match=r"--teacher-weights FILE .*--teacher-weights none"):
            build_model(ModelSpec(name, weights="pretrained", img_size=64), flag="--teacher")


@pytest.mark.parametrize("name", ["a" * 100_000, f"{VIT}.{'b' * 100_000}"])
def test_a_name_too_long_for_a_file_is_told_shortened(name):
    with pytest.raises(UserError, match="timm has no such") as caught:
        check_name(ModelSpec(expand_paths(RunConfig(model=name)).model), "--model")
    assert len(str(caught.value)) < 400


def test_a_model_without_published_weights_says_so():
    with pytest.raises(UserError, match=r"--model ghostnet_050: .*--initial-checkpoint FILE"):
        build_model(ModelSpec("ghostnet_050", weights="pretrained"))
