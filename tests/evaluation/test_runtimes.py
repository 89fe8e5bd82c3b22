"""Runtimes: outputs equal to the network's, refusals in one line, peak memory."""

from functools import partial

import pytest
import torch
from torch import nn

from helpers.small_gated import SMALL
from isometry.errors import UserError
from isometry.evaluation.memory import weight_bytes
from isometry.evaluation.runtimes import RUNTIMES, prepare
from isometry.models import onnx
from isometry.models.onnx import onnx_bytes, to_onnx
from isometry.prune.skipping import skipping


class Small(nn.Module):
    """Convolution and classifier."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, width, 3), nn.Linear(width, 3)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean((2, 3)))


class DataDecides(Small):
    """The amount of computation depends on the image."""

    def forward(self, images):
        kept = images[images.sum((1, 2, 3)) > float(images.mean())]
        return super().forward(kept) if len(kept) > 1 else super().forward(images)


def batches(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 1, 8, 8, generator=generator) for size in sizes]


@pytest.fixture
def traced_only(monkeypatch):
    """torch.compile without the C++ compiler, which takes seconds per network."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def check_outputs(runtime: str, tmp_path) -> None:
    torch.manual_seed(0)
    network, images = Small().eval(), batches(1, 4)
    run = prepare(runtime, network, images, tmp_path).run
    with torch.no_grad():
        # 3 is not among the batch sizes that it was prepared with.
        for batch in (*images, *batches(3)):
            torch.testing.assert_close(run(batch), network(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("runtime", ["eager", "onnx"])
def test_outputs_are_those_of_the_network(runtime, tmp_path):
    check_outputs(runtime, tmp_path)


def test_outputs_are_those_of_the_network_when_traced(traced_only, tmp_path):
    check_outputs("compiled", tmp_path)


@pytest.mark.slow
def test_outputs_are_those_of_the_network_when_compiled(tmp_path):
    check_outputs("compiled", tmp_path)


def test_networks_of_one_class_are_compiled_separately(traced_only, tmp_path):
    """More graphs of one class than torch keeps per function."""
    made = []
    with torch._dynamo.config.patch(recompile_limit=2), torch.no_grad():
        for width in range(4, 8):
            network = Small(width).eval()
            made.append((network, prepare("compiled", network, batches(1, 2), tmp_path).run))
        for network, run in made:
            torch.testing.assert_close(run(batches(2)[0]), network(batches(2)[0]))


@pytest.mark.parametrize("runtime", ["compiled", "onnx"])
def test_data_dependent_networks_are_refused_in_one_line(runtime, traced_only, tmp_path):
    with pytest.raises(UserError) as told:
        prepare(runtime, DataDecides().eval(), batches(1, 4), tmp_path)
    assert len(str(told.value).splitlines()) == 1
    assert len(str(told.value)) < 240


@torch.no_grad()
def test_a_skipping_network_runs_on_onnx(tmp_path):
    small = SMALL["basic"]
    form, images = skipping(small.gated()), small.images(4)
    run = prepare("onnx", form, [images[:1], images], tmp_path).run
    torch.testing.assert_close(run(images), form(images), rtol=1e-4, atol=1e-4)


def test_a_batch_of_one_is_enough_for_onnx(tmp_path):
    network = Small().eval()
    run = prepare("onnx", network, batches(1), tmp_path).run
    with torch.no_grad():
        torch.testing.assert_close(run(batches(5)[0]), network(batches(5)[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("library", ["onnxscript", "onnxruntime"])
def test_a_missing_library_is_named_with_its_command(monkeypatch, library, tmp_path):
    def missing(name):
        if name == library:
            raise ImportError(name)
        return __import__(name)

    monkeypatch.setattr(onnx, "import_module", missing)
    monkeypatch.setattr("isometry.evaluation.runtimes.to_onnx", lambda *_: onnx.library("onnxscript"))
    with pytest.raises(UserError, match=rf"{library} .*'isometry\[onnx\]'"):
        prepare("onnx", Small().eval(), batches(1), tmp_path)


def test_on_another_device_onnx_is_not_measured(tmp_path):
    images = [torch.zeros(1, 1, 8, 8, device="meta")]
    with pytest.raises(UserError, match="--device cpu"):
        prepare("onnx", Small().to("meta").eval(), images, tmp_path)


def test_peak_memory_includes_weights_and_grows_with_the_batch(traced_only, tmp_path):
    network = Small(300).eval()
    for runtime in ("eager", "compiled"):
        made = prepare(runtime, network, batches(32, 64), tmp_path)
        few, many = (made.peak_bytes(batch) for batch in batches(32, 64))
        pixels = 6 * 6
        assert few > weight_bytes(network) + 32 * 4 * 300 * pixels
        assert many - few > 32 * 4 * 300 * pixels


def test_onnx_memory_includes_weights_and_grows_with_the_batch(tmp_path):
    small, large = nn.Linear(2000, 3), nn.Sequential(nn.Linear(2000, 4000), nn.ReLU(), nn.Linear(4000, 3))
    found = {}
    for name, network in (("small", small), ("large", large)):
        to_onnx(network.eval(), torch.zeros(2, 2000), tmp_path / f"{name}.onnx")
        for size in (1, 2000):
            found[name, size] = onnx_bytes(tmp_path / f"{name}.onnx", torch.zeros(size, 2000), 1)
    # 32 MB of weights and 32 MB of activations: more than the variation of a process.
    weights, activations = 4 * 2000 * 4000, 4 * 2000 * 4000
    assert found["large", 1] - found["small", 1] > 0.8 * weights
    assert found["large", 2000] - found["large", 1] > 0.8 * activations


def test_memory_of_an_invalid_file_is_unknown(tmp_path):
    (tmp_path / "not.onnx").write_bytes(b"not a graph")
    assert onnx_bytes(tmp_path / "not.onnx", torch.zeros(1, 3), 1) is None


def test_runtimes_are_shown_eager_first():
    assert list(RUNTIMES) == ["eager", "compiled", "onnx"]
