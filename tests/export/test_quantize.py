"""8-bit graphs: kind of quantisation, quantised operators, outputs."""

from collections import Counter

import onnx
import pytest
import timm
import torch

from helpers.small_gated import SMALL
from isometry.export.quantize import DYNAMIC, STATIC, is_convolutional, quantize
from isometry.models.onnx import onnx_run, to_onnx

VIT = {
    "patch_size": 4,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "img_size": 16,
    "in_chans": 1,
    "num_classes": 5,
}


def images(count, channels, side):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def networks(kind):
    torch.manual_seed(0)
    if kind == "transformer":
        return timm.create_model("vit_tiny_patch16_224", **VIT).eval(), images(24, 1, 16)
    if kind == "convolutions":
        return SMALL["basic"].plain(), SMALL["basic"].images(24)
    return SMALL["cifar"].gated(), SMALL["cifar"].images(24)


@pytest.mark.parametrize("kind", ["transformer", "convolutions", "gates"])
@torch.no_grad()
def test_the_kind_of_quantisation_depends_on_the_network(kind, tmp_path):
    network, examples = networks(kind)
    floats, whole = tmp_path / "floats.onnx", tmp_path / "int8.onnx"
    to_onnx(network, examples[:2], floats)
    assert is_convolutional(floats) == (kind != "transformer")
    done = quantize(floats, whole, examples, gated=kind == "gates")
    assert done == (DYNAMIC if kind == "transformer" else STATIC)
    wanted, run = network(examples), onnx_run(whole, 1)
    assert (run(examples) - wanted).abs().mean() < 0.1 * (wanted.max() - wanted.min())
    assert run(examples[:1]).shape == wanted[:1].shape
    graph = onnx.load(whole).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert any(len(each.dims) > 1 for each in graph.initializer if each.data_type == onnx.TensorProto.INT8)
    if kind == "transformer":
        assert kinds["DynamicQuantizeLinear"]
        assert kinds["MatMulInteger"]
    if kind == "convolutions":
        assert kinds["QuantizeLinear"]
        assert kinds["DequantizeLinear"]
        assert not kinds["ConvInteger"]
        # One scale per filter.
        assert [16] in [list(each.dims) for each in graph.initializer if each.name.endswith("_scale")]
    if kind == "gates":
        makers = {name: node.op_type for node in graph.node for name in node.output}
        inputs = {(node.op_type, makers.get(name)) for node in graph.node for name in node.input}
        assert ("Conv", "DequantizeLinear") in inputs
        # The decision of a gate is not quantised.
        for decides in ("Gemm", "GreaterOrEqual"):
            assert (decides, "DequantizeLinear") not in inputs
