"""Options of runs that transfer a network: defaults by task, and refusals."""

import pytest

from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.training.transfer.options import DENSE_OPTIONS, named_network, transfer_config

NETWORK = {"model": "vit_tiny_patch16_224"}


def test_defaults_are_those_of_the_task():
    detect = transfer_config(NETWORK, {"task": "detect", "dataset": "digit-scenes"}, {})
    photos = transfer_config(NETWORK, {"task": "segment", "data_dir": "photos"}, {})
    classes = transfer_config(NETWORK, {"task": "classify", "dataset": "digits"}, {})
    assert (detect.batch_size, detect.hflip, detect.losses) == (16, 0, {})
    assert (photos.batch_size, photos.hflip) == (16, 0.5)
    assert (classes.batch_size, classes.hflip, classes.losses) == (64, 0, {"ce": 1})
    given = transfer_config(NETWORK, {"task": "detect", "batch_size": 4}, {"lr": 0.5})
    assert (given.batch_size, given.lr) == (4, 0.5)


@pytest.mark.parametrize(
    "option", [{"mixup": 0.2}, {"amp_dtype": "float16"}, {"teacher": "deit_tiny"}, {"model_ema": True}]
)
def test_options_that_would_do_nothing_are_refused(option):
    (name,) = option
    with pytest.raises(UserError, match=f"--overrides: {name}: --task detect has no such option"):
        transfer_config(NETWORK, {"task": "detect"}, option)
    assert transfer_config(NETWORK, {"task": "classify"}, option)


def test_the_options_of_dense_tasks_are_options_of_runs():
    assert set(vars(RunConfig())) >= DENSE_OPTIONS


def test_names_and_folders(tiny_teacher):
    assert named_network("resnet18") == {"model": "resnet18", "pretrained": True}
    assert named_network("resnet18", random_weights=True) == {"model": "resnet18", "pretrained": False}
    assert named_network(str(tiny_teacher)) == {"model": f"local-dir:{tiny_teacher}"}
    found = named_network(str(tiny_teacher), random_weights=True)
    assert found["model"] == "cait_xxs24_224"
    assert (found["model_kwargs"]["depth"], found["model_kwargs"]["img_size"]) == (2, [8, 8])
    assert "num_classes" not in found["model_kwargs"]
    with pytest.raises(UserError, match="no such folder"):
        named_network("no/such")
