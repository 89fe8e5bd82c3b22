"""`isometry bench`: variants found in a folder, measurements, notes, refused input."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch
from rich.console import Console
from torch import nn

from helpers.messages import mentions
from isometry.cli.main import main
from isometry.config import PruneConfig, RunConfig
from isometry.data import Preprocess, find_sources, make_loaders
from isometry.errors import UserError
from isometry.evaluation import timing
from isometry.evaluation.benchmark import FIGURES, PICTURES, BenchConfig, _check_fits, bench
from isometry.evaluation.channel_usage import pruning_report
from isometry.evaluation.memory import weight_bytes
from isometry.evaluation.runtimes import RUNTIMES, Session
from isometry.evaluation.saved_network import SavedNetwork
from isometry.evaluation.timing import whole_batches
from isometry.evaluation.variants import EvaluationImages, measure_variants, variants_of
from isometry.files import OUTPUTS
from isometry.functional.gates import layer_threshold
from isometry.models.cost import macs
from isometry.models.spec import image_spec
from isometry.prune.cost import channel_use
from isometry.prune.gates import gated_convs, take_gate_outputs
from isometry.prune.l1 import l1_cut
from isometry.prune.saving import load_network, save_network
from isometry.prune.sites import add_gates
from isometry.prune.skipping import SkippingNetwork
from isometry.prune.unused_channels import compact
from isometry.recipes import config_to_yaml

SIDE = 16
QUICK = ["--seconds", "1e-6", "--batch-sizes", "1", "4", "--device", "cpu", "--runtimes", "eager"]
DATA_CONFIG = {"input_size": (1, SIDE, SIDE), "mean": (0.5,), "std": (0.25,), "crop_pct": 1.0}


@dataclass(frozen=True)
class Places:
    """Folders of runs, and the networks in them."""

    folder: Path
    dense: nn.Module
    gated: nn.Module
    cut: nn.Module
    images: torch.Tensor
    labels: torch.Tensor


def plain() -> nn.Module:
    """Random weights and norm statistics, so that outputs differ between images."""
    torch.manual_seed(0)
    network = timm.create_model("cifar_resnet20", in_chans=1, num_classes=10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.4, 1.2)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


@torch.no_grad()
def gated(images: torch.Tensor) -> nn.Module:
    """Gates that keep about half of the channels, depending on the image."""
    network = add_gates(plain(), "cifar_resnet20")
    convs = list(gated_convs(network).values())
    for place, conv in enumerate(convs):
        nn.init.normal_(conv.gate.excite.weight, 0, 2)
        nn.init.normal_(conv.gate.excite.bias, 0.7, 0.6)
        network(images)
        mean_G = take_gate_outputs(convs)[place].saliency.mean(0)
        # Saliencies of about 1 keep activations from growing from layer to layer.
        conv.gate.excite.weight /= mean_G.mean()
        conv.gate.excite.bias /= mean_G.mean()
        conv.gate.threshold.copy_(layer_threshold(mean_G / mean_G.mean(), 0.5))
    return network


def config_of(out: Path, **changed) -> RunConfig:
    common = {
        "dataset": "digits", "img_size": SIDE, "in_chans": 1, "num_classes": 10, "crop_pct": 1.0, "workers": 0,
        "validation_batch_size": 250, "prune": PruneConfig(keep_rate=0.6), "out": str(out), "device": "cpu",
    }  # fmt: skip
    return RunConfig(**{**common, **changed})


def save_run(folder: Path, network: nn.Module, **changed) -> None:
    (folder / "student").mkdir(parents=True)
    save_network(network, folder / "student", None, DATA_CONFIG)
    (folder / "config.yaml").write_text(config_to_yaml(config_of(folder, **changed)), encoding="utf-8")


def part_of_digits(network: nn.Module) -> EvaluationImages:
    """The test part of the digits, as in a run."""
    config = config_of(Path("none"))
    spec = image_spec(network, SIDE)
    loaders = make_loaders(find_sources(config), config, spec, seed=0)
    return EvaluationImages(lambda: loaders.test, Preprocess(config, spec, 10, "cpu"), spec, "test", True)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Places:
    folder = tmp_path_factory.mktemp("bench")
    dense = plain()
    (folder / "start").mkdir()
    save_network(dense, folder / "start", None, DATA_CONFIG)
    # Reloaded, so that it has the normalisation of its images.
    dense = load_network(folder / "start")
    material = part_of_digits(dense)
    images, labels = map(
        torch.cat, zip(*(material.preprocess.normalise(batch) for batch in material.batches()), strict=True)
    )
    network, cut = gated(images[:100]), l1_cut(plain(), "cifar_resnet20", 0.5)
    start = f"local-dir:{folder / 'start'}"
    save_run(folder / "gated", network, model=start)
    save_run(folder / "orphan", network, model=f"local-dir:{folder / 'gone'}")
    save_run(folder / "scratch", network, model="cifar_resnet20", prune=PruneConfig(0.6, from_scratch=True))
    save_run(folder / "cut", cut, model=start, prune=PruneConfig(0.5, method="l1"))
    smaller, _ = compact(network, [images[:3]])
    save_run(folder / "compacted", smaller, model=start)
    return Places(folder, dense, network, cut, images, labels)


def benched(capsys, *words: str) -> tuple[int, str, str]:
    code = main(["bench", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def saved(folder: Path) -> dict:
    return json.loads((folder / "bench.json").read_text(encoding="utf-8"))


@torch.no_grad()
def top1(network: nn.Module, places: Places) -> float:
    right = sum(
        int(network(image[None])[0].argmax() == label)
        for image, label in zip(places.images, places.labels, strict=True)
    )
    return 100 * right / len(places.labels)


def test_a_pruned_run_has_three_variants(places, capsys):
    code, out, err = benched(capsys, str(places.folder / "gated"), *QUICK, "--threads", "1")
    assert (code, err) == (0, "")
    found = saved(places.folder / "gated")
    dense, masked, skipping = found["forms"]
    assert [form["form"] for form in found["forms"]] == ["dense", "masked", "skipping"]
    assert dense["top1"] == pytest.approx(top1(places.dense, places))
    assert masked["top1"] == pytest.approx(top1(places.gated, places))
    # Rounding may change images with nearly equal largest logits, or a saliency near its threshold.
    assert skipping["top1"] == pytest.approx(masked["top1"], abs=0.41)
    use = channel_use(places.gated, places.images.split(250), (1, SIDE, SIDE)).macs.double()
    assert skipping["macs"] == pytest.approx(float(use.mean()))
    assert skipping["macs_std"] == pytest.approx(float(((use - use.mean()) ** 2).mean().sqrt()))
    assert (
        float(use.min()) < skipping["macs_low"] < skipping["macs"] < skipping["macs_high"] < float(use.max())
    )
    assert dense["macs"] == macs(places.dense, (1, SIDE, SIDE))
    assert masked["macs"] == macs(places.gated, (1, SIDE, SIDE)) > dense["macs"] > skipping["macs"]
    for form in found["forms"]:
        assert [row["batch_size"] for row in form["speeds"]] == [1, 4]
        for row, first in zip(form["speeds"], dense["speeds"], strict=True):
            assert 0 < row["ms_low"] <= row["ms"] <= row["ms_high"]
            assert row["images_per_s"] == pytest.approx(1000 * row["batch_size"] / row["ms"])
            assert row["ratio"] == pytest.approx(first["ms"] / row["ms"])
        (runtime,) = form["runtimes"]
        assert runtime["runtime"] == "eager"
        assert runtime["speeds"] == form["speeds"]
        single, four = (row["peak_bytes"] for row in form["speeds"])
        assert weight_bytes(places.dense) / 2 < single < four
    assert found["conditions"]["threads"] == "1"
    assert found["conditions"]["torch"] == torch.__version__
    assert set(found["slower"]) == {line for line in out.splitlines() if "as fast as dense" in line}
    for said in (
        "cifar_resnet20",
        "skipping",
        "top-1 on test",
        "batch 4, images/s",
        "1 thread on cpu",
        "bench.json",
    ):
        assert said in out


def test_a_student_folder_is_measured_as_its_run(places, capsys):
    student = places.folder / "gated" / "student"
    code, _, _ = benched(capsys, f"local-dir:{student}", *QUICK)
    assert code == 0
    found = saved(student)
    assert [form["form"] for form in found["forms"]] == ["dense", "masked", "skipping"]
    assert "top1" in found["forms"][0]
    (student / "bench.json").unlink()


@pytest.mark.parametrize(
    ("run", "why"),
    [("orphan", "there is no config.json"), ("scratch", "the network was pruned from scratch")],
)
def test_without_its_initial_network_dense_has_random_weights_and_no_top1(places, capsys, run, why):
    code, out, _ = benched(capsys, str(places.folder / run), *QUICK)
    assert code == 0
    dense, masked, _ = saved(places.folder / run)["forms"]
    assert "top1" not in dense
    assert "top1" in masked
    assert dense["macs"] == macs(places.dense, (1, SIDE, SIDE))
    (told,) = [line for line in out.splitlines() if line.startswith("dense: random weights, so no top-1")]
    assert why in told


def test_a_cut_network_has_two_variants(places, capsys):
    assert benched(capsys, str(places.folder / "cut"), *QUICK)[0] == 0
    dense, cut = saved(places.folder / "cut")["forms"]
    assert cut["form"] == "cut"
    assert cut["macs"] == macs(places.cut, (1, SIDE, SIDE)) < dense["macs"]
    assert cut["top1"] == pytest.approx(top1(places.cut, places))
    assert "macs_std" not in cut


def test_a_compacted_network_still_skips(places, capsys):
    assert benched(capsys, str(places.folder / "compacted"), *QUICK)[0] == 0
    dense, masked, skipping = saved(places.folder / "compacted")["forms"]
    assert skipping["form"] == "skipping"
    assert skipping["macs"] < masked["macs"] < dense["macs"]


def test_a_dense_network_on_a_given_dataset(places, capsys):
    folder = places.folder / "start"
    code, out, _ = benched(capsys, str(folder), *QUICK, "--dataset", "digits")
    assert code == 0
    (dense,) = saved(folder)["forms"]
    assert dense["form"] == "dense"
    assert dense["top1"] == pytest.approx(top1(places.dense, places))
    assert "as fast as dense" not in out


BAD = [
    ("", "bench: expected DIR|NAME ... first"),
    ("--threads 1 gated", "bench: expected DIR|NAME ... first"),
    ("nowhere", "bench nowhere: timm has no such model"),
    ("runs/nowhere", "bench runs/nowhere: no such folder"),
    ("gated nowhere", "bench nowhere: timm has no such model"),
    ("empty", "there is no config.json in empty"),
    ("start", "bench start: has no config.yaml"),
    ("start --data-dir nowhere", "--data-dir nowhere does not exist"),
    ("start --dataset digitz", "--dataset digitz is unknown"),
    ("three --dataset digits", "bench three: the network has 3 classes and the data 10"),
    ("gated --batch-sizes 0", "--batch-sizes [0]: must be at least 1"),
    ("gated --batch-sizes 10000000", "--batch-sizes [10000000]: must be at least 1 and at most 65,536"),
    ("gated --device meta", "--device meta: not available here"),
    ("gated --seconds 0", "--seconds 0.0: must be above 0"),
    ("gated --threads 0", "--threads 0: must be at least 1"),
    ("gated --device cuda:99", "--device cuda:99: not available here"),
    ("gated --runtimes eager onx", "--runtimes onx: no such runtime; there are eager, compiled, onnx"),
    ("gated --batch-size 3", "--batch-size: no such option; did you mean --batch-sizes"),
]


@pytest.mark.parametrize(("words", "told"), BAD)
def test_bad_input_is_refused_in_one_line(places, monkeypatch, capsys, words, told):
    monkeypatch.chdir(places.folder)
    Path("empty").mkdir(exist_ok=True)
    if not Path("three").exists():
        Path("three").mkdir()
        network = timm.create_model("cifar_resnet20", in_chans=1, num_classes=3)
        save_network(network, Path("three"), None, DATA_CONFIG)
    code, out, err = benched(capsys, *words.split())
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_results_that_cannot_be_written_are_one_line(places, monkeypatch, capsys, tmp_path):
    clock(monkeypatch, {"dense": 1.0}, [])
    folder = tmp_path / "network"
    save_network(places.dense, folder, None, DATA_CONFIG)
    (folder / "bench.json").mkdir()
    code, _, err = benched(capsys, str(folder), *QUICK, "--dataset", "digits")
    assert code == 2
    assert err.startswith(f"isometry: {folder / 'bench.json'}: is a folder")
    assert len(err.splitlines()) == 1


# --- measuring
# ------------------------------------------------------------------------------------------------------


def clock(monkeypatch, seconds: dict[str, float], seen: list) -> None:
    """Makes a pass of a variant take the given seconds for each image of the batch."""

    def turns(contenders, wanted):
        seen.append([batches for _, batches in contenders.values()])
        return {
            name: [seconds[getattr(name, "variant", name)] * len(batches[0]) * scale for scale in (1, 9, 1)]
            for name, (_, batches) in contenders.items()
        }

    monkeypatch.setattr(timing, "interleaved_times", turns)


def test_ratios_are_those_of_medians(monkeypatch):
    seen = []
    clock(monkeypatch, {"dense": 0.25, "masked": 0.5, "skipping": 0.125}, seen)
    timed = dict.fromkeys(("dense", "masked", "skipping"), (nn.Identity(), torch.rand(8, 1, 4, 4)))
    speeds = timing.interleaved_speeds(timed, [1, 8], 1.0)
    rows = {name: timing.with_ratios(speeds[name], speeds["dense"]) for name in timed}
    common = {"images_per_s": 4.0, "rounds": 3, "ratio": 1.0}
    assert rows["dense"] == [
        {"batch_size": 1, "ms": 250.0, "ms_low": 250.0, "ms_high": 1250.0, **common},
        {"batch_size": 8, "ms": 2000.0, "ms_low": 2000.0, "ms_high": 10000.0, **common},
    ]
    assert [row["ratio"] for row in rows["masked"]] == [0.5, 0.5]
    assert [row["ratio"] for row in rows["skipping"]] == [2.0, 2.0]
    assert [[[len(batch) for batch in batches] for batches in each] for each in seen] == [
        [[1] * 8] * 3,
        [[8]] * 3,
    ]


def test_variants_that_are_not_faster_are_named(places, monkeypatch, capsys):
    clock(monkeypatch, {"dense": 1.0, "masked": 2.0, "skipping": 1.25}, [])
    _, out, _ = benched(capsys, str(places.folder / "gated"), *QUICK)
    told = [f"skipping is slower at batch {size}: 0.80 times as fast as dense" for size in (1, 4)]
    assert [line for line in out.splitlines() if "as fast as dense" in line] == told
    assert saved(places.folder / "gated")["slower"] == told


def test_each_round_times_other_images(places, monkeypatch):
    seen = []
    clock(monkeypatch, {"dense": 1.0}, seen)
    measure_variants({"dense": places.dense}, part_of_digits(places.dense), [1, 300], 1.0)
    (single,), (large,) = seen
    assert len(single) == 300
    assert [len(batch) for batch in large] == [300]
    known = {image.numpy().tobytes() for image in places.images}
    drawn = [batch[0].numpy().tobytes() for batch in single]
    assert set(drawn) <= known
    assert len(set(drawn)) > 290
    # Not the first ones, which in a folder are all of one class.
    assert drawn != [image.numpy().tobytes() for image in places.images[:300]]


def test_whole_batches_repeat_images_only_if_there_are_too_few():
    images = torch.arange(5.0).view(5, 1, 1, 1)
    assert [batch.flatten().tolist() for batch in whole_batches(images, 2)] == [[0, 1], [2, 3]]
    assert [batch.flatten().tolist() for batch in whole_batches(images, 5)] == [[0, 1, 2, 3, 4]]
    assert [batch.flatten().tolist() for batch in whole_batches(images, 7)] == [[0, 1, 2, 3, 4, 0, 1]]


def test_variants_of_a_network():
    network = plain()
    assert list(variants_of(network, None)) == ["dense"]
    assert list(variants_of(l1_cut(copy.deepcopy(network), "x", 0.5), network)) == ["dense", "cut"]
    with_gates = add_gates(copy.deepcopy(network), "x").train()
    found = variants_of(with_gates, network)
    assert list(found) == ["dense", "masked", "skipping"]
    assert not any(form.training for form in found.values())


def test_threads_are_set_and_restored(places, monkeypatch):
    found = []

    def measured(*_):
        found.append(torch.get_num_threads())
        raise UserError("that is enough")

    monkeypatch.setattr("isometry.evaluation.benchmark._measured", measured)
    before = torch.get_num_threads()
    options = BenchConfig(threads=before + 1, dataset="digits", device="cpu")
    with pytest.raises(UserError, match="that is enough"):
        bench([str(places.folder / "start")], options, Console(quiet=True))
    assert (found, torch.get_num_threads()) == ([before + 1], before)


def test_images_without_labels_have_no_top1(places, monkeypatch):
    clock(monkeypatch, {"dense": 1.0}, [])
    material = part_of_digits(places.dense)
    unlabelled = EvaluationImages(material.batches, material.preprocess, material.spec, "val", False)
    (row,) = measure_variants({"dense": places.dense}, unlabelled, [1], 1.0)
    assert "top1" not in row


def test_the_report_of_each_kind_of_network(places):
    rows = [{"form": "dense", "speeds": []}]
    material = part_of_digits(places.dense)
    of_gates = pruning_report(places.gated, material, rows)
    assert of_gates.layers == list(gated_convs(places.gated))
    assert of_gates.easy.macs > 0
    unlabelled = EvaluationImages(material.batches, material.preprocess, material.spec, "val", False)
    for shown in (pruning_report(places.cut, material, rows), pruning_report(places.gated, unlabelled, rows)):
        assert (shown.forms, shown.layers, shown.easy, shown.maps) == (rows, [], None, [])
        assert "on cpu" in shown.conditions


# --- several networks
# ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_vit(tmp_path) -> Path:
    """A network for images of 8 pixels, unlike the others."""
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=2, in_chans=1,
        num_classes=10,
    )  # fmt: skip
    config = {**DATA_CONFIG, "input_size": (1, 8, 8)}
    save_network(network, tmp_path / "vit", None, config)
    return tmp_path / "vit"


def test_several_networks_are_interleaved_each_on_its_images(
    places, small_vit, monkeypatch, capsys, tmp_path
):
    seen = []
    clock(monkeypatch, {"dense": 1.0, "cut": 0.5}, seen)
    names = [str(places.folder / "start"), str(small_vit), str(places.folder / "cut")]
    code, out, err = benched(capsys, *names, *QUICK, "--dataset", "digits", "--out", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    assert [[batches[0].shape for batches in each] for each in seen] == [
        [(size, 1, side, side) for side in (16, 8, 16, 16)] for size in (1, 4)
    ]
    # The same images for networks with the same image size.
    assert torch.equal(torch.cat(seen[0][0]), torch.cat(seen[0][2]))
    found = saved(tmp_path / "out")
    assert [network["name"] for network in found["networks"]] == names
    assert [[form["form"] for form in network["forms"]] for network in found["networks"]] == [
        ["dense"],
        ["dense"],
        ["dense", "cut"],
    ]
    assert found["networks"][2]["forms"][1]["speeds"][0]["ratio"] == 2.0
    for name in names:
        assert name in found["picture"]
        assert Path(name).name in out
    assert all((tmp_path / "out" / name).is_file() for name in ("bench.svg", "bench.png"))


def test_a_timm_name_has_random_images_and_no_accuracy(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("isometry.models.build.is_online", lambda: False)
    seen = []
    clock(monkeypatch, {"dense": 1.0}, seen)
    code, out, err = benched(capsys, "test_vit", *QUICK)
    assert (code, err) == (0, "")
    found = saved(tmp_path / "runs" / "bench")
    (form,) = found["forms"]
    assert found["data"] == "random images"
    assert "top1" not in form
    assert mentions(out, "test_vit: random weights")
    assert seen[0][0][0].shape == (1, 3, 160, 160)
    assert "no accuracy" in found["picture"]


def test_a_timm_name_is_timed_on_a_dataset_of_other_classes(monkeypatch, capsys, tmp_path):
    built = timm.create_model("cifar_resnet20", num_classes=7).eval()
    monkeypatch.setattr(
        "isometry.evaluation.benchmark_inputs.open_named", lambda name, command: SavedNetwork(name, built)
    )
    code, _, _ = benched(capsys, "known", *QUICK, "--dataset", "digits", "--out", str(tmp_path))
    assert code == 0
    found = saved(tmp_path)
    assert "digits" in found["data"]
    (note,) = found["notes"]
    assert mentions(note, "known: … 7 classes … 10")
    assert "top1" not in found["forms"][0]


def test_batch_1_is_always_measured(places, monkeypatch, capsys, tmp_path):
    clock(monkeypatch, {"dense": 1.0}, [])
    words = ["--dataset", "digits", "--device", "cpu", "--batch-sizes", "3", "--runtimes", "eager"]
    assert benched(capsys, str(places.folder / "start"), *words, "--out", str(tmp_path))[0] == 0
    (form,) = saved(tmp_path)["forms"]
    assert [row["batch_size"] for row in form["speeds"]] == [1, 3]


def test_a_runtime_that_cannot_run_a_network_is_noted_and_omitted(places, monkeypatch, capsys, tmp_path):
    def refuses(network, batches, scratch):
        if isinstance(network, SkippingNetwork):
            raise ValueError("data decides\nhow much is computed")
        return RUNTIMES["eager"](network, batches, scratch)

    monkeypatch.setitem(RUNTIMES, "compiled", refuses)
    words = [*QUICK[:-2], "--runtimes", "compiled", "--out", str(tmp_path)]
    code, out, err = benched(capsys, str(places.folder / "gated"), *words)
    assert (code, err) == (0, "")
    found = saved(tmp_path)
    (note,) = found["notes"]
    assert note in out
    assert mentions(note, "skipping, compiled: … data decides")
    assert [[row["runtime"] for row in form["runtimes"]] for form in found["forms"]] == [
        ["eager", "compiled"],
        ["eager", "compiled"],
        ["eager"],
    ]
    compiled = found["forms"][0]["runtimes"][1]
    assert (compiled["largest_difference"], compiled["other_class"]) == (0, 0)


def test_a_runtime_with_other_outputs_is_noted(places, monkeypatch, capsys, tmp_path):
    def other(network, batches, scratch):
        return Session(lambda images: -network(images), lambda images: None)

    monkeypatch.setitem(RUNTIMES, "compiled", other)
    words = [*QUICK[:-2], "--runtimes", "compiled", "--out", str(tmp_path), "--dataset", "digits"]
    code, out, _ = benched(capsys, str(places.folder / "start"), *words)
    assert code == 0
    (note,) = saved(tmp_path)["notes"]
    assert mentions(note, "dense, compiled: … 4 of 4 images")
    assert note in out
    # Unknown memory is a dash.
    assert next(line for line in out.splitlines() if "compiled │" in line).rstrip("│ ").endswith("–")


def test_a_network_that_cannot_run_is_one_line(places, monkeypatch, capsys, tmp_path):
    def fails(network, batches, scratch):
        raise RuntimeError("no kernel")

    monkeypatch.setitem(RUNTIMES, "eager", fails)
    code, _, err = benched(capsys, str(places.folder / "start"), *QUICK, "--dataset", "digits")
    assert code == 2
    assert mentions(err, f"bench {places.folder / 'start'}: … RuntimeError: no kernel")
    assert len(err.splitlines()) == 1


def test_a_folder_that_cannot_be_created_is_one_line(places, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    words = [*QUICK, "--dataset", "digits", "--out", str(tmp_path / "file" / "out")]
    code, _, err = benched(capsys, str(places.folder / "start"), *words)
    assert code == 2
    assert f"--out {tmp_path / 'file' / 'out'}: " in err


def test_files_of_the_users_are_not_replaced(places, capsys, tmp_path):
    words = (str(places.folder / "start"), *QUICK, "--dataset", "digits", "--out", str(tmp_path))
    assert benched(capsys, *words)[0] == benched(capsys, *words)[0] == 0
    known = (tmp_path / OUTPUTS).read_text()
    for name in (FIGURES, *PICTURES):
        record = json.loads(known)
        del record[name]
        (tmp_path / OUTPUTS).write_text(json.dumps(record))
        kept = (tmp_path / name).read_bytes()
        code, _, err = benched(capsys, *words)
        assert (code, (tmp_path / name).read_bytes()) == (2, kept)
        assert f"{name}: isometry has no record of writing this file" in err


def test_onnx_runtime_is_compared_with_torch(places, capsys, tmp_path):
    words = ["--runtimes", "onnx", "--dataset", "digits", "--out", str(tmp_path)]
    code, out, err = benched(capsys, str(places.folder / "start"), *QUICK[:-2], *words)
    assert (code, err) == (0, "")
    found = saved(tmp_path)
    eager, onnx = found["forms"][0]["runtimes"]
    assert (eager["runtime"], onnx["runtime"]) == ("eager", "onnx")
    assert onnx["largest_difference"] < 1e-3
    assert (onnx["other_class"], onnx["compared"]) == (0, 4)
    version = found["conditions"]["onnxruntime"]
    assert f"onnxruntime {version}" in out


def test_a_batch_that_does_not_fit_in_the_machine_is_refused_before_it_is_made():
    _check_fits(64, (3, 224, 224))
    with pytest.raises(UserError, match=r"--batch-sizes 65536: such a batch takes .* and this machine has"):
        _check_fits(65_536, (3, 4096, 4096))
