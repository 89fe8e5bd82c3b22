"""The command line where the machine runs out of something, outside of the places that say more about it."""

import errno
import os

import pytest
import torch

from isometry.cli.main import guarded


def said(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that fails so."""

    def fail() -> None:
        raise error

    assert guarded(fail) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_few_file_handles(number: int, capsys: pytest.CaptureFixture[str]):
    line = said(OSError(number, os.strerror(number), "some/file"), capsys)
    assert line == "isometry: there are too few file handles; raise their number with ulimit -n 4096"


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_too_little_memory(error: Exception, capsys: pytest.CaptureFixture[str]):
    assert said(error, capsys) == "isometry: out of memory; give a smaller batch, or another --device"
