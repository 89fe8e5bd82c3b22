"""The identity of a cache, by runs on the digits and on image folders."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from helpers.runs import DIGITS, STUDENT_KWARGS, TEACHER_KWARGS, as_rank, config_of, in_two_processes
from helpers.teacher_outputs import ALONE, check_same, entries
from isometry.config import DataConfig, TeacherConfig
from isometry.data import Preprocess, make_loaders
from isometry.data.folders import open_folder
from isometry.data.splits import MapPart, StreamPart
from isometry.distributed import World
from isometry.errors import UserError
from isometry.models.sharding import is_sharded
from isometry.models.teacher import BatchPosition
from isometry.seeding import seed_global_generators
from isometry.training.assemble import Run, assemble
from isometry.training.teacher_cache import TeacherCache, estimate, identity_of
from isometry.training.teacher_cache.identity import IRRELEVANT, hash_images, hash_weights

TEACHER = [
    *("--teacher", "cait_xxs24_224", "--teacher-kwargs", *TEACHER_KWARGS, "img_size=8", "in_chans=1"),
    *("--teacher-weights", "none"),
]
STUDENT = [*DIGITS, "--student", "vit_tiny_patch16_224", "--student-kwargs", *STUDENT_KWARGS]


def run_of(*words: str, world: World = ALONE) -> Run:
    return assemble(config_of(*STUDENT, *TEACHER, *words), world)


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return identity_of(run_of(), ALONE)


def changed(plain: dict[str, Any], run: Run, world: World = ALONE) -> set[str]:
    now = identity_of(run, world)
    assert now.keys() == plain.keys()
    return {name for name in now if now[name] != plain[name]}


@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "7", "--lr", "0.1", "--opt", "sgd", "--warmup-epochs", "1"],
        ["--losses.hard", "1", "--reduction", "paper"],
        ["--taps.teacher", "0", "--taps.student", "0"],
        ["--drop-path", "0.3", "--model-ema", "--clip-grad", "1"],
        ["--smoothing", "0.1", "--validation-batch-size", "50", "--crop-pct", "0.9", "--workers", "1"],
        ["--student-kwargs", "patch_size=4", "embed_dim=24", "depth=3", "num_heads=3"],
        ["--amp-dtype", "float16", "--relations", "local", "--grad-checkpointing", "--teacher-shard"],
        ["--teacher-cache", "elsewhere", "--teacher-cache-size", "1"],
    ],
)
def test_the_student_and_its_training_do_not_matter(plain: dict[str, Any], words: list[str]):
    assert changed(plain, run_of(*words)) == set()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        # A teacher without weights is drawn from the seed.
        (["--seed", "7"], {"--seed", "the SHA-256 of its weights"}),
        (["--batch-size", "100"], {"--batch-size"}),
        (["--grad-accum-steps", "2"], {"--grad-accum-steps"}),
        (["--hflip", "0.5"], {"--hflip"}),
        (["--scale", "0.5", "1"], {"--scale"}),
        (["--aa", "rand-m9-mstd0.5-inc1"], {"--aa"}),
        (["--aug-repeats", "3"], {"--aug-repeats"}),
        (["--reprob", "0.25"], {"--reprob"}),
        (["--mixup", "0.2"], {"--mixup"}),
        (["--cutmix", "0.2", "--mixup-switch-prob", "0.3"], {"--cutmix", "--mixup-switch-prob"}),
        (["--train-interpolation", "bicubic"], {"--train-interpolation"}),
        (["--no-aug"], {"--no-aug"}),
        (["--teacher-dtype", "bfloat16"], {"--teacher-dtype", "the SHA-256 of its weights"}),
        (["--amp"], {"--amp", "--amp-dtype"}),
        (["--compile", "--compile-backend", "eager"], {"--compile", "--compile-backend"}),
    ],
)
def test_options_that_change_the_outputs_matter(plain: dict[str, Any], words: list[str], names: set[str]):
    assert changed(plain, run_of(*words)) == names


def test_how_files_are_read_matters_and_caches_from_before_these_options_fit(plain: dict[str, Any]):
    def name_and_value(*words: str) -> set[tuple[str, Any]]:
        now = identity_of(run_of(*words), ALONE)
        return {(name, now[name]) for name in now if plain.get(name) != now[name]}

    assert plain["--exif"] == "upright"
    assert name_and_value("--pixel-range", "0,4095") == {("--pixel-range", "0,4095")}
    before = identity_of(run_of("--exif", "ignore"), ALONE)
    assert before == {name: value for name, value in plain.items() if name != "--exif"}
    assert "--pixel-range" not in before


def test_what_the_teacher_sees_matters_and_caches_from_before_the_option_fit():
    larger = ["--teacher-kwargs", *TEACHER_KWARGS, "img_size=16", "in_chans=1"]
    scaled, original = (
        identity_of(run_of(*larger, "--teacher-pixels", pixels), ALONE) for pixels in ("student", "original")
    )
    assert original == scaled | {"--teacher-pixels": "original"}
    assert "--teacher-pixels" not in scaled


def test_processes_and_devices_matter(plain: dict[str, Any]):
    other = World(1, 2, torch.device("cpu"))
    assert changed(plain, run_of(), other) == {"the number of processes"}
    assert changed(plain, run_of(), World(0, 1, torch.device("meta"))) == {"the kind of device"}


def test_the_teachers_weights_and_precision_matter(plain: dict[str, Any]):
    run = run_of()
    with torch.no_grad():
        next(run.teacher.parameters()).view(-1)[0] += 1
    assert changed(plain, run) == {"the SHA-256 of its weights"}
    run = run_of()
    run.teacher.bfloat16()
    assert changed(plain, run) == {"the SHA-256 of its weights"}


def test_weights_differ_by_name_shape_dtype_and_value():
    def hashed(**tensors: torch.Tensor) -> str:
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return hash_weights(module)

    zeros = torch.zeros(4)
    hashes = [
        hashed(a=zeros),
        hashed(b=zeros),
        hashed(a=zeros.view(2, 2)),
        hashed(a=zeros.int()),
        hashed(a=-zeros),
        hashed(a=zeros, b=zeros),
    ]
    assert len(set(hashes)) == len(hashes)
    assert hashed(a=zeros, b=zeros + 1) == hashed(b=zeros + 1, a=zeros)


def test_the_names_sizes_and_order_of_images_matter_and_not_their_folder(tmp_path: Path):
    def folder(name: str) -> Path:
        for number in range(6):
            path = tmp_path / name / "train" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), number).save(path)
        return tmp_path / name

    def hashed(root: Path) -> str:
        part = open_folder(config_of("--data-dir", str(root))).train
        return hash_images(part, str(root))

    here = folder("here")
    shutil.copytree(here, tmp_path / "there")
    assert hashed(here) == hashed(tmp_path / "there")
    part = open_folder(config_of("--data-dir", str(here))).train
    turned = MapPart(part.images, list(range(len(part)))[::-1], part.relabel)
    assert hash_images(turned, str(here)) != hash_images(part, str(here))
    before = hashed(here)
    (here / "train" / "a" / "0.png").rename(here / "train" / "a" / "00.png")
    renamed = hashed(here)
    Image.new("L", (9, 9), 200).save(here / "train" / "a" / "00.png")
    assert len({before, renamed, hashed(here)}) == 3


def test_an_identity_is_json(plain: dict[str, Any]):
    assert json.loads(json.dumps(plain)).keys() == plain.keys()


def test_a_stream_is_refused():
    run = run_of()
    stream = StreamPart(lambda batch_size, seed: None, 900)
    streaming = dataclasses.replace(run, sources=dataclasses.replace(run.sources, train=stream))
    with pytest.raises(UserError, match="is a stream") as refused:
        identity_of(streaming, ALONE)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("words", [[], [*TEACHER, "--losses.ce", "1"]])
def test_a_run_that_needs_no_teacher_is_refused(words: list[str]):
    with pytest.raises(UserError, match="--teacher-cache"):
        identity_of(assemble(config_of(*STUDENT, *words), ALONE), ALONE)


def hashed_in_pieces(rank: int, rendezvous: str, whole: str) -> None:
    world = as_rank(rank, rendezvous)
    teacher = run_of("--teacher-shard", world=world).teacher
    assert is_sharded(teacher)
    assert hash_weights(teacher) == whole
    world.close()


def test_a_sharded_teacher_is_the_same_teacher(tmp_path: Path):
    in_two_processes(hashed_in_pieces, tmp_path, hash_weights(run_of().teacher))


def test_every_option_that_does_not_matter_is_one():
    known = {field.name for part in (DataConfig, TeacherConfig) for field in dataclasses.fields(part)}
    assert known >= IRRELEVANT


def test_a_real_teacher_on_real_batches(tmp_path: Path):
    """Two epochs of the digits as the loop sees them: read again bit by bit, in the bytes that were told before."""
    words = ["--mixup", "0.2", "--reprob", "0.25", "--losses.soft", "1", "--losses.whole", "1"]
    answers, asked, told = [], [], 0
    for _ in range(2):
        run = run_of(*words)
        train = make_loaders(run.sources, run.config, run.spec, seed=run.config.seed).train
        preprocess = Preprocess(run.config, run.spec, 10, "cpu")
        grids = {pair.teacher.block: pair.grid for pair in run.objective.pairs}
        identity = identity_of(run, ALONE)
        cache = TeacherCache(tmp_path / "cache", identity, limit_bytes=2**30, world=ALONE)
        probe = run.objective.teacher_output(torch.zeros(1, 1, 8, 8))
        size = estimate(probe, grids, batch_size=150, batches=len(train), epochs=2)
        told = size.entry * size.entries
        for epoch in range(2):
            for number, batch in enumerate(train.epoch(epoch)):
                seed_global_generators(100 * epoch + number)
                input, _ = preprocess(batch)
                place, ask = BatchPosition(epoch, 150 * number), partial(run.objective.teacher_output, input)
                answers.append(cache.output(place, input, grids, ask))
        asked.append(cache.misses)
        assert cache.notes == []
    assert asked == [12, 0]
    for first, second in zip(answers[:12], answers[12:], strict=True):
        check_same(second, first)
    written = sum(path.stat().st_size for path in entries(tmp_path / "cache"))
    assert told == pytest.approx(written, rel=0.02)
