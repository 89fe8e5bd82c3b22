"""`isometry export --to onnx`: outputs, metadata, measurements; nothing is written after an error."""

import hashlib
import json
import signal
import sys
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from helpers.exported import QUICK, cut_folder, export, gated_folder, names_in, vit_folder
from helpers.messages import mentions
from helpers.runs import call_at, run, send_self
from isometry.data.digits import open_digits
from isometry.export import onnx as onnx_export
from isometry.files import write_output
from isometry.prune.saving import load_network
from isometry.prune.skipping import skipping


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder of a transformer, exported in float32 and in int8."""
    folder = vit_folder(tmp_path_factory.mktemp("vit") / "student")
    assert export(folder, "--to", "onnx", *QUICK) == 0
    assert export(folder, "--to", "onnx", "--quantize", "int8", *QUICK) == 0
    return folder


def outputs(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@pytest.mark.parametrize("size", [1, 2, 7])
@torch.no_grad()
def test_outputs_of_any_batch_size_are_those_of_the_network(exported, size):
    images = torch.randn(size, 1, 8, 8, generator=torch.Generator().manual_seed(size))
    found = outputs(exported / "student.onnx", images)
    torch.testing.assert_close(found, load_network(exported)(images), rtol=1e-4, atol=1e-5)


def test_the_file_has_weights_and_the_normalisation(exported):
    model = onnx.load(exported / "student.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    told = {each.key: each.value for each in model.metadata_props}
    assert told["architecture"] == "vit_tiny_patch16_224"
    assert (json.loads(told["mean"]), json.loads(told["std"])) == ([0.5], [0.25])
    assert json.loads(told["class_names"]) == [str(digit) for digit in range(10)]
    assert not [name for name in names_in(exported) if name.endswith(".data")]


@torch.no_grad()
def test_the_json_file_has_the_measurements(exported):
    told = json.loads((exported / "student.json").read_text())
    file = (exported / "student.onnx").read_bytes()
    assert (told["bytes"], told["sha256"]) == (len(file), hashlib.sha256(file).hexdigest())
    assert [row["form"] for row in told["forms"]] == ["torch", "onnx"]
    assert [(row["batch_size"], row["apart"]) for row in told["checks"]["onnx"]] == [(1, 0), (8, 0)]
    assert told["conditions"]["onnxruntime"] == onnxruntime.__version__
    assert int(told["conditions"]["threads"]) >= 1
    # The test part without the package's loaders.
    digits = open_digits()[2]
    pixels, labels = zip(*(digits.load(number) for number in range(len(digits))), strict=True)
    images = torch.tensor(np.stack([np.asarray(image) for image in pixels]))[:, None].float()
    right = outputs(exported / "student.onnx", (images / 255 - 0.5) / 0.25).argmax(1) == torch.tensor(labels)
    for row in told["forms"]:
        assert (row["images"], row["part"]) == (500, "test")
        assert row["top1"] == pytest.approx(100 * float(right.double().mean()))
        assert row["top1_low"] < row["top1"] < row["top1_high"]
        assert [speed["batch_size"] for speed in row["speeds"]] == [1, 8]
        assert all(speed["ms_low"] <= speed["ms"] <= speed["ms_high"] for speed in row["speeds"])


def test_int8_is_smaller_and_compared_with_both(exported):
    told = json.loads((exported / "student.int8.json").read_text())
    assert [row["form"] for row in told["forms"]] == ["torch", "onnx", "onnx, int8"]
    assert (told["form"], told["precision"]) == ("onnx, int8", "int8 (dynamic, per channel)")
    floats, whole = (row["bytes"] for row in told["forms"][1:])
    assert whole < 0.6 * floats
    assert told["forms"][2]["agreement"] > 80


def test_a_network_without_classes_is_compared_by_its_features(tmp_path, capsys):
    folder = vit_folder(tmp_path / "headless", classes=0)
    assert export(folder, "--to", "onnx", *QUICK, "--out", tmp_path / "new" / "features.onnx") == 0
    told = json.loads((tmp_path / "new" / "features.json").read_text())
    assert told["forms"][1]["cosine"] == pytest.approx(1, abs=1e-6)
    assert all("top1" not in row and "agreement" not in row for row in told["forms"])
    assert "cosine" in capsys.readouterr().out
    assert outputs(tmp_path / "new" / "features.onnx", torch.zeros(3, 1, 8, 8)).shape == (3, 24)


@torch.no_grad()
def test_a_cut_network_is_exported(tmp_path):
    folder = cut_folder(tmp_path / "cut")
    assert export(folder, "--to", "onnx", *QUICK) == 0
    images = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    network = load_network(folder)
    torch.testing.assert_close(
        outputs(folder / "student.onnx", images), network(images), rtol=1e-4, atol=1e-4
    )
    sizes = [list(each.dims) for each in onnx.load(folder / "student.onnx").graph.initializer]
    assert [8, 8, 3, 3] in sizes


@pytest.fixture(scope="module")
def gates(tmp_path_factory):
    return gated_folder(tmp_path_factory.mktemp("gates") / "gated")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Graphs by their options, to build each only once: it takes seconds."""
    return tmp_path_factory.mktemp("graphs"), {}


@pytest.fixture
def made_once(graphs, monkeypatch):
    """Makes exports reuse graphs that were built before."""
    folder, known = graphs
    build = onnx_export._build

    def once(job, data, images, scratch, **asked):
        if tuple(asked.items()) not in known:
            known[tuple(asked.items())] = build(job, data, images, folder, **asked)
        return known[tuple(asked.items())]

    monkeypatch.setattr(onnx_export, "_build", once)


def says(**gain):
    return lambda *arguments: {"median": 1.5, "rounds": 100, **gain}


@torch.no_grad()
def test_skipping_is_exported_if_it_is_faster(gates, made_once, monkeypatch, capsys):
    monkeypatch.setattr(onnx_export, "speed_up", says(low=1.2, high=1.8))
    assert export(gates, "--to", "onnx", *QUICK) == 0
    assert "1.50× as fast at batch 1" in capsys.readouterr().out
    told = json.loads((gates / "student.json").read_text())
    assert told["form"] == "onnx, skipping"
    assert [row["form"] for row in told["forms"]] == ["torch", "torch, skipping", "onnx", "onnx, skipping"]
    assert [node.op_type for node in onnx.load(gates / "student.onnx").graph.node] == ["Scan"]
    images = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    network = load_network(gates)
    torch.testing.assert_close(outputs(gates / "student.onnx", images), network(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(skipping(network)(images), network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.01, 1.8, "not measurably 5 % faster"), (0.8, 1.8, "not measurably"), (0.7, 0.9, "slower")],
)
def test_skipping_that_is_not_faster_is_refused(gates, made_once, monkeypatch, capsys, low, high, verdict):
    before = names_in(gates)
    # The ends of the interval count, not the median.
    monkeypatch.setattr(onnx_export, "speed_up", says(low=low, high=high))
    assert export(gates, "--to", "onnx", *QUICK) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert mentions(said, f"{verdict} … 1.50 times")
    assert "add --masked" in said
    assert names_in(gates) == before


@torch.no_grad()
def test_masked_computes_every_channel(gates):
    assert export(gates, "--to", "onnx", "--masked", "--quantize", "int8", *QUICK) == 0
    told = json.loads((gates / "student.masked.int8.json").read_text())
    assert told["precision"] == "int8 (static, per channel)"
    assert [row["form"] for row in told["forms"]] == ["torch", "onnx", "onnx, int8"]
    graph = onnx.load(gates / "student.masked.int8.onnx").graph
    assert "Scan" not in {node.op_type for node in graph.node}


def test_a_graph_with_other_outputs_is_not_written(tmp_path, monkeypatch, capsys):
    folder = vit_folder(tmp_path / "student")
    write_output(folder / "student.onnx", "an older one")
    before = names_in(tmp_path)
    write = onnx_export.to_onnx

    def other(network, images, path):
        class Doubled(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = network

            def forward(self, images):
                return self.inner(images) * 1.01

        write(Doubled().eval(), images, path)

    monkeypatch.setattr(onnx_export, "to_onnx", other)
    assert export(folder, "--to", "onnx", *QUICK) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "batch 1" in said
    assert names_in(tmp_path) == before
    assert (folder / "student.onnx").read_bytes() == b"an older one"


def test_a_failure_of_the_exporter_is_one_line(tmp_path, monkeypatch, capsys):
    folder = vit_folder(tmp_path / "student")

    def refuses(network, images, path):
        raise RuntimeError("no such operator\nand a page of why")

    monkeypatch.setattr(onnx_export, "to_onnx", refuses)
    assert export(folder, "--to", "onnx", *QUICK) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert mentions(line, f"export {folder}: … vit_tiny_patch16_224 … RuntimeError: no such operator")


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_is_named_with_its_command(tmp_path, monkeypatch, capsys, library):
    monkeypatch.setitem(sys.modules, library, None)
    assert export(vit_folder(tmp_path / "student"), "--to", "onnx", *QUICK) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert mentions(line, f"--to onnx: {library} … pip install 'isometry[onnx]'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--to: … --to onnx … --to timm"),
        (["--to", "coreml"], "--to coreml: … onnx … timm"),
        (["--to", "timm", "--quantize", "int8"], "--quantize: … --to onnx"),
        (["--to", "timm", "--masked"], "--masked: … --to onnx"),
        (["--to", "onnx", "--license", "mit"], "--license: … --to timm"),
        (["--to", "onnx", "--masked"], "--masked: … has no gates"),
        (["--to", "onnx", "--threads", "0"], "--threads 0: "),
        (["--to", "onnx", "--seconds", "0"], "--seconds 0.0: "),
        (["--to", "onnx", "--out", "student.pt"], "--out student.pt: … .onnx"),
        (["--to", "onnx", "--device", "cuda"], "--device cuda: … --to onnx … CPU"),
        (["--to", "onnx"], "no config.yaml … --data-dir … --dataset"),
        (["--to", "onnx", "--data-dir", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, capsys, words, said):
    folder = vit_folder(tmp_path / "student")
    before = names_in(tmp_path)
    assert export(folder, *words) == 2
    told = capsys.readouterr().err
    assert mentions(told, said)
    assert told.count("\n") == 1
    assert names_in(tmp_path) == before


def test_a_skipping_graph_is_not_quantised(gates, capsys):
    assert export(gates, "--to", "onnx", "--quantize", "int8", *QUICK) == 2
    assert "add --masked" in capsys.readouterr().err


def test_exactly_one_existing_folder_is_needed(capsys):
    assert export("--to", "onnx") == 2
    assert export("one", "two", "--to", "onnx") == 2
    assert export("nowhere", "--to", "onnx") == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.json", "x.onnx"])
def test_files_of_the_users_are_not_replaced(exported, tmp_path, capsys, name):
    (tmp_path / name).write_text('{"theirs": 1}')
    words = ("--to", "onnx", "--out", tmp_path / "x.onnx", *QUICK)
    assert export(exported, *words) == 2
    assert f"{tmp_path / name}: isometry has no record of writing this file" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"theirs": 1}')]


def test_files_of_an_export_are_replaced_until_they_are_changed(exported, tmp_path, capsys):
    words = ("--to", "onnx", "--out", tmp_path / "x.onnx", *QUICK)
    assert export(exported, *words) == export(exported, *words) == 0
    figures = tmp_path / "x.json"
    figures.write_text(figures.read_text().replace('"float32"', '"float64"'))
    assert export(exported, *words) == 2
    assert f"{figures}: was changed since isometry wrote it" in capsys.readouterr().err
    assert '"float64"' in figures.read_text()


def test_labels_of_other_classes_are_refused(tmp_path, capsys):
    assert export(vit_folder(tmp_path / "student", classes=7), "--to", "onnx", *QUICK) == 2
    assert mentions(capsys.readouterr().err, "7 classes … 10")


@pytest.mark.parametrize("moment", ["isometry.export.onnx:_build", "torch.onnx:export"])
def test_sigterm_ends_an_export_as_it_ends_everything(moment, tmp_path):
    folder = vit_folder(tmp_path / "student")
    before = names_in(folder)
    words = ["export", str(folder), "--to", "onnx", *QUICK]
    stop = partial(call_at, moment, 1, partial(send_self, signal.SIGTERM))
    ended = run(*words, said=tmp_path / "said", prepare=stop)
    assert (ended.code, ended.err) == (143, "isometry: stopped; give the command again\n")
    assert names_in(folder) == before
