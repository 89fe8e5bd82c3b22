"""Options of pruning; bad ones are refused in one line before anything is built or written."""

import shlex
import socket
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from helpers.pruned_runs import SIZED, dense_run, small_network
from helpers.runs import config_of
from isometry.cli.main import main
from isometry.config import PruneConfig
from isometry.models.build import save_model
from isometry.prune.cutting import widths
from isometry.prune.gates import gated_convs
from isometry.prune.options import check_pruning, pruned
from isometry.prune.saving import save_network
from isometry.prune.sites import add_gates

DATA = {"input_size": (1, 16, 16), "mean": (0.5,), "std": (0.5,)}
RUN = shlex.join([*SIZED, "--epochs", "2", "--out", "new"])
PRUNE = f"prune {RUN} --keep-rate 0.6"
GATED = "what can be pruned: ResNets, RegNets"
NO_NETWORK = "--initial-checkpoint FILE"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dense run, pruned runs, and one that has not finished."""
    place = tmp_path_factory.mktemp("place")
    dense_run(place / "dense")
    save_network(add_gates(small_network(), "cifar_resnet20"), place / "gated" / "student", None, DATA)
    smaller = pruned(small_network(), "cifar_resnet20", PruneConfig(0.5, method="l1"))
    save_network(smaller, place / "cut" / "student", None, DATA)
    (place / "begun" / "last").mkdir(parents=True)
    vit = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3, "img_size": 16}
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", in_chans=1, num_classes=10, **vit)
    save_model(network, place / "vit" / "student", None, DATA)
    return place


@pytest.fixture
def at_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder, without a network connection."""
    monkeypatch.chdir(place)

    def nowhere(*_: object) -> None:
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr("isometry.models.weights.getproxies", dict)


BAD = [
    # Terms.
    (
        f"{PRUNE} --model dense --losses.sparsity 0.02",
        "--losses: sparsity only moves gates",
        "e.g. --losses.ce 1",
    ),
    # Networks.
    (
        f"{PRUNE} --model vit",
        "--model local-dir:vit/student: has no convolutions on residual branches",
        GATED,
    ),
    (f"{PRUNE} --model vit_tiny_patch16_224", "--model vit_tiny_patch16_224: has no convolutions on", GATED),
    (
        f"{PRUNE} --model vit_tiny_patch16_224 --prune.method l1",
        "--model vit_tiny_patch16_224: has no",
        GATED,
    ),
    (f"{PRUNE} --model vgg11 --from-scratch", "--model vgg11: has no convolutions on residual", GATED),
    (f"{PRUNE} --model resnext50_32x4d", "--model resnext50_32x4d: layer1.0.conv2 is a grouped", GATED),
    (f"{PRUNE} --model regnety_002", "--model regnety_002: s1.b1.conv2 is a grouped convolution", GATED),
    (f"{PRUNE} --model mobilenetv3_small_050", "--model mobilenetv3_small_050: has no", GATED),
    (f"{PRUNE} --model resnet18", "--model resnet18: ", NO_NETWORK),
    (f"{PRUNE} --model resnet18.a1_in1k", "--model resnet18.a1_in1k: ", NO_NETWORK),
    (f"{PRUNE} --model resnet18 --initial-checkpoint gone.pth", "--initial-checkpoint gone.pth: no such", ""),
    (f"{PRUNE} --model resnet81", "--model resnet81: timm has no such model; did you mean", ""),
    (f"{PRUNE} --model cifar_resnet20", "--model cifar_resnet20: was never trained", "--from-scratch"),
    (f"{PRUNE} --model cifar_resnet20 --prune.method l1", "--model cifar_resnet20: was never", ""),
    (f"{PRUNE} --model gated", "--model local-dir:gated/student: ", "pruned"),
    (f"{PRUNE} --model cut", "--model local-dir:cut/student: ", "pruned"),
    (f"train {RUN} --model gated", "--model local-dir:gated/student: ", "pruned"),
    (f"{PRUNE} --model dense --teacher cut", "--teacher local-dir:cut/student: ", "pruned"),
    (f"{PRUNE} --model begun", "--model begun: there is no saved network in this folder", ""),
    (f"{PRUNE} --model local-dir:begun", "--model local-dir:begun: there is no config.json in begun", ""),
    # How much, and of what.
    (f"prune {RUN} --model dense", "--keep-rate: not given", "--keep-rate 0.6"),
    (f"{PRUNE} --model dense --keep-rate 0", "--keep-rate 0.0: must be above 0 and at most 1", ""),
    (f"{PRUNE} --model dense --keep-rate 1.5", "--keep-rate 1.5: must be above 0 and at most 1", ""),
    (f"{PRUNE} --model dense --keep-rate -0.6", "--keep-rate -0.6: must be above 0 and at most 1", ""),
    (f"{PRUNE} --model dense --keep-rate .nan", "--keep-rate nan: must be above 0 and at most 1", ""),
    (f"{PRUNE} --model dense --keep-rate", "--keep-rate: no value given", ""),
    (f"{PRUNE} --model dense --keep-rate most", "--keep-rate most: expected a number", ""),
    (f"{PRUNE} --model dense --prune.group 0", "--prune.group 0: must be at least 1", ""),
    (f"{PRUNE} --model dense --prune.group 3", "--prune.group 3: layer1.0.conv1 has 8 channels", "multiple"),
    (f"{PRUNE} --model dense --prune.group 16", "--prune.group 16: layer1.0.conv1 has 8 channels", ""),
    (f"{PRUNE} --model dense --prune.method l2", "--prune.method l2: expected gates or l1", ""),
    # Together with what.
    (f"{PRUNE} --model dense --prune.method l1 --compact", "--prune.method l1: cuts single filters", ""),
    (f"{PRUNE} --model dense --prune.method l1 --prune.group 8", "--prune.method l1: cuts single", ""),
    (f"{PRUNE} --model dense --grow.depth 1,2", "--grow, --keep-rate: a network can't grow and be", ""),
    (f"{PRUNE} --model dense --grow.width 4,8", "--grow, --keep-rate: a network can't grow and be", ""),
    (f"train {RUN} --model dense --compact", "--compact: is for pruning; add --keep-rate", ""),
    (f"train {RUN} --model dense --from-scratch", "--from-scratch: is for pruning; add", ""),
    (f"train {RUN} --model dense --prune.group 8", "--prune.group: is for pruning; add --keep-rate", ""),
    (f"train {RUN} --model dense --prune.method l1", "--prune.method: is for pruning; add --keep-rate", ""),
    (
        f"train {RUN} --model dense --losses.sparsity 1",
        "losses.sparsity needs a model with gates",
        "isometry prune",
    ),
    (f"train {RUN} --model dense --losses.similarity 1", "losses.similarity needs a model with gates", ""),
    (
        f"{PRUNE} --model dense --prune.method l1 --losses.sparsity 1",
        "losses.sparsity needs a model with",
        "",
    ),
    (
        f"{PRUNE} --model dense --losses.ce 1 --losses.sparsity.gamma 0",
        "losses.sparsity: gamma must be above 0",
        "",
    ),
    (f"{PRUNE} --model dense --prune.settle 1", "--prune.settle 1.0: must be at least 0 and below 1", ""),
    # Spelling.
    (f"{PRUNE} --model dense --prune.kep-rate 0.5", "--prune.kep-rate: no such option", "--prune.keep-rate"),
    (f"{PRUNE} --model dense --prune.grup 8", "--prune.grup: no such option; ", ""),
    (f"prune {RUN} --model dense --keeprate 0.5", "--keeprate: no such option", "--keep-rate"),
    (f"{PRUNE} --model dense --compct", "--compct: no such option; did you mean --compact", ""),
    (f"{PRUNE} --model dense --from-scrach", "--from-scrach: no such option", "--from-scratch"),
]


@pytest.mark.usefixtures("at_place")
@pytest.mark.parametrize(("words", "message", "advice"), BAD)
def test_what_can_not_be_pruned_is_said_in_one_line(
    words: str, message: str, advice: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(shlex.split(words))
    output = capsys.readouterr()
    assert code == 2, output
    (line,) = output.err.splitlines()
    # Folders are named in full.
    assert line.replace(f"{place}/", "").startswith(f"isometry: {message}")
    assert advice in line
    assert not (place / "new").exists()


@pytest.mark.usefixtures("at_place")
def test_what_was_trained_is_enough_and_what_was_not_may_be_asked_for(place: Path) -> None:
    for words in (
        "--model dense",
        "--model local-dir:dense/student",
        "--model cifar_resnet20 --from-scratch",
        "--model cifar_resnet20 --initial-checkpoint dense/student/model.safetensors",
        "--model resnet18",
        "--model dense --keep-rate 1",
        "--model dense --keep-rate 1e-9",
    ):
        config = config_of("--keep-rate", "0.5", *shlex.split(words))
        check_pruning(config.prune, config, grows=False)


def test_nothing_is_pruned_unless_it_is_asked_for() -> None:
    network = small_network()
    before = dict(network.named_modules())
    assert pruned(network, "cifar_resnet20", PruneConfig()) is network
    assert dict(network.named_modules()) == before


def test_gates_are_put_in_groups_and_filters_are_cut() -> None:
    gated = pruned(small_network(), "cifar_resnet20", PruneConfig(0.5, group=8))
    assert [conv.group for conv in gated_convs(gated).values()] == [8] * 6
    smaller = pruned(small_network(), "cifar_resnet20", PruneConfig(0.5, method="l1"))
    assert not gated_convs(smaller)
    assert list(widths(smaller).values()) == [4, 8, 8]
    assert sum(map(nn.Parameter.numel, smaller.parameters())) < sum(
        map(nn.Parameter.numel, small_network().parameters())
    )
