"""A network that skips as an ONNX graph that computes, image by image, only the channels that its gates keep.

ONNX has no convolution that skips, but one whose weights are an input: the kept rows and columns of the filters are
gathered for each image, and a smaller convolution is made of them. ONNX Runtime can't prepare such weights beforehand,
as it does constant ones, so what is skipped has to earn that first, and whether it does is measured for each network.
On one thread at batch 1, forms in turns: a ResNet-18 at 224 pixels with half of its channels on takes 13.0 ms instead
of 18.4 masked, with a quarter 9.0 instead of 19.6; a ResNet-20 at 32 pixels is no faster (0.85 times, keep rate 0.5).

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
    """What :class:`isometry.prune.skipping_conv.SkippingConv` computes, in operations that ONNX has."""

    weight: Tensor
    members: Tensor

    def __init__(self, conv: SkippingConv) -> None:
        super().__init__()
        self.conv = conv
        filters_DCkk = conv.weight.view(conv.out_channels, *conv.kernel_size, -1).permute(0, 3, 1, 2)
        self.register_buffer("weight", filters_DCkk.contiguous())

    def forward(self, image_1CHW: Tensor, columns_K: Tensor | None) -> tuple[Tensor, Tensor]:
        """The kept channels (1, K, H, W) of one image, and their numbers (K,), ascending.

        Args:
            image_1CHW: with ``columns_K``, those channels of the input alone.
            columns_K: which channels of the input there are, all others being 0; None for all of them.
        """
        conv = self.conv
        pooled_1C = image_1CHW.mean((2, 3))
        if columns_K is not None:
            pooled_1C = pooled_1C.new_zeros(1, conv.in_channels).index_copy(1, columns_K, pooled_1C)
        hidden = F.relu(F.linear(pooled_1C, conv.squeeze_weight, conv.squeeze_bias))
        saliency_1G = F.relu(F.linear(hidden, conv.excite_weight, conv.excite_bias))
        gates_K = kept_gates(saliency_1G, conv.threshold)[0].nonzero()[:, 0]
        # What no graph can know: that the largest saliency is always kept.
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


class GatheredBlock(nn.Module):
    """A residual block of one image; see :class:`isometry.prune.skipping.SkippingBlock`."""

    def __init__(self, block: SkippingBlock) -> None:
        super().__init__()
        self.convs = nn.ModuleList(GatheredConv(conv) for conv in block.convs)  # type: ignore[arg-type]
        self.afters, self.shortcut, self.act = block.afters, block.shortcut, block.act
        self.stays_compact, self.widths = block.stays_compact, block.widths

    def forward(self, image_1CHW: Tensor) -> Tensor:
        branch, columns_K = image_1CHW, None
        for conv, after, stays_compact, width in zip(
            self.convs, self.afters, self.stays_compact, self.widths, strict=True
        ):
            branch, columns_K = conv(branch, columns_K)
            if not stays_compact:
                branch, columns_K = _spread(branch, columns_K, width), None
            branch = after(branch)
        if columns_K is not None:
            branch = _spread(branch, columns_K, self.widths[-1])
        return self.act(branch if self.shortcut is None else branch + self.shortcut(image_1CHW))


class OneImage(nn.Module):
    """A network that skips, for an image (C, H, W) -> what it answers (K,)."""

    def __init__(self, skipping: SkippingNetwork) -> None:
        super().__init__()
        copied = copy.deepcopy(skipping.network)
        self.network = _gathered(copied).to(memory_format=torch.contiguous_format).eval()

    def forward(self, image_CHW: Tensor) -> Tensor:
        return self.network(image_CHW[None])[0]


@torch.no_grad()
def skipping_to_onnx(network: SkippingNetwork, image_CHW: Tensor, path: Path) -> None:
    """Writes a network that skips to ``path``, for batches of any size, gone through image by image.

    Args:
        network: of :func:`isometry.prune.skipping.skipping`, on the CPU; left alone.
        image_CHW: an example.
        path: of the ``.onnx`` file.

    Raises:
        UserError: the ``onnx`` extra is not installed.
        Exception: whatever the exporter raises for a network that it can not take.
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
    """A model of one image -> a model of a batch, by ONNX's ``Scan``, which goes through its first axis."""
    helper = library("onnx.helper")

    def batched(inner: Any, name: str) -> Any:
        kind = inner.type.tensor_type
        return helper.make_tensor_value_info(
            name, kind.elem_type, ["batch", *(size.dim_value for size in kind.shape.dim)]
        )

    scan = helper.make_node("Scan", ["images"], ["logits"], body=single.graph, num_scan_inputs=1)
    graph = helper.make_graph(
        [scan],
        "network",
        [batched(single.graph.input[0], "images")],
        [batched(single.graph.output[0], "logits")],
    )
    return helper.make_model(
        graph,
        opset_imports=single.opset_import,
        ir_version=single.ir_version,
        functions=single.functions,
    )


def _spread(values_1KHW: Tensor, channels_K: Tensor, channels: int) -> Tensor:
    """The full width, with 0 for all channels but those given."""
    full_CHW = values_1KHW.new_zeros(channels, *values_1KHW.shape[2:])
    return full_CHW.index_copy(0, channels_K, values_1KHW[0])[None]


def _gathered(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, SkippingBlock):
            setattr(module, name, GatheredBlock(child))
        else:
            _gathered(child)
    return module
