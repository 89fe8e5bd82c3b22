"""A run's folder that someone removes while it trains: said as what it is, and not made anew in part."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from helpers.runs import TINY_STUDENT, call_at, run
from isometry.errors import UserError
from isometry.files import write_atomically
from isometry.training.checkpoint.files import save_checkpoint

MOMENTS = {
    "as an epoch ends": "isometry.training.loop:Trainer.end_epoch",
    "inside a save": "isometry.training.checkpoint.files:save_file",
    "as results are written": "isometry.training.results:write_record",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_message_names_the_folder_and_not_a_full_disk(tmp_path: Path, moment: str):
    out = tmp_path / "runs" / "mine"
    remove = partial(call_at, MOMENTS[moment], 1, partial(shutil.rmtree, out))
    ended = run(
        "train", *TINY_STUDENT, "--epochs", "1", "--out", str(out), said=tmp_path / "said", prepare=remove
    )
    assert ended.code == 2, ended.err
    (line,) = ended.err.splitlines()
    assert f"could not save: there is no folder {out} (was it removed, or its disk unmounted?)" in line
    assert "room" not in line
    assert "free" not in line
    assert not out.exists()


def test_a_save_does_not_make_the_runs_folder(tmp_path: Path):
    with pytest.raises(UserError, match=r"there is no folder .*/run "):
        save_checkpoint(tmp_path / "run" / "last", {"model": {"w": torch.ones(2)}}, {}, "step1")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / "last", {"model": {"w": torch.ones(2)}}, {}, "step1")


def test_the_first_folder_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=f"there is no folder {tmp_path / 'a'} "):
        write_atomically(tmp_path / "a" / "b" / "page.html", "text")
