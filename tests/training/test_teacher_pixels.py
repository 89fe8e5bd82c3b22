"""What student and teacher see with ``--teacher-pixels original``: the same crops, each at its own size."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from helpers.runs import contents, run, signalled_at_step, trainer_of
from isometry.data import ImageSpec, make_loaders
from isometry.data.transforms import train_transform
from isometry.errors import UserError
from isometry.models.spec import image_spec
from isometry.models.teacher import StudentView
from isometry.training import results
from isometry.training.loop import Trainer

SIDE = 40
"""Of the pictures, whose finest detail is 2 pixels wide."""

RUN = (
    "--val-fraction 0.2 -b 10 --workers 0 --device cpu --epochs 2 --warmup-epochs 0 --lr 1e-3 --img-size 8 "
    "--student vit_tiny_patch16_224 --student-kwargs patch_size=4 embed_dim=16 depth=2 num_heads=2 mlp_ratio=2 "
    "--losses.soft 1 --losses.whole 1 --teacher cait_xxs24_224 --teacher-weights none --teacher-kwargs img_size=16 "
    "patch_size=4 embed_dim=32 depth=2 depth_token_only=1 num_heads=2 init_values=0.1"
)
LIVELY = "--mixup 0.2 --cutmix 0.5 --reprob 0.5 --aa rand-m9-mstd0.5-inc1 --aug-repeats 2"
ORIGINAL = ["--teacher-pixels", "original"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 15 pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    draws = np.random.RandomState(0)
    for number in range(30):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = draws.randint(0, 256, (SIDE // 2, SIDE // 2, 3)).repeat(2, 0).repeat(2, 1)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def words(pictures: Path) -> list[str]:
    return ["--data-dir", str(pictures), *RUN.split()]


@contextmanager
def inputs_of(trainer: Trainer) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """What student and teacher get, batch by batch."""
    student, teacher = list[Tensor](), list[Tensor]()

    def keep(into: list[Tensor], network: nn.Module) -> None:
        network.register_forward_pre_hook(lambda _, inputs: into.append(inputs[0].detach().clone()))

    keep(student, trainer.objective.trainable_module.tapped)
    keep(teacher, trainer.objective.teacher.tapped)
    yield student, teacher


def epoch_of(trainer: Trainer) -> tuple[list[Tensor], list[Tensor]]:
    with inputs_of(trainer) as seen:
        trainer.objective.train()
        for batch in trainer.loaders.train.epoch(0):
            trainer.train_step([batch])
    return seen


def in_8_bits(input_BCHW: Tensor, spec: ImageSpec) -> Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    return 255 * (input_BCHW * std + mean)


@pytest.mark.parametrize("augmentation", [["--no-aug"], ["--scale", "0.1", "1"]])
def test_the_teacher_sees_what_its_own_transform_makes_of_the_picture_and_the_student_that_in_small(
    words, augmentation
):
    trainer = trainer_of(*words, *ORIGINAL, *augmentation)
    own, run = image_spec(trainer.objective.teacher.model), trainer.run
    batches = make_loaders(run.sources, run.config, own, seed=run.config.seed).train.epoch(0)
    student, teacher = epoch_of(trainer)
    assert len(student) == len(teacher) == 2
    for small, large, batch in zip(student, teacher, batches, strict=True):
        # Values of 0 to 255, normalised for the student and then for the teacher.
        torch.testing.assert_close(in_8_bits(large, own), batch.images.float(), rtol=0, atol=1e-3)
        scaled = [scaled_by_pillow(channel, 8) for image in batch.images for channel in image]
        wanted = torch.stack(scaled).view(small.shape)
        torch.testing.assert_close(in_8_bits(small, run.spec), wanted, rtol=0, atol=1e-3)


def scaled_by_pillow(channel_HW: Tensor, side: int) -> Tensor:
    """Bicubic, without rounding, within the range of the channel."""
    pixels = channel_HW.float().numpy()
    scaled = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    return torch.tensor(np.asarray(scaled).clip(pixels.min(), pixels.max()))


def test_without_augmentation_the_teacher_sees_the_picture_scaled_to_its_size(words, pictures):
    trainer = trainer_of(*words, *ORIGINAL, "--no-aug")
    own, train = image_spec(trainer.objective.teacher.model), trainer.run.sources.train
    indices = [batch.indices for batch in trainer.loaders.train.epoch(0)]
    _, teacher = epoch_of(trainer_of(*words, *ORIGINAL, "--no-aug"))
    for large, index in zip(torch.cat(teacher), torch.cat(indices), strict=True):
        picture = Image.open(train.where(int(index))).resize((16, 16), Image.Resampling.BILINEAR)
        scaled = torch.tensor(np.asarray(picture)).permute(2, 0, 1).float()
        torch.testing.assert_close(in_8_bits(large, own), scaled, rtol=0, atol=1e-3)
    assert train_transform(trainer.config, own)(Image.new("RGB", (SIDE, SIDE))).shape == (3, 16, 16)


def test_mixing_and_erasing_hit_both_alike(words):
    trainer = trainer_of(*words, *ORIGINAL, *LIVELY.split())
    own, run = image_spec(trainer.objective.teacher.model), trainer.run
    for small, large in zip(*epoch_of(trainer), strict=True):
        assert (small.shape[-2:], large.shape[-2:]) == ((8, 8), (16, 16))
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (run.spec.mean, run.spec.std))
        as_read = (in_8_bits(large, own) / 255 - mean) / std
        torch.testing.assert_close(trainer.objective.view(as_read), small, rtol=0, atol=1e-5)


def test_the_view_is_the_students_filter_within_the_range_of_the_image():
    larger = ImageSpec((3, 16, 16), (0.0,) * 3, (1.0,) * 3)
    edge = torch.zeros(1, 1, 16, 16)
    edge[..., 7:] = 1
    for name, mode in (("bicubic", "bicubic"), ("bilinear", "bilinear"), ("lanczos", "bicubic")):
        view = StudentView(ImageSpec((1, 8, 8), (0.5,), (0.5,), interpolation=name), larger)
        assert view.images.input_size == (1, 16, 16)
        scaled = nn.functional.interpolate(edge, (8, 8), mode=mode, antialias=True)
        torch.testing.assert_close(view(edge), scaled.clamp(0, 1), rtol=0, atol=0)
        assert view(scaled) is scaled
    # Bicubic overshoots at the edge.
    assert nn.functional.interpolate(edge, (8, 8), mode="bicubic", antialias=True).max() > 1.01


def test_by_default_both_see_the_students_images(words):
    trainer = trainer_of(*words)
    assert trainer.objective.view is None
    images = torch.rand(2, 3, 8, 8)
    assert trainer.objective.student_images(images) is images
    assert {tuple(batch.images.shape) for batch in trainer.loaders.train.epoch(0)} == {(10, 3, 8, 8)}


def test_validation_is_the_students_own(words):
    def validated(*more: str) -> list[Tensor]:
        return [batch.images for batch in trainer_of(*words, *more).loaders.val]

    assert all(map(torch.equal, validated(), validated(*ORIGINAL)))


def test_a_grey_student_shows_its_teacher_grey_pixels(words):
    trainer = trainer_of(*words, *ORIGINAL, "--in-chans", "1", "--no-aug")
    student, teacher = epoch_of(trainer)
    assert (student[0].shape, teacher[0].shape) == ((10, 1, 8, 8), (10, 3, 16, 16))
    plain = in_8_bits(teacher[0], image_spec(trainer.objective.teacher.model))
    torch.testing.assert_close(plain[:, 0], plain[:, 2], rtol=0, atol=1e-3)


def test_relation_maps_of_a_run_without_validation_are_of_the_students_images(words):
    trainer = trainer_of(*words, *ORIGINAL)
    trainer.loaders = replace(trainer.loaders, val=None)
    assert results._representations(trainer)


def test_a_run_that_grows_shows_every_stage_its_own_view(words):
    trainer = trainer_of(*words, *ORIGINAL, "--grow.depth", "1,2", "--grow.at", "0,1")
    trainer.fit()
    assert trainer.run.stage.number == 1
    student, teacher = epoch_of(trainer)
    assert (student[0].shape[-1], teacher[0].shape[-1]) == (8, 16)


@pytest.mark.slow
def test_a_stopped_run_resumes_bitwise_with_a_cache_and_without(words, tmp_path):
    given = [*words, *ORIGINAL, *LIVELY.split(), "--recovery-interval", "1"]
    for name, more in (("whole", []), ("cached", ["--teacher-cache", str(tmp_path / "cache")])):
        ended = run("distill", *given, *more, "--out", str(tmp_path / name), said=tmp_path / name)
        assert ended.code == 0, ended.err
    again = [*given, "--teacher-cache", str(tmp_path / "cache"), "--out", str(tmp_path / "stopped")]
    stop = signalled_at_step(3, signal.SIGTERM)
    assert "stopped at step 3 of 4" in run("distill", *again, said=tmp_path / "said", prepare=stop).err
    ended = run("distill", *again, "--resume", said=tmp_path / "said")
    assert ended.code == 0, ended.err
    wanted = contents(tmp_path / "whole")
    assert "student/model.safetensors:head.weight" in wanted
    assert contents(tmp_path / "cached") == contents(tmp_path / "stopped") == wanted
    changed = [*again, "--resume", "--teacher-pixels", "student"]
    assert (
        "--teacher-pixels was 'original' and is 'student'"
        in run("distill", *changed, said=tmp_path / "said").err
    )


@pytest.mark.parametrize(
    ("more", "sizes"),
    [
        (["--img-size", "16"], "they have 16×16 pixels and the student's 16×16"),
        (["--img-size", "24"], "they have 16×16 pixels and the student's 24×24"),
    ],
)
def test_a_teacher_of_no_larger_images_is_refused(words, more, sizes):
    with pytest.raises(UserError, match=f"--teacher-pixels original: .*{sizes}; leave it out"):
        trainer_of(*words, *ORIGINAL, *more)


def test_a_teacher_of_another_shape_is_refused():
    spec = ImageSpec((3, 16, 16), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(UserError, match="of the same shape, and they have 32×24 pixels"):
        StudentView(spec, replace(spec, input_size=(3, 32, 24)))


def test_a_run_that_needs_no_teacher_says_that_the_option_does_nothing(words):
    trainer = trainer_of(*words, *ORIGINAL, "--losses.ce", "1", "--losses.soft", "0", "--losses.whole", "0")
    assert trainer.objective.view is None
    assert any("no term of this run needs a teacher" in note for note in trainer.run.notes)


def test_without_labels_what_validation_measures_is_said(pictures, tmp_path):
    for path in pictures.rglob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    unlabelled = ["--data-dir", str(tmp_path), *RUN.split(), "num_classes=2"]
    notes = trainer_of(*unlabelled, *ORIGINAL).run.notes
    assert any(
        "without labels, validation measures the loss with a teacher that sees" in note for note in notes
    )
