"""Standard streams as shells leave them: closed, full, in another encoding, with a reader that has left."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from helpers.messages import mentions
from helpers.runs import TINY_STUDENT

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
ISOMETRY = f"exec {sys.executable} -m isometry"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of the shell, with ISOMETRY for the command."""
    return subprocess.run(
        ["sh", "-c", line.replace("ISOMETRY", ISOMETRY)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_changes_nothing_else(tmp_path: Path, closed: str):
    words = " ".join(TINY_STUDENT)
    done = shell(f"ISOMETRY train {words} --epochs 1 --out {tmp_path}/run {closed}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "run" / "summary.json").is_file()
    assert b"epoch" not in (tmp_path / "run" / ".lock").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_our_characters(tmp_path: Path, encoding: str):
    words = " ".join(TINY_STUDENT)
    done = shell(f"ISOMETRY train {words} --epochs 1 --out {tmp_path}/run", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert "epoch 1/1" in text
    assert f"Folder   {tmp_path}/run" in text


def test_a_refusal_in_ascii():
    done = shell("ISOMETRY check --model 猫", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 2
    assert mentions(done.stderr.decode("ascii"), "isometry: … \\u732b")
    assert len(done.stderr.splitlines()) == 1


@FULL
@pytest.mark.parametrize("words", ["--help", "list losses"])
def test_output_that_nobody_can_read(words: str):
    done = shell(f"ISOMETRY {words} >/dev/full")
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert mentions(line, "isometry: … output … full")
    assert shell(f"ISOMETRY {words} >/dev/full 2>/dev/full").returncode == 2


@FULL
@pytest.mark.parametrize("nowhere", ["2>/dev/full", "2>&-"])
def test_a_refusal_that_nobody_can_read(nowhere: str):
    done = shell(f"ISOMETRY nonsense {nowhere}")
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


@pytest.mark.parametrize("words", ["--help", "nonsense"])
def test_a_reader_that_has_left(words: str):
    """Of both streams, written at once or line by line."""
    done = shell(f"(ISOMETRY {words}) 3>&2 2>&1 | true", PYTHONUNBUFFERED="1")
    assert (done.stdout, done.stderr) == (b"", b"")
    assert b"Error" not in shell(f"ISOMETRY {words} | head -1", PYTHONUNBUFFERED="1").stderr


def test_ctrl_c_during_the_imports():
    command = [sys.executable, "-v", "-m", "isometry", "list", "losses"]
    # Whoever runs the tests may have their processes ignore Ctrl-C.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, preexec_fn=heard) as process:
        assert process.stderr is not None
        # A line of -v for each import.
        while b"import 'torch._C'" not in (line := process.stderr.readline()):
            assert line, "ended before it imported torch"
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert out == b""
    assert b"Traceback" not in said


@pytest.mark.slow
def test_python_without_assertions():
    """Libraries check options by assertions: without them, a wrong one would go unnoticed."""
    python = f"{sys.executable} -O -m isometry"
    done = shell(f"{python} check --dataset digits --aa nonsense")
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 2
    assert mentions(line, "-O … PYTHONOPTIMIZE … without")
    assert shell(f"{python} --help").returncode == 0
