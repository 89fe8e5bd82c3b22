"""Networks without memory: stopped where they outgrow a file of weights, with the shapes of those that have memory."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from helpers.dense_networks import BACKBONES, backbone_of
from helpers.exported import cut_folder, vit_folder
from isometry.errors import UserError
from isometry.models.build import build_model
from isometry.models.outline import TooLargeError, misfit, outline, shapes_in, shapes_of
from isometry.models.spec import ModelSpec
from isometry.prune.saving import load_network


@pytest.mark.parametrize("name", BACKBONES)
def test_an_outline_has_the_shapes_of_the_network_and_draws_no_random_number(name):
    network = backbone_of(name)
    shapes = shapes_of(network.state_dict())
    before = torch.get_rng_state()
    outlined = outline(lambda: timm.create_model(name, num_classes=7, **BACKBONES[name]), shapes)
    assert outlined == shapes
    assert torch.equal(torch.get_rng_state(), before)


def test_the_build_stops_soon_after_it_outgrew_the_file():
    built = []

    def build():
        for _ in range(10**9):
            built.append(nn.Linear(2, 2))

    with pytest.raises(TooLargeError, match="which have 1 tensors"):
        outline(build, {"weight": (2, 2)})
    # Two tensors each; 1,000 of them and 4 for that of the file may be there.
    assert len(built) == 502
    with pytest.raises(TooLargeError):
        outline(lambda: nn.Linear(2**14, 2**13), {"weight": (2, 2)})
    assert outline(lambda: nn.Linear(2**13, 2**13, bias=False), {}) == {"weight": (2**13, 2**13)}


def test_networks_that_need_memory_are_left_to_their_build():
    assert outline(lambda: nn.Linear(2, int(torch.ones(1).item())), {}) is None
    nn.Linear(2, 2)


def test_the_first_other_shape_is_named(tmp_path):
    save_file({"a": torch.zeros(2, 3), "b": torch.tensor(1.0)}, tmp_path / "w.safetensors")
    weights = shapes_in(tmp_path / "w.safetensors")
    assert weights == {"a": (2, 3), "b": ()}
    assert misfit({"a": (2, 3), "b": (), "c": (1,)}, weights) is None
    assert misfit({"a": (3, 2), "b": (1,)}, weights) == "a is 2×3 in the file, and 3×2 in the network"
    (tmp_path / "w.safetensors").write_text("x")
    assert shapes_in(tmp_path / "w.safetensors") == {}


@pytest.mark.parametrize("arguments", [{"depth": 5000}, {"embed_dim": 300000}])
def test_a_folder_whose_sizes_are_far_larger_than_its_weights_is_not_built(tmp_path, arguments):
    folder = vit_folder(tmp_path / "student")
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] |= arguments
    (folder / "config.json").write_text(json.dumps(config))
    for load in (
        lambda: build_model(ModelSpec(f"local-dir:{folder}", weights="pretrained")),
        lambda: load_network(folder),
    ):
        with pytest.raises(UserError, match=r"config\.json does not fit model\.safetensors \(its sizes"):
            load()


def test_a_pruned_network_has_less_than_it_is_built_with(tmp_path):
    cut_folder(tmp_path / "student")
    assert load_network(tmp_path / "student").num_classes == 10
