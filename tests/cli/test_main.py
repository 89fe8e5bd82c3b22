"""The command line from a person's side: bad input gets one line and exit code 2, and nothing is touched."""

import os
import pickle
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from helpers.messages import mentions
from isometry import __version__
from isometry.cli.commands import COMMANDS
from isometry.cli.main import main
from isometry.models.build import save_model

VIT = "--student vit_tiny_patch16_224 --student-kwargs patch_size=8 embed_dim=24 depth=2 num_heads=3"
TEACHER = "--teacher vit_tiny_patch16_224 --teacher-kwargs patch_size=8 embed_dim=24 depth=2 num_heads=3"
SMALL = "--img-size 16 --epochs 1 -b 4 --workers 0 --device cpu --data-dir data"
STUDENT = f"{VIT} {SMALL}"
BOTH = f"{STUDENT} {TEACHER} --teacher-weights none"
GROWN = f"{STUDENT} --epochs 2 --grow.depth 1,2"


def write_images(folder: Path, classes: str, count: int = 4) -> None:
    random = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def tiny(**more):
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 16}
    return timm.create_model("vit_tiny_patch16_224", **{**sizes, **more})


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with every fault that a person's files may have."""
    place = tmp_path_factory.mktemp("place")
    write_images(place / "data", "ab")
    write_images(place / "three", "abc")
    write_images(place / "one", "a")
    write_images(place / "broken", "ab")
    (place / "broken" / "a" / "2.png").write_bytes(b"not an image")
    (place / "empty").mkdir()
    (place / "full").mkdir()
    (place / "full" / "thesis.txt").write_text("mine")
    (place / "other").mkdir()
    (place / "other" / "config.yaml").write_text("epochs: 1\n")
    (place / "other" / ".lock").touch()
    torch.manual_seed(0)
    torch.save(tiny(num_classes=2).state_dict(), place / "fits.pth")
    torch.save(timm.create_model("resnet18", num_classes=2).state_dict(), place / "resnet.pth")
    (place / "pickle.safetensors").write_bytes(pickle.dumps({"model": Sprung(place / "sprung")}))
    torch.save({"model": Sprung(place / "sprung")}, place / "objects.pth")
    save_file({"x": torch.zeros(3)}, place / "strange.safetensors")
    save_model(tiny(num_classes=2), place / "saved", ["b", "a"], {"input_size": (3, 16, 16)})
    (place / "pickled").mkdir()
    (place / "pickled" / "config.json").write_bytes((place / "saved" / "config.json").read_bytes())
    torch.save({"model": Sprung(place / "sprung")}, place / "pickled" / "pytorch_model.bin")
    (place / "typo.yaml").write_text("epochs: 1\nbatchsize: 3\n")
    (place / "wrong.yaml").write_text("epochs: soon\n")
    return place


class Sprung:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


@pytest.fixture
def at_place(place, monkeypatch):
    """Runs a command line there; gives (exit code, lines of stdout, lines of stderr); no network is there."""
    monkeypatch.chdir(place)

    def nowhere(*_):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr("isometry.models.weights.getproxies", dict)


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))
    }


BAD = [
    # What is named.
    ("distl", "distl … distill"),
    ("zzz", "zzz … distill … check"),
    (f"train {STUDENT} --teachr x", "--teachr … --teacher"),
    (
        f"check {STUDENT} --config typo.yaml",
        "--config typo.yaml … batchsize … batch_size",
    ),
    (f"check {STUDENT} --config wrong.yaml", "--config wrong.yaml … --epochs soon"),
    (f"check {STUDENT} --config gone.yaml", "--config gone.yaml"),
    ("check", "--model … --student"),
    (
        f"check {SMALL} --model vit_tny_patch16",
        "--model vit_tny_patch16 … vit_tiny_patch16",
    ),
    (
        f"check {STUDENT} --teacher cait_s24",
        "--teacher cait_s24 … cait_s24_224",
    ),
    (
        f"check {STUDENT} --teacher local-dir:gone",
        "--teacher local-dir: … /gone … config.json",
    ),
    (f"distill {STUDENT} --out new", "--teacher … timm … folder … isometry train"),
    (f"train {BOTH} --out new", "--teacher … train"),
    ("compare", "--config"),
    ("compare --config typo.yaml", "--config typo.yaml … epochs"),
    # The images.
    (f"check {BOTH} --data-dir gone", "--data-dir … /gone does not exist"),
    (f"check {BOTH} --data-dir empty", "images … empty"),
    (f"check {BOTH} --data-dir one", "one … class … a"),
    (f"check {BOTH} --data-dir typo.yaml", "--data-dir … /typo.yaml"),
    (f"check {BOTH} --dataset digitz", "--dataset digitz"),
    (f"distill {BOTH} --data-dir broken --out new", "image … broken/a/2.png"),
    # The classes.
    (
        f"check {STUDENT} {TEACHER} --teacher-weights fits.pth --data-dir three",
        "teacher … 2 classes … 3",
    ),
    (
        f"check {STUDENT} --teacher local-dir:saved",
        "--teacher local-dir: … /saved … class 0 … 'b' … 'a'",
    ),
    (f"check {BOTH} --num-classes 1", "--num-classes 1 … 2 classes"),
    # The weights.
    (f"check {STUDENT} {TEACHER} --teacher-weights gone.pth", "--teacher-weights gone.pth"),
    (
        f"check {STUDENT} {TEACHER} --teacher-weights resnet.pth",
        "--teacher-weights … /resnet.pth",
    ),
    (
        f"check {STUDENT} --initial-checkpoint resnet.pth",
        "--initial-checkpoint … /resnet.pth",
    ),
    (
        f"check {STUDENT} --initial-checkpoint strange.safetensors",
        "--initial-checkpoint … /strange.safetensors",
    ),
    (
        f"check {STUDENT} {TEACHER} --teacher-weights pickle.safetensors",
        "--teacher-weights … /pickle.safetensors … pickle",
    ),
    (
        f"check {STUDENT} {TEACHER} --teacher-weights objects.pth",
        "--teacher-weights … /objects.pth",
    ),
    (
        f"check {STUDENT} --teacher local-dir:pickled",
        "--teacher local-dir: … /pickled … model.safetensors … pytorch_model.bin",
    ),
    (
        f"check {STUDENT} --teacher cait_xxs24_224",
        "--teacher cait_xxs24_224 … pretrained weights",
    ),
    (f"check {STUDENT} --pretrained", "--student vit_tiny_patch16_224 … pretrained weights"),
    # What is learned, and from where.
    (
        f"check {BOTH} --taps.student 0,7 --taps.teacher 0,1",
        "--taps.student … 7 … 0 … 1",
    ),
    (f"check {BOTH} --taps.student 0", "--taps.student … 1 … --taps.teacher … 2"),
    (f"check {BOTH} --taps.student a", "--taps.student a"),
    (f"check {BOTH} --losses.sotf 1", "losses.sotf … soft"),
    (f"check {BOTH} --losses.soft -1", "losses.soft … -1"),
    (f"check {BOTH} --losses.soft.temprature 2", "losses.soft.temprature"),
    (f"check {BOTH} --losses.soft 0", "losses"),
    (f"check {STUDENT} --losses.soft 1", "losses.soft … teacher"),
    (f"check {BOTH} --in-chans 2", "takes images of 2 channels … --in-chans 1 or 3"),
    # Numbers and types.
    (f"check {BOTH} --epochs 0", "--epochs 0 … 1"),
    (f"check {BOTH} --epochs many", "--epochs many"),
    (f"check {BOTH} --lr nan", "--lr nan"),
    (f"check {BOTH} --lr -1", "--lr -1.0 … 0"),
    (f"check {BOTH} --drop-path 1.5", "--drop-path 1.5 … 0"),
    (f"check {BOTH} --opt-betas 0.9", "--opt-betas [0.9]"),
    (f"check {BOTH} --clip-grad 0", "--clip-grad 0.0"),
    (f"check {BOTH} -b 0", "-b … 0"),
    (f"check {BOTH} --batch-size 0", "--batch-size … 0"),
    (f"check {BOTH} --mixup -1", "--mixup … -1.0"),
    (
        f"check {BOTH} --img-size 5",
        "--img-size 5 … student vit_tiny_patch16_224 … 3×5×5",
    ),
    (
        f"check {BOTH} --teacher-kwargs img_size=5",
        "--teacher-kwargs img_size=5 … teacher vit_tiny_patch16_224 … 3×5×5",
    ),
    (f"check {BOTH} --opt adamm", "--opt adamm"),
    (f"check {BOTH} --sched bogus", "--sched bogus"),
    (f"check {BOTH} --sched plateau", "--sched plateau"),
    (f"check {BOTH} --device warp", "--device warp"),
    (f"check {BOTH} --compile --compile-backend warp", "--compile-backend warp"),
    (f"check {BOTH} --amp-dtype int8", "--amp-dtype int8 … bfloat16 or float16"),
    (f"check {BOTH} --student-kwargs depht=2", "--student vit_tiny_patch16_224 … depht"),
    (f"check {SMALL} --student vit_tny_patch16", "--student vit_tny_patch16 … vit_tiny_patch16"),
    (f"check {SMALL} --student=vit_tny_patch16", "--student vit_tny_patch16"),
    # The folder.
    (f"distill {BOTH}", "--out"),
    (f"distill {BOTH} --out full", "--out full … thesis.txt"),
    (f"distill {BOTH} --out other", "--out other … --resume … another --out"),
    (f"distill {BOTH} --out typo.yaml/new", "--out typo.yaml/new"),
    (f"distill {BOTH} --out new --resume", "--resume … new"),
    (f"check {BOTH} --out full", "--out full … thesis.txt"),
    (f"check {BOTH} --out typo.yaml/new", "--out typo.yaml/new"),
    (f"check {BOTH} --out full --resume", "--resume … full"),
    (f"check {BOTH} --out other", "--out other … --resume"),
    (f"check {BOTH} --out new --resume", "--resume … new"),
    # Growth: where the size comes from, where it goes, and when.
    (f"grow {STUDENT} --out new", "--grow: … size"),
    (f"grow {STUDENT} --grow.at 0,5 --out new", "--grow: … size"),
    (f"train {STUDENT} --grow.at 0,5 --out new", "--grow.at … size"),
    (f"grow {GROWN} --pretrained --out new", "--grow: … weights"),
    (f"grow {GROWN} --initial-checkpoint fits.pth --out new", "--grow: … weights"),
    (
        f"grow {SMALL} --epochs 2 --model local-dir:saved --grow.depth 1,2 --out new",
        "--grow: … weights",
    ),
    (
        f"grow {GROWN} --grow.depth-operator insrt --out new",
        "--grow.depth-operator insrt … insert",
    ),
    (f"grow {GROWN} --grow.width-operator copy --out new", "--grow.width-operator copy … duplicate"),
    (f"grow {GROWN} --grow.optimizer keep --out new", "--grow.optimizer"),
    (f"grow {GROWN} --grow.dept 1,2 --out new", "--grow.dept … --grow.depth"),
    (f"grow {GROWN} --grow.depth 4,3,2 --epochs 3 --out new", "--grow.depth … 4 to 3"),
    (f"grow {GROWN} --grow.depth 3,2 --out new", "--grow.depth … 3 to 2"),
    (f"grow {GROWN} --grow.depth 2 --out new", "--grow: … size"),
    (f"grow {GROWN} --grow.depth 2,2 --out new", "--grow: … depth 2"),
    (f"grow {GROWN} --grow.depth 1,3 --out new", "--grow.depth … 3 … 2"),
    (f"grow {GROWN} --grow.depth 0,2 --out new", "--grow.depth 0 … 1"),
    (f"grow {GROWN} --grow.depth deep,2 --out new", "--grow.depth deep"),
    (f"grow {GROWN} --grow.depth 1-1,2-2 --out new", "--grow.depth 1-1 … 1"),
    (f"grow {GROWN} --epochs 1 --out new", "--grow: … 2 stages … 1 epoch"),
    (f"grow {GROWN} --grow.at 0,2 --out new", "--grow.at … stage 2 … epoch 2"),
    (f"grow {GROWN} --grow.at 0 --out new", "--grow.at … 1 … 2 stages"),
    (f"grow {GROWN} --grow.at 1,0 --out new", "--grow.at 1,0 … 0"),
    (f"grow {GROWN} --grow.at 0,soon --out new", "--grow.at 0,soon"),
    (
        f"grow {GROWN} --student-kwargs depth=5 --grow.depth 2,5 --out new",
        "--grow.depth … insert … 2 to 5 … 3 … 2",
    ),
    (
        f"grow {GROWN} --grow.width 10,24 --out new",
        "--grow.width 10 … 3 heads … 24",
    ),
    (
        f"grow {GROWN} --grow.width 16,24 --grow.depth 2,2 --out new",
        "--grow.width-operator duplicate … 16 to 24 … LayerNorm",
    ),
    (
        f"grow {SMALL} --epochs 2 --model mobilenetv3_small_050 --grow.depth 1,2 --out new",
        "--model mobilenetv3_small_050 … MobileNetV3",
    ),
    (f"check {GROWN} --grow.depth 3,2", "--grow.depth … 3 to 2"),
    (f"check {GROWN} --pretrained", "--grow: … weights"),
    (f"distill {BOTH} --grow.at 0,5 --out new", "--grow.at … size"),
]


@pytest.mark.usefixtures("at_place")
@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_input_gets_one_clear_line_and_touches_nothing(words, message, place, capsys):
    before = everything(place)
    code = main(shlex.split(words))
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if line.strip()]
    assert code == 2, output
    assert len(lines) == 1
    assert lines[0].startswith("isometry: ")
    assert mentions(lines[0], message)
    assert "Traceback" not in output.out + output.err
    assert everything(place) == before
    assert not (place / "sprung").exists()


@pytest.mark.usefixtures("at_place")
def test_unreadable_images_are_counted_and_named_when_they_may_be_skipped(place, tmp_path, capsys):
    out = tmp_path / "run"
    words = f"{BOTH} --data-dir broken --skip-bad-images --epochs 2 --val-fraction 0.3 --out {out}"
    assert main(["distill", *shlex.split(words)]) == 0
    output = capsys.readouterr().out
    assert re.search(r"1 unreadable images? (was|were) skipped: \S*broken/a/2\.png", output), output
    assert "broken/a/2.png" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("at_place")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command, capsys):
    assert main([command, "--help"]) == 0
    output = capsys.readouterr()
    about, _, example, *_ = output.out.splitlines()
    assert about == COMMANDS[command].about
    assert example.strip().startswith(f"isometry {command} ")
    assert f"usage: isometry {command}" in output.out
    assert not output.err


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_names_every_command(words, capsys):
    assert main(words) == 0
    output = capsys.readouterr()
    assert all(re.search(rf"^  {command} ", output.out, re.MULTILINE) for command in COMMANDS)
    assert not output.err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"isometry {__version__}\n"


def test_square_brackets_in_names_are_shown_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--model", "vit[red]_tiny"]) == 2
    assert "vit[red]_tiny" in capsys.readouterr().err
    assert main(["check", *shlex.split(VIT), "--data-dir", "my [bold] images"]) == 2
    assert "my [bold] images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            "distill --teacher vit_tny --student resnet18 --dataset digits --out new",
            2,
            "--teacher vit_tny",
        ),
        (f"check {STUDENT} {TEACHER} --teacher-weights objects.pth", 2, "--teacher-weights … /objects.pth"),
    ],
)
def test_a_process_says_the_same(place, words, code, message):
    done = subprocess.run(
        [sys.executable, "-m", "isometry", *shlex.split(words)],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert mentions(done.stderr, message)
    assert len(done.stderr.splitlines()) == 1
    assert not (place / "sprung").exists()
    assert not (place / "new").exists()


def printing(words: str, output: object) -> subprocess.CompletedProcess[str]:
    """``isometry WORDS`` in a process that prints into ``output``."""
    command = [sys.executable, "-m", "isometry", *words.split()]
    return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)


# Help is printed as it is; lists are printed by rich.
PRINTED = pytest.mark.parametrize("words", ["distill --help", "list losses"])


@PRINTED
def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(words):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = printing(words, pipe)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_full_disk_is_reported_in_one_line():
    with open("/dev/full", "w") as full:
        done = printing("list losses", full)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert mentions(line, "output … full")


def test_a_reader_that_needs_the_first_line_only():
    command = shlex.join([sys.executable, "-m", "isometry", "completion", "bash"])
    done = subprocess.run(f"{command} | head -1", shell=True, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
