"""The skipping form as an ONNX graph, which computes only the kept channels of each image.

ONNX convolutions take their weights as an input, so the kept rows and columns of the filters are gathered for each
image. ONNX Runtime can't optimise such weights in advance as it does constant ones; the time saved has to make up for
that, and is measured for each network. On one thread at batch 1, interleaved: a ResNet-18 at 224 pixels takes 13.0 ms
instead of 18.4 masked with half of its channels, 9.0 instead of 19.6 with a quarter; a ResNet-20 at 32 pixels with half
of its channels is no faster (0.85 times).

Shape suffixes: C channels in, K channels kept, D channels out, G gates, H and W.
"""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isometry.functional.gates import kept_gates
from isometry.models.onnx import library
from isometry.prune.skipping import SkippingBlock, SkippingNetwork
from isometry.prune.skipping_conv import SkippingConv


class GatheredConv(nn.Module):
    """:class:`isometry.prune.skipping_conv.SkippingConv` in operations that ONNX has."""

    weight: Tensor

    def __init__(self, conv: SkippingConv) -> None:
        super().__init__()
        self.conv, self.out_channels, self.stride = conv, conv.out_channels, conv.stride
        self.register_buffer("weight", conv.filters(conv.weight).contiguous())

    def forward(self, image_1CHW: Tensor, columns_K: Tensor | None) -> tuple[Tensor, Tensor]:
        """As :meth:`isometry.prune.skipping_conv.SkippingConv.forward`, in any memory format."""
        conv = self.conv
        saliency_1G = conv.saliency(conv.pooled(image_1CHW, columns_K))
        gates_K = kept_gates(saliency_1G, conv.threshold)[0].nonzero()[:, 0]
        # Facts for the exporter: the largest saliency is always kept.
        torch._check(gates_K.shape[0] >= 1)
        torch._check(gates_K.shape[0] <= saliency_1G.shape[1])
        scale_K = saliency_1G[0].index_select(0, gates_K).repeat_interleave(conv.group)
        rows_K = (gates_K[:, None] * conv.group + conv.members).flatten()
        weight_KC = self.weight.index_select(0, rows_K)
        if columns_K is not None:
            weight_KC = weight_KC.index_select(1, columns_K)
        bias_K = conv.bias.index_select(0, rows_K)
        output = F.conv2d(image_1CHW, weight_KC, bias_K, conv.stride, conv.padding, conv.dilation)
        return output * scale_K[:, None, None], rows_K


class GatheredBlock(SkippingBlock):
    """:class:`isometry.prune.skipping.SkippingBlock` for one image, in operations that ONNX has."""

    def __init__(self, block: SkippingBlock) -> None:
        convs: list[Any] = [GatheredConv(conv) for conv in block.convs]  # type: ignore[arg-type]
        super().__init__(convs, list(block.afters), block.shortcut, block.act)

    def forward(self, image_1CHW: Tensor) -> Tensor:
        output, channels_K = self.branch(image_1CHW)
        if channels_K is not None:
            output = self.spread(output, channels_K, self.widths[-1])
        return self.act(output if self.shortcut is None else output + self.shortcut(image_1CHW))

    def spread(self, values_1KHW: Tensor, channels_K: Tensor, channels: int) -> Tensor:
        """All channels, 0 but for the given ones."""
        full_CHW = values_1KHW.new_zeros(channels, *values_1KHW.shape[2:])
        return full_CHW.index_copy(0, channels_K, values_1KHW[0])[None]


class OneImage(nn.Module):
    """A skipping network for one image: (C, H, W) -> its output (K,)."""

    def __init__(self, skipping: SkippingNetwork) -> None:
        super().__init__()
        copied = copy.deepcopy(skipping.network)
        self.network = _gathered(copied).to(memory_format=torch.contiguous_format).eval()

    def forward(self, image_CHW: Tensor) -> Tensor:
        return self.network(image_CHW[None])[0]


@torch.no_grad()
def skipping_to_onnx(network: SkippingNetwork, image_CHW: Tensor, path: Path) -> None:
    """Writes a skipping network on the CPU to an ONNX file that takes batches of any size, image by image.

    Raises:
        UserError: the ``onnx`` extra is not installed.
        Exception: from the exporter, for a network that it can't convert.
    """
    library("onnxscript")
    onnx = library("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            OneImage(network),
            (image_CHW,),
            dynamo=True,
            input_names=["image"],
            output_names=["answer"],
            verbose=False,
        )
    assert program is not None
    onnx.save(_each_image(program.model_proto), path)


def _each_image(single: Any) -> Any:
    """A model of one image -> a model of a batch, by ONNX's ``Scan`` over its first axis."""
    helper = library("onnx.helper")

    def batched(inner: Any, name: str) -> Any:
        kind = inner.type.tensor_type
        return helper.make_tensor_value_info(
            name, kind.elem_type, ["batch", *(size.dim_value for size in kind.shape.dim)]
        )

    scan = helper.make_node("Scan", ["images"], ["logits"], body=single.graph, num_scan_inputs=1)
    images, logits = batched(single.graph.input[0], "images"), batched(single.graph.output[0], "logits")
    graph = helper.make_graph([scan], "network", [images], [logits])
    versions = {"opset_imports": single.opset_import, "ir_version": single.ir_version}
    return helper.make_model(graph, functions=single.functions, **versions)


def _gathered(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, SkippingBlock):
            setattr(module, name, GatheredBlock(child))
        else:
            _gathered(child)
    return module
