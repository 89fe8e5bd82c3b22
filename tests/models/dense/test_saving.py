"""Folders of detectors and segmentation networks: the same answers after loading, nothing run, faults in one line."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import isometry
from helpers.dense_networks import BACKBONES, dense_network, images_of
from helpers.exported import names_in, vit_folder
from isometry.cli.main import main
from isometry.errors import UserError
from isometry.models.dense.saving import dense_folder, load_dense, save_dense, saved_reading


def answers(network, images):
    with torch.no_grad():
        raw = network.raw(images)
    return raw if isinstance(raw, tuple) else (raw,)


@pytest.mark.parametrize("task", ["detect", "segment"])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_saved_network_has_the_same_answers(tmp_path, task, name):
    network = dense_network(task, name, channels=1)
    save_dense(network, tmp_path / "model")
    assert names_in(tmp_path / "model") == [".isometry.json", "config.json", "model.safetensors"]
    for place in (tmp_path / "model", tmp_path, str(tmp_path)):
        loaded = isometry.load(place)
        assert not any(module.training for module in loaded.modules())
        assert (loaded.task, loaded.class_names, loaded.spec) == (task, network.class_names, network.spec)
        wanted = answers(network, images_of(2, 1))
        assert all(map(torch.equal, answers(loaded, images_of(2, 1)), wanted))


def test_the_network_comes_before_the_backbone_in_the_folder_of_a_run(tmp_path):
    vit_folder(tmp_path / "student")
    save_dense(dense_network("detect"), tmp_path / "model")
    assert isometry.load(tmp_path).task == "detect"
    (tmp_path / "model" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json can't be read"):
        isometry.load(tmp_path)


def test_a_folder_of_the_users_named_model_is_none_of_these(tmp_path):
    vit_folder(tmp_path / "student")
    (tmp_path / "model").mkdir()
    assert dense_folder(tmp_path) is None
    vit_folder(tmp_path / "model")
    assert dense_folder(tmp_path) is None


def test_other_folders_are_none_of_these(tmp_path):
    assert dense_folder(vit_folder(tmp_path / "student")) is None
    assert dense_folder(tmp_path / "nowhere") is None
    assert isometry.load(tmp_path / "student").num_classes == 10


@pytest.mark.slow
def test_a_folder_loads_without_the_code_of_training(tmp_path):
    save_dense(dense_network("detect"), tmp_path / "model")
    script = (
        "import sys, isometry\n"
        "network = isometry.load(sys.argv[1])\n"
        "print(network.task, [name for name in sys.modules if name.startswith('isometry.training')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert done.stdout == "detect []\n"


def test_how_images_were_read_is_kept(tmp_path):
    save_dense(dense_network("segment"), tmp_path / "a", {"exif": "ignore", "pixel_range": "0,4095"})
    assert saved_reading(tmp_path / "a") == {"exif": "ignore", "pixel_range": "0,4095"}
    save_dense(dense_network("segment"), tmp_path / "b")
    assert saved_reading(tmp_path / "b") is None


def test_a_frozen_backbone_is_saved_as_any_other(tmp_path):
    network = dense_network("detect", "resnet18").freeze_backbone()
    save_dense(network, tmp_path / "model")
    loaded = load_dense(tmp_path)
    assert all(map(torch.equal, answers(loaded, images_of(1)), answers(network, images_of(1))))


@pytest.fixture
def saved(tmp_path):
    save_dense(dense_network("detect"), tmp_path / "model")
    return tmp_path / "model"


def change(folder, **values):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in values.items():
        *outer, last = key.split("__")
        place = config
        for each in outer:
            place = place[each]
        place[last] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"isometry_dense": 2}, r"isometry_dense: input should be 1"),
        ({"task": "fly"}, r"task: input should be 'detect' or 'segment'"),
        ({"class_names": []}, r"class_names: list should have at least 1 item"),
        ({"class_names": ["cat"]}, r"model\.safetensors does not fit config\.json"),
        ({"channels": 33}, r"channels: input should be a multiple of 32"),
        ({"channels": 64}, r"model\.safetensors does not fit config\.json"),
        ({"channels": 10**9}, r"channels: input should be less than or equal to 4096"),
        ({"more": 1}, r"more: extra inputs are not permitted"),
        ({"images__input_size": [3, 96]}, r"images\.input_size\.2: field required"),
        ({"images__input_size": [3, 104, 96]}, r"config\.json can't be built"),
        ({"images__input_size": [1, 96, 96]}, r"config\.json can't be built"),
        ({"images__std": [0.0, 1.0, 1.0]}, r"the invalid std"),
        ({"images__std": [0.2, -0.2, 0.2]}, r"the invalid std \[0\.2, -0\.2"),
        ({"images__std": [0.2, float("nan"), 0.2]}, r"the invalid std \[0\.2, nan"),
        ({"images__mean": [0.5, float("inf"), 0.5]}, r"the invalid mean \[0\.5, inf"),
        ({"images__mean": []}, r"the invalid mean \[\]"),
        ({"backbone__architecture": "hf-hub:some/where"}, r"backbone\.architecture: string should match"),
        ({"backbone__architecture": "local-dir:/etc"}, r"backbone\.architecture: string should match"),
        ({"backbone__architecture": "no_such"}, r"timm has no such model"),
        (
            {"backbone__model_args": {"pretrained": True}},
            r"config\.json, model_args\.pretrained: is no argument",
        ),
        ({"\x1b[31mx": 1}, r"invalid \(\\x1b\[31mx: extra inputs"),
        ({"backbone__model_args__depth": 0}, r"config\.json can't be built \(.*has no blocks"),
        ({"backbone__model_args__depth": 10**9}, r"model_args\.depth: must be at most 1,048,576"),
        ({"backbone__model_args__depth": 2000}, r"does not fit config\.json \(its sizes are far larger"),
        ({"backbone__model_args__embed_dim": 10**6}, r"does not fit config\.json \(its sizes are far larger"),
        ({"backbone__model_args__mlp_ratio": 1e30}, r"can't be built with"),
        ({"channels": 4096, "convs": 64}, r"does not fit config\.json \(its sizes are far larger"),
        ({"channels": 64}, r"weight is [0-9×]+ in the file, and [0-9×]+ in the network"),
        ({"backbone__model_args": {"depth": "x"}}, r"can't be built with depth=x"),
    ],
)
def test_a_changed_config_is_refused_in_one_line(saved, values, told):
    change(saved, **values)
    with pytest.raises(UserError, match=told) as error:
        isometry.load(saved)
    assert "\n" not in str(error.value)


def test_a_network_of_another_kind_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not that of a detector or segmentation network"):
        load_dense(vit_folder(tmp_path / "student"))
    with pytest.raises(UserError, match="no such folder"):
        load_dense(tmp_path / "nowhere")


def test_a_teacher_needs_a_classifier_and_the_refusal_says_where_the_backbone_is(saved, capsys):
    assert main(["check", "--dataset", "digits", "--student", "resnet18", "--teacher", str(saved)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "is a detector or segmentation network, and a classifier is needed here; give the folder" in told


def test_weights_that_are_cut_missing_nan_or_a_pickle_are_refused(saved):
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="not a complete safetensors file"):
        isometry.load(saved)
    weights.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="looks like a pickle, which is never opened"):
        isometry.load(saved)
    weights.write_bytes(whole)
    state = load_file(weights)
    state["fcos.head.regression_head.bbox_reg.bias"].fill_(float("nan"))
    save_file(state, weights)
    with pytest.raises(UserError, match="NaN or infinite"):
        isometry.load(saved)
    weights.unlink()
    with pytest.raises(UserError, match="no such file"):
        isometry.load(saved)


def test_a_file_that_somebody_changed_is_not_replaced(saved):
    change(saved, task="segment")
    with pytest.raises(UserError, match="was changed since isometry wrote it"):
        save_dense(dense_network("detect"), saved)
