"""Pruned networks in folders: saved and loaded exactly; folders that hold something else are refused."""

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from helpers.small_gated import REGNET, SIZES, SMALL, Small, random_masks
from isometry.errors import UserError
from isometry.models.build import save_model
from isometry.prune.cutting import cut, widths
from isometry.prune.gates import gated_convs
from isometry.prune.l1 import l1_cut
from isometry.prune.saving import load, load_network, save_network
from isometry.prune.skipping import skipping
from isometry.prune.unused_channels import compact

DATA = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
NAMES = ["ant", "bee", "cat", "dog", "eel"]


def save(network: nn.Module, folder: Path) -> Path:
    save_network(network, folder, NAMES, DATA)
    return folder


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text("utf-8"))


def change(folder: Path, **entries: object) -> None:
    """Other values for some of config.json's "isometry"."""
    config = config_of(folder)
    config["isometry"] |= entries
    (folder / "config.json").write_text(json.dumps(config))


def assert_same(found: nn.Module, wanted: nn.Module, small: Small) -> None:
    assert not any(module.training for module in found.modules())
    assert type(found) is type(wanted)
    state = wanted.state_dict()
    assert list(found.state_dict()) == list(state)
    for key, tensor in found.state_dict().items():
        assert tensor.dtype == state[key].dtype
        assert torch.equal(tensor, state[key]), key
    with torch.no_grad():
        assert torch.equal(found(small.images()), wanted(small.images()))


CASES = [(name, group, smaller) for name in SMALL for group in (None, 1, 8) for smaller in (False, True)]


@pytest.mark.parametrize(("name", "group", "smaller"), CASES)
def test_what_is_saved_is_what_is_loaded(tmp_path, name, group, smaller):
    small = SMALL[name]
    network = small.plain() if group is None else small.gated(group)
    if smaller:
        cut(network, random_masks(widths(network), group or 1))
    again = load_network(save(network, tmp_path / "student"))
    assert_same(again, network, small)
    assert widths(again) == widths(network)
    assert {conv.group for conv in gated_convs(again).values()} == ({group} if group else set())
    assert config_of(tmp_path / "student")["isometry"] == {"group": group, "widths": widths(network)}
    # And again, from what was loaded.
    assert_same(load_network(save(again, tmp_path / "copy")), network, small)


def test_a_run_folder_stands_for_its_student(tmp_path):
    network = SMALL["basic"].gated()
    save(network, tmp_path / "run" / "student")
    assert_same(load_network(tmp_path / "run"), network, SMALL["basic"])
    assert_same(load_network(str(tmp_path / "run" / "student")), network, SMALL["basic"])


@torch.no_grad()
def test_a_static_network_is_loaded_as_it_is(tmp_path):
    small = SMALL["bottleneck"]
    network = l1_cut(small.plain(), small.name, 0.5)
    assert_same(load(save(network, tmp_path / "student")), network, small)


@pytest.mark.parametrize("smaller", [False, True])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_gated_network_is_loaded_to_skip(tmp_path, name, smaller):
    small = SMALL[name]
    network = small.gated(8)
    if smaller:
        network, _ = compact(network, [small.images()])
    found = load(save(network, tmp_path / "student"))
    assert type(found) is type(skipping(network))
    assert not found.training
    torch.testing.assert_close(found(small.images(3)), network(small.images(3)), rtol=0, atol=1e-4)


def test_class_names_and_arguments_survive(tmp_path):
    torch.manual_seed(0)
    for name, kwargs in (
        ("resnet18", {**SIZES, "in_chans": 1, "num_classes": 7, "drop_path_rate": 0.1}),
        ("regnetx_002", {**REGNET, "in_chans": 2, "num_classes": 3}),
        ("cifar_resnet20", {"layers": (1, 1, 2), "channels": (8, 8, 16), "in_chans": 1, "num_classes": 2}),
        ("resnet50", {**SIZES, "act_layer": "silu"}),
    ):
        channels, classes = kwargs.get("in_chans", 3), kwargs["num_classes"]
        network = Small(name, kwargs).plain()
        cut(network, random_masks(widths(network)))
        data = {"input_size": (channels, 32, 32), "mean": (0.5,) * channels, "std": (0.5,) * channels}
        save_network(network, tmp_path / name, [f"class {n}" for n in range(classes)], data)
        again = load_network(tmp_path / name)
        images = torch.randn(2, channels, 32, 32)
        assert torch.equal(again(images), network(images))
        assert (again.num_classes, again(images).shape) == (classes, (2, classes))
        assert again.pretrained_cfg["label_names"] == [f"class {n}" for n in range(classes)]
        assert tuple(again.pretrained_cfg["input_size"]) == (channels, 32, 32)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_folder_of_timms_is_a_timm_model(tmp_path, name):
    kwargs = SIZES if name == "resnet18" else {"depth": 1, "embed_dim": 24, "img_size": 32, "num_classes": 5}
    torch.manual_seed(0)
    network = timm.create_model(name, **kwargs).eval()
    save_model(network, tmp_path / "student", NAMES, DATA)
    assert "isometry" not in config_of(tmp_path / "student")
    for found in (load(tmp_path), load_network(tmp_path / "student")):
        assert_same(found, network, SMALL["basic"])


def test_a_network_that_is_whole_and_has_no_gates_is_still_timms(tmp_path):
    network = SMALL["basic"].plain()
    folder = save(network, tmp_path / "student")
    assert_same(timm.create_model(f"local-dir:{folder}", pretrained=True).eval(), network, SMALL["basic"])


def test_further_keys_stay_beside_the_shape(tmp_path):
    network = SMALL["basic"].gated()
    save_network(network, tmp_path / "student", NAMES, DATA, {"isometry_images": {"exif": "ignore"}})
    assert config_of(tmp_path / "student")["isometry_images"] == {"exif": "ignore"}
    assert_same(load_network(tmp_path / "student"), network, SMALL["basic"])


def test_saving_again_replaces_all_that_it_wrote(tmp_path):
    folder = save(SMALL["basic"].gated(), tmp_path / "student")
    (folder / "stray").write_text("old")
    save(SMALL["basic"].plain(), folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student"]
    ours = [".isometry.json", "config.json", "model.safetensors"]
    # Files that it did not write stay.
    assert sorted(path.name for path in folder.iterdir()) == [*ours, "stray"]


# --- folders that hold something else


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder of a gated network, cut."""
    network = SMALL["basic"].gated(8)
    cut(network, random_masks(widths(network), 8))
    return save(network, tmp_path_factory.mktemp("good") / "student")


@pytest.fixture
def folder(good, tmp_path):
    """A copy of it, to damage."""
    return shutil.copytree(good, tmp_path / "student")


def refused(folder: Path, message: str, *, flag: str = "isometry.load") -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_network(folder, flag=flag)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{flag} ")
    assert str(folder.name) in str(caught.value)


def test_no_such_folder(tmp_path):
    refused(tmp_path / "nowhere", "no such folder$")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "no such folder$", flag="bench")


def test_a_folder_without_a_network(folder):
    (folder / "config.json").unlink()
    refused(folder, "no config.json")
    refused(folder.parent, "no config.json")


def test_a_pickle_is_never_opened(folder, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a pickle was opened")

    monkeypatch.setattr(torch, "load", never)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    refused(folder, "no model.safetensors .*pytorch_model.bin is a pickle")
    torch.save(state, folder / "model.safetensors")
    refused(folder, "looks like a pickle")


def test_half_a_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, "safetensors file")


@pytest.mark.parametrize("text", ["{", "[]", '{"architecture": "nonesuch"}'])
def test_a_config_that_is_none(folder, text):
    (folder / "config.json").write_text(text)
    refused(folder, "config.json")


@pytest.mark.parametrize(
    "entries",
    [
        {"group": 0},
        {"group": -8},
        {"group": 7},
        {"group": "8"},
        {"widths": {"layer1.0.conv1": 17}},
        {"widths": {"layer1.0.conv1": 0}},
        {"widths": {"layer1.0.conv1": 9}},
        {"widths": {"layer1.0.conv1": "8"}},
        {"widths": {"layer1.0.conv2": 8}},
        {"widths": [8, 8]},
        {"widths": None},
        {"more": 1},
    ],
)
def test_a_shape_that_the_architecture_can_not_have(folder, entries):
    change(folder, **entries)
    refused(folder, r'"isometry" in config.json does not fit its architecture \(')


@pytest.mark.parametrize("shape", [[], "gates", {}, {"group": 8}])
def test_a_shape_that_is_none(folder, shape):
    config = config_of(folder)
    config["isometry"] = shape
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, r'"isometry" in config.json does not fit')


@pytest.mark.parametrize("entries", [{"group": None}, {"group": 4}, {"widths": {}}])
def test_weights_of_another_shape(folder, entries):
    change(folder, **entries)
    refused(folder, r"model.safetensors does not fit config.json \(.*layer\d\.\d\.conv")


def test_weights_that_are_missing_or_too_many(folder):
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file({key: value for key, value in state.items() if key != "fc.bias"}, path)
    refused(folder, r"Missing key\(s\).*fc.bias")
    save_file({**state, "fc.stray": torch.zeros(1)}, path)
    refused(folder, r"Unexpected key\(s\).*fc.stray")
