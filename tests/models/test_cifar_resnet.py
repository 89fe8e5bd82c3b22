"""CIFAR ResNets: the paper's sizes, its shortcut, and everything that timm and the package ask of a model."""

import subprocess
import sys

import pytest
import timm
import torch

from isometry.cli.main import main
from isometry.data import ImageSpec
from isometry.errors import UserError
from isometry.models.build import build_model, save_model
from isometry.models.cifar_resnet import CifarResNet, PaddedShortcut
from isometry.models.cost import macs, parameter_count
from isometry.models.spec import ModelSpec, image_spec
from isometry.models.taps import TappedModel, block_count, block_shapes, pair_blocks
from oracles.cifar_resnet import padded_shortcut

DEPTHS = {"cifar_resnet20": 3, "cifar_resnet32": 5, "cifar_resnet56": 9}
TINY = {"layers": (1, 2, 1), "channels": (4, 6, 9)}


def build(name="cifar_resnet20", **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, **kwargs)


def convolutions(blocks, in_chans=3):
    """(channels in, channels out, side of the output) of each 3×3 convolution for 32 pixels, from section 4.2."""
    yield in_chans, 16, 32
    before = 16
    for width, side in ((16, 32), (32, 16), (64, 8)):
        for _ in range(blocks):
            yield before, width, side
            yield width, width, side
            before = width


@pytest.mark.parametrize(("name", "millions"), [*zip(DEPTHS, (0.27, 0.46, 0.85), strict=True)])
def test_parameters_are_the_papers(name, millions):
    """Table 6 gives two digits; by hand: weights, a scale and a shift for each output, and the classifier."""
    model = build(name)
    by_hand = sum(9 * before * after + 2 * after for before, after, _ in convolutions(DEPTHS[name]))
    assert parameter_count(model) == by_hand + 64 * 10 + 10
    assert round(parameter_count(model) / 1e6, 2) == millions


@pytest.mark.parametrize(("name", "millions"), [*zip(DEPTHS, (41, 69, 125), strict=True)])
def test_multiply_accumulates_are_those_of_the_convolutions(name, millions):
    by_hand = sum(9 * before * after * side**2 for before, after, side in convolutions(DEPTHS[name])) + 640
    assert macs(build(name), (3, 32, 32)) == by_hand
    assert round(by_hand / 1e6) == millions


@pytest.mark.parametrize("name", DEPTHS)
def test_depth_is_six_n_and_two(name):
    layers = [m for m in build(name).modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == int(name.removeprefix("cifar_resnet")) == 6 * DEPTHS[name] + 2


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("new_channels", [0, 1, 5])
@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1)])
def test_the_shortcut_is_every_second_pixel_and_zeros(stride, new_channels, size):
    image = torch.randn(2, 3, *size)
    shortcut = PaddedShortcut(stride, new_channels)
    assert torch.equal(shortcut(image), padded_shortcut(image, stride, new_channels))
    assert not list(shortcut.parameters())


@torch.no_grad()
def test_shortcuts_stand_where_shapes_change_and_nowhere_else():
    model = build().eval()
    found = {
        name: (m.stride, m.new_channels) for name, m in model.named_modules() if isinstance(m, PaddedShortcut)
    }
    assert found == {"layer2.0.downsample": (2, 16), "layer3.0.downsample": (2, 32)}
    block, image = model.layer2[0], torch.randn(1, 16, 8, 8)
    block.bn2.weight.zero_()
    assert torch.equal(block(image), padded_shortcut(image, 2, 16).relu())


@torch.no_grad()
@pytest.mark.parametrize(
    ("size", "grids"), [(32, (32, 16, 8)), (33, (33, 17, 9)), (8, (8, 4, 2)), (1, (1, 1, 1))]
)
def test_shapes_by_stage_at_any_image_size(size, grids):
    model = build().eval()
    shapes = block_shapes(model, list(range(block_count(model, "it"))), (3, size, size))
    assert [shape.width for shape in shapes] == [16, 16, 32, 64]
    assert [shape.grid for shape in shapes] == [(g, g) for g in (grids[0], *grids)]
    assert model(torch.randn(2, 3, size, size)).shape == (2, 10)


@torch.no_grad()
def test_taps_leave_the_logits_and_give_the_stages_outputs():
    model, images = build().eval(), torch.randn(2, 3, 32, 32)
    seen = {}
    for number, stage in enumerate((model.act1, model.layer1, model.layer2, model.layer3)):
        stage.register_forward_hook(lambda _m, _i, out, number=number: seen.__setitem__(number, out))
    logits, features = TappedModel(model, [0, 1, 2, 3])(images)
    assert all(torch.equal(feature, seen[number]) for number, feature in enumerate(features))
    torch.testing.assert_close(logits, model(images))


@torch.no_grad()
def test_intermediates_count_the_stem_and_three_stages():
    model, images = build(**TINY).eval(), torch.randn(1, 3, 16, 16)

    def widths(indices):
        _, features = model.forward_intermediates(images, indices=indices)
        return [feature.shape[1] for feature in features]

    assert widths(None) == [4, 4, 6, 9]
    assert widths(2) == widths([2, 3]) == widths([-2, -1]) == [6, 9]


def test_it_teaches_another_of_its_kind():
    pairs = pair_blocks(build(**TINY), build("cifar_resnet32"), (3, 32, 32), (3, 32, 32))
    assert [(p.student.block, p.teacher.block, p.grid[0]) for p in pairs] == [
        (0, 0, 32),
        (1, 1, 32),
        (2, 2, 16),
        (3, 3, 8),
    ]


@torch.no_grad()
@pytest.mark.parametrize("extractor", ["list", "getter"])
def test_timm_extracts_its_features(extractor):
    features = build(features_only=True, feature_cls=extractor, in_chans=1)
    assert features.feature_info.channels() == [16, 16, 32, 64]
    assert features.feature_info.reduction() == [1, 1, 2, 4]
    maps = features(torch.randn(1, 1, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


@torch.no_grad()
def test_the_classifier_can_be_replaced():
    model, images = build(num_classes=0).eval(), torch.randn(2, 3, 32, 32)
    assert model(images).shape == (2, model.num_features) == (2, 64)
    model.reset_classifier(7)
    assert model.get_classifier().out_features == model.num_classes == 7
    assert model(images).shape == (2, 7)


def test_dropout_and_stochastic_depth_arrive():
    model = build(drop_rate=0.5, drop_path_rate=0.2)
    rates = [block.drop_path.drop_prob for block in model.layer3]
    assert model.drop_rate == 0.5
    assert rates == pytest.approx([0.2 * 6 / 8, 0.2 * 7 / 8, 0.2])
    images = torch.randn(4, 3, 8, 8)
    assert not torch.equal(model(images), model(images))


def test_norms_begin_at_one_and_convolutions_as_he_has_them():
    model = build(in_chans=1)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all(), name
        if isinstance(module, torch.nn.Conv2d):
            expected = (2 / (9 * module.out_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.15), name
    assert (build(zero_init_last=True).layer1[0].bn2.weight == 0).all()


def test_recomputed_activations_give_the_same_gradients():
    images = torch.randn(2, 3, 16, 16)
    gradients = []
    for recompute in (False, True):
        model = build(**TINY)
        model.set_grad_checkpointing(recompute)
        model(images).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_every_parameter_learns():
    model = build(**TINY)
    model(torch.randn(8, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    "sizes",
    [
        {"layers": (1, 1)},
        {"layers": (1, 1, 1, 1)},
        {"channels": (16, 32)},
        {"channels": (15, 30, 60)},
        {"channels": (16, 8, 64)},
    ],
)
def test_sizes_that_can_not_be_are_refused(sizes):
    with pytest.raises(UserError, match=r"--model cifar_resnet20: .*3 numbers") as told:
        build_model(ModelSpec("cifar_resnet20", sizes))
    assert "\n" not in str(told.value)


def test_there_are_no_pretrained_weights_and_that_is_said():
    with pytest.raises(UserError, match=r"--model cifar_resnet20: .*--initial-checkpoint FILE"):
        build_model(ModelSpec("cifar_resnet20", weights="pretrained"))


def test_the_images_it_wants():
    assert image_spec(build()) == ImageSpec(
        (3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "bilinear", crop_pct=1.0
    )
    grey = image_spec(build(in_chans=1), 24)
    assert grey.input_size == (1, 24, 24)
    assert (len(grey.mean), len(grey.std)) == (1, 1)


@torch.no_grad()
def test_a_saved_one_is_the_same_model(tmp_path):
    model, image = build(**TINY, in_chans=1, num_classes=3).eval(), torch.randn(2, 1, 32, 32)
    model(torch.randn(64, 1, 32, 32))
    args = {"input_size": (1, 32, 32), "mean": (0.5,), "std": (0.25,)}
    save_model(model, tmp_path / "student", ["a", "b", "c"], args)
    name = f"local-dir:{tmp_path / 'student'}"
    again, _ = build_model(ModelSpec(name, weights="pretrained"))
    by_timm = timm.create_model(name, pretrained=True).eval()
    assert isinstance(by_timm, CifarResNet)
    assert torch.equal(again.eval()(image), model(image))
    assert torch.equal(by_timm(image), model(image))
    assert image_spec(again).mean == (0.5,)


@pytest.mark.usefixtures("quick_results")
def test_it_trains_on_the_digits_and_any_process_opens_it(tmp_path, capsys):
    words = ["--model", "cifar_resnet20", "--dataset", "digits", "--img-size", "32", "--in-chans", "1"]
    words += ["--model-kwargs", "layers=[1,1,1]", "channels=[4,8,16]", "--epochs", "1", "--workers", "0"]
    code = main(["train", *words, "--device", "cpu", "--out", str(tmp_path / "run")])
    assert code == 0, capsys.readouterr().err
    name = f"local-dir:{tmp_path / 'run' / 'student'}"
    script = f"import isometry.models.build, timm; print(timm.create_model({name!r}, pretrained=True).conv1)"
    opened = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert opened.stdout.startswith("Conv2d(1, 4,"), opened.stderr
