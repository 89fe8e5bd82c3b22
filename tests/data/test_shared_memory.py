"""Too little shared memory, too few file handles: one line that says what helps, no hang and no skipped image."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers.image_files import RGB16, folder_config, write_classes
from helpers.runs import DIGITS, TINY_STUDENT, run
from isometry.cli.main import main
from isometry.config import DataConfig
from isometry.data import Loaders, find_sources, make_loaders
from isometry.data.shared_memory import (
    HANDLES,
    HANDLES_OF_WORKER,
    shared,
    small_shared_memory,
    starting,
)
from isometry.errors import UserError

MIB = 2**20


@contextmanager
def limited(what: int, soft: int) -> Iterator[None]:
    """This process, and workers that start meanwhile, with another limit."""
    before = resource.getrlimit(what)
    resource.setrlimit(what, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


def loaders(root: Path, side: int = 16, **options: object) -> Loaders:
    for part in ("train", "val"):
        if not (root / part).exists():
            write_classes(root / part, {"cat": 4, "dog": 4}, ".jpg")
    config = folder_config(root, batch_size=8, **options)
    return make_loaders(find_sources(config), config, replace(RGB16, input_size=(3, side, side)), seed=1)


def test_a_batch_that_does_not_fit_into_shared_memory(tmp_path: Path):
    """The file system of shared memory refuses files of more than 1 MiB; a batch has 1.5."""
    opened = loaders(tmp_path, side=256, workers=1)
    with limited(resource.RLIMIT_FSIZE, 2**20), pytest.raises(UserError) as caught:
        list(opened.val)
    said = str(caught.value)
    assert said.startswith(
        "too little shared memory for the batches of data loading processes (1.5 MiB each; /dev/shm"
    )
    assert "--shm-size 2g" in said
    assert said.endswith("--workers 0")
    assert "\n" not in said
    with limited(resource.RLIMIT_FSIZE, 2**20):
        assert len(list(loaders(tmp_path, side=256, workers=0).val)) == 1


def test_batches_of_workers_are_shared_and_those_of_this_process_are_not(tmp_path: Path):
    for workers in (0, 1):
        (batch,) = loaders(tmp_path, workers=workers).val
        assert batch.images.is_shared() == bool(workers)
        assert shared(batch) is batch


@pytest.fixture
def mounts() -> None:
    """A machine that lets a test mount a /dev/shm of its own."""
    tried = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    if not shutil.which("unshare") or subprocess.call(tried, stderr=subprocess.DEVNULL):
        pytest.skip("no right to mount a small /dev/shm")


@pytest.mark.slow
@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize(("size", "said"), [("1m", "too little shared memory"), ("4k", "can't start")])
def test_a_small_dev_shm_as_in_a_container(tmp_path: Path, size: str, said: str):
    write_classes(tmp_path / "photos", {"cat": 100, "dog": 100}, ".png")
    words = ["train", "--data-dir", "photos", "--model", "cifar_resnet20", "--img-size", "64", "-b", "100"]
    words += ["--workers", "2", "--epochs", "1", "--warmup-epochs", "0", "--device", "cpu", "--out", "run"]
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", sys.executable, "-m", "isometry", *words],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert said in line
    assert "--shm-size" in line
    assert "--workers 0" in line


def few_handles() -> None:
    """For ``prepare``: fewer than two workers need, for good."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 20,) * 2)


def test_too_few_file_handles_for_workers(tmp_path: Path):
    words = ["--model", "cifar_resnet20", "--epochs", "1", "--workers", "2", "--out", str(tmp_path / "run")]
    ended = run("train", *DIGITS, *words, said=tmp_path / "said", prepare=few_handles)
    assert ended.code == 2, ended.err
    (line,) = ended.err.splitlines()
    assert "too few file handles; raise their number with ulimit -n" in line
    assert "or give fewer --workers" in line


def test_a_soft_limit_of_file_handles_is_raised_to_what_workers_need():
    before = open_files()
    with limited(resource.RLIMIT_NOFILE, before + 8):
        with starting(3):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= before + HANDLES + 3 * HANDLES_OF_WORKER
        with starting(0):
            pass


@pytest.mark.parametrize("skip", [False, True])
def test_an_image_that_no_handle_is_left_for_is_not_taken_for_a_bad_one(tmp_path: Path, skip: bool):
    opened = loaders(tmp_path, skip_bad_images=skip)
    assert sum(map(len, opened.val)) == 8
    next_handle = os.open(tmp_path, os.O_RDONLY)
    os.close(next_handle)
    with limited(resource.RLIMIT_NOFILE, next_handle), pytest.raises(UserError, match="too few file handles"):
        list(opened.val)


def test_a_start_that_the_system_refuses_is_put_in_words():
    with (
        pytest.raises(UserError, match=r"can't start \(resource temporarily unavailable; .*--workers 0"),
        starting(1),
    ):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    with pytest.raises(FileNotFoundError), starting(1):
        raise FileNotFoundError(errno.ENOENT, "no such file")


def test_handles_that_end_while_batches_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told = "Too many open files. Communication with the workers is no longer possible."
    opened = loaders(tmp_path)

    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError(told)

    monkeypatch.setattr(opened.val._options["dataset"].__class__, "__getitem__", fail)
    with pytest.raises(UserError, match="too few file handles"):
        list(opened.val)


@pytest.mark.parametrize(
    ("free", "options", "validates", "processes", "needed"),
    [
        (48 * MIB, {}, True, 1, None),
        (48 * MIB - 1, {}, True, 1, "48 MiB of batches ready there (2 a worker, 6 MiB and 6 MiB each)"),
        (20 * MIB, {}, False, 1, "24 MiB of batches ready there (2 a worker, 6 MiB each)"),
        (20 * MIB, {"workers": 0}, True, 1, None),
        (20 * MIB, {"validation_batch_size": 64}, True, 1, "36 MiB of batches ready there (2 a worker, 6 MiB and 3"),
        (60 * MIB, {}, True, 2, "96 MiB of batches ready there (2 a worker and process, of 2, 6 MiB and 6 MiB each)"),
    ],
)  # fmt: skip
def test_shared_memory_that_is_too_small_is_said_before_training(
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    options: dict[str, int],
    validates: bool,
    processes: int,
    needed: str | None,
):
    """128 images of 3 × 128 × 128 bytes are 6 MiB."""
    space = SimpleNamespace(f_blocks=64 * MIB, f_bavail=free, f_frsize=1)
    monkeypatch.setattr("isometry.data.shared_memory.os.statvfs", lambda path: space)
    config = DataConfig(**{"batch_size": 128, "workers": 2, **options})
    found = small_shared_memory(config, replace(RGB16, input_size=(3, 128, 128)), validates, processes)
    assert len(found) == (needed is not None)
    for note in found:
        assert note.startswith("/dev/shm has 64 MiB, ")
        assert f"--workers 2 may hold {needed}" in note
        assert "--shm-size 2g" in note


def test_a_run_and_its_check_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    space = SimpleNamespace(f_blocks=1, f_bavail=1, f_frsize=4096)
    monkeypatch.setattr("isometry.data.shared_memory.os.statvfs", lambda path: space)
    assert main(["check", *TINY_STUDENT, "--workers", "1"]) == 0
    assert "--workers 1 may hold" in " ".join(capsys.readouterr().out.split())
    assert main(["check", *TINY_STUDENT, "--workers", "0"]) == 0
    assert "may hold" not in capsys.readouterr().out
