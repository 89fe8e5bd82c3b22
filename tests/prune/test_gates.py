"""A gated convolution against one image at a time: values, gradients, precision, copies."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import Tensor, nn

from isometry.losses import Similarity, Sparsity
from isometry.prune.gates import Gate, GatedConv, GateOutput, gated_convs, take_gate_outputs
from oracles import gates as oracle

B, C, D, SIDE = 4, 12, 6, 5


def images(count: int = B) -> Tensor:
    """Of means that differ, as pooled features do."""
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(count, C, 1, 1, generator=generator)
    return means + torch.randn(count, C, SIDE, SIDE, generator=generator)


def gated(group: int = 1, threshold: float = 0.0, stride: int = 1, seed: int = 0) -> GatedConv:
    """In eval mode, with no initial values left."""
    torch.manual_seed(seed)
    conv = GatedConv(nn.Conv2d(C, D, 3, stride, padding=1, bias=False), nn.BatchNorm2d(D), group).eval()
    nn.init.normal_(conv.gate.excite.weight)
    nn.init.normal_(conv.gate.excite.bias, 0.3, 0.3)
    nn.init.normal_(conv.norm.weight)
    nn.init.normal_(conv.norm.bias)
    conv.norm.running_mean.normal_()
    conv.norm.running_var.uniform_(0.5, 2)
    conv.gate.threshold.fill_(threshold)
    return conv


def closed(group: int = 1) -> GatedConv:
    """Of saliency 0 for every image and channel."""
    conv = gated(group)
    nn.init.zeros_(conv.gate.excite.weight)
    nn.init.constant_(conv.gate.excite.bias, -1)
    return conv


def by_hand(conv: GatedConv, image_CHW: Tensor) -> tuple[Tensor, list[float], list[float]]:
    gate = conv.gate
    linears = [(linear.weight, linear.bias) for linear in (gate.squeeze, gate.excite)]
    pooled, saliencies = oracle.saliency(image_CHW, *linears)
    kept = oracle.kept(saliencies, float(gate.threshold))
    scales = [value if on else 0.0 for value, on in zip(saliencies, kept, strict=True)]
    scales = [scale for scale in scales for _ in range(conv.group)]
    return oracle.masked_conv(image_CHW, conv.conv, conv.norm, scales), pooled, saliencies


# --- the equations


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("group", [1, 2, 6])
@pytest.mark.parametrize("threshold", [0.0, 0.7, 100.0])
@torch.no_grad()
def test_the_masked_forward_is_that_of_each_image_and_channel(threshold, group, stride):
    conv = gated(group, threshold, stride)
    output = conv(images())
    (gate_output,) = take_gate_outputs([conv])
    for at, image in enumerate(images()):
        expected, pooled, saliencies = by_hand(conv, image)
        torch.testing.assert_close(output[at].double(), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(gate_output.pooled[at].tolist(), pooled, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gate_output.saliency[at].tolist(), saliencies, rtol=1e-4, atol=1e-5)


def test_the_cases_above_open_some_gates_and_close_others():
    counts = [gated(1, at)(images()).abs().sum((2, 3)).gt(0).sum(1) for at in (0.0, 0.7, 100.0)]
    assert B * D > counts[0].sum() > counts[1].sum() > counts[2].sum() == B
    assert len(set(counts[1].tolist())) > 1, "images differ in what they need"


def test_initially_a_gate_is_1_for_every_image_and_its_threshold_0():
    gate = Gate(C, 3)
    gate_output = gate(images())
    assert torch.equal(gate_output.saliency, torch.ones(B, 3))
    assert torch.equal(gate.threshold, torch.zeros(()))
    assert gate.kept(gate_output.saliency).all()


def test_a_new_gate_learns_though_it_is_constant():
    gate = Gate(C, D)
    (gate(images()).saliency * torch.randn(B, D)).sum().backward()
    assert gate.excite.weight.grad.abs().sum() > 0
    assert gate.excite.bias.grad.abs().sum() > 0


@pytest.mark.parametrize(("channels", "hidden"), [(1, 1), (3, 1), (16, 4), (64, 16)])
def test_the_hidden_layer_is_a_quarter_and_never_empty(channels, hidden):
    assert Gate(channels, 5).squeeze.out_features == hidden


def test_gradients_are_slopes():
    conv = gated(2, 0.3).double()
    parameters = [p.detach().clone() for p in conv.parameters()]

    def outcome(image: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip([name for name, _ in conv.named_parameters()], values, strict=True))
        return torch.func.functional_call(conv, named, (image,))

    given = [tensor.requires_grad_() for tensor in (images(2).double(), *parameters)]
    assert torch.autograd.gradcheck(outcome, given)


def test_a_closed_channel_has_no_output_and_no_gradient():
    conv = gated(threshold=0.7)
    output = conv(images(1))
    shut = ~conv.gate.kept(take_gate_outputs([conv])[0].saliency)[0]
    assert shut.any()
    assert (output[0, shut] == 0).all()
    output.sum().backward()
    assert (conv.conv.weight.grad[shut] == 0).all()
    assert (conv.gate.excite.bias.grad[shut] == 0).all()
    assert (conv.conv.weight.grad[~shut] != 0).any()


def test_images_do_not_affect_each_other():
    conv = gated(threshold=0.7)
    together, alone = conv(images()), torch.cat([conv(image[None]) for image in images()])
    torch.testing.assert_close(together, alone)


# --- what may not break them


@pytest.mark.parametrize("conv", [gated(), gated(2, 1e6), gated(1, float("inf")), closed(), closed(3)])
def test_at_least_one_gate_is_open_for_each_image(conv):
    saliency = conv.gate(images(32)).saliency
    kept = conv.gate.kept(saliency)
    assert kept.any(1).all()
    assert torch.isfinite(conv(images(32))).all()


@pytest.mark.parametrize("rough", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("conv", [gated(), gated(1, 1e6), closed(), closed(2)])
def test_both_terms_and_their_gradients_stay_finite(conv, rough):
    """Among them saliencies that are 0 for all images, and a layer whose channels are all under the threshold."""
    conv = copy.deepcopy(conv).train()
    sparsity = Sparsity()
    sparsity.limit.fill_(2.0)
    with torch.autocast("cpu", torch.bfloat16, enabled=rough):
        output = conv(images())
        (gate_output,) = take_gate_outputs([conv])
        terms = (
            sparsity(gate_output.saliency, torch.rand(B)),
            Similarity()(gate_output.saliency, gate_output.pooled),
        )
        (sum(terms) + output.float().square().mean()).backward()
    assert output.dtype == (torch.bfloat16 if rough else torch.float32)
    assert all(torch.isfinite(term) and term.dtype == torch.float32 for term in terms)
    assert torch.isfinite(output).all()
    for name, parameter in conv.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_a_layer_of_saliency_0_outputs_zeros():
    output = closed()(images())
    assert (output == 0).all()


def test_autocast_does_not_round_saliencies():
    conv = gated()
    exact = conv.gate(images())
    with torch.autocast("cpu", torch.bfloat16):
        rough = conv.gate(images())
        assert conv.gate(images().bfloat16()).saliency.dtype == torch.float32
    assert torch.equal(rough.saliency, exact.saliency)
    assert torch.equal(rough.pooled, exact.pooled)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_moves_to_another_precision_as_a_whole(dtype):
    conv = gated().to(dtype)
    assert conv(images().to(dtype)).dtype == dtype
    (gate_output,) = take_gate_outputs([conv])
    assert gate_output.saliency.dtype == dtype


# --- gate_outputs


def test_gate_outputs_are_taken_once_and_leave_no_graph_behind():
    conv = gated()
    output = conv(images())
    (gate_output,) = take_gate_outputs([conv])
    assert gate_output.saliency.requires_grad
    assert conv.gate_output is None
    remains = weakref.ref(gate_output.saliency)
    del gate_output, output
    gc.collect()
    assert remains() is None


def test_gate_outputs_come_in_the_order_of_the_layers():
    network = nn.Sequential(
        gated(), nn.ReLU(), nn.Sequential(GatedConv(nn.Conv2d(D, 3, 1), nn.BatchNorm2d(3)))
    )
    network(images())
    convs = gated_convs(network)
    assert list(convs) == ["0", "2.0"]
    assert [gate_output.saliency.shape for gate_output in take_gate_outputs(list(convs.values()))] == [
        (B, D),
        (B, 3),
    ]


def test_a_copy_has_no_gate_output():
    conv = gated()
    conv(images())
    copies = copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))
    assert conv.gate_output is not None
    for other in copies:
        assert other.gate_output is None
        assert torch.equal(other(images()), conv(images()))
        assert other.gate.threshold is not conv.gate.threshold


def test_thresholds_are_saved_and_gate_outputs_are_not():
    conv, other = gated(threshold=0.7), gated(seed=5)
    conv(images())
    assert {name for name, _ in conv.named_buffers() if "norm" not in name} == {"gate.threshold"}
    other.load_state_dict(conv.state_dict())
    assert torch.equal(other(images()), conv(images()))
    assert float(other.gate.threshold) == pytest.approx(0.7)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_it_computes_the_same(backend):
    conv = gated(2, 0.3)
    expected = conv(images())
    (message,) = take_gate_outputs([conv])
    compiled = torch.compile(conv, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(images()), expected)
    (gate_output,) = take_gate_outputs([conv])
    assert isinstance(gate_output, GateOutput)
    torch.testing.assert_close(gate_output, message)
    (gradient,) = torch.autograd.grad(gate_output.saliency.sum(), conv.gate.excite.bias)
    (wanted,) = torch.autograd.grad(message.saliency.sum(), conv.gate.excite.bias)
    torch.testing.assert_close(gradient, wanted)
