"""TensorBoard and Weights & Biases get the figures of the report: read from files, or from a fake library."""

import json
import sys
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.runs import TINY_STUDENT, config_of, run
from isometry.errors import UserError
from isometry.report.log_panels import logged_figures, logged_pictures
from isometry.report.records.record import read_record
from isometry.training.loggers import open_loggers


class StandIn(types.ModuleType):
    """A wandb that writes down what it is told, a line of JSON a call."""

    def __init__(self, journal: Path) -> None:
        super().__init__("wandb")
        self.journal = journal
        self.summary = self

    def note(self, call: str, **told: object) -> None:
        with self.journal.open("a") as file:
            file.write(json.dumps([call, told]) + "\n")

    def init(self, **options: object) -> "StandIn":
        self.note("init", **options)
        return self

    def log(self, values: dict[str, object], step: int | None = None) -> None:
        self.note("log", values=values, step=step)

    def update(self, values: dict[str, object]) -> None:
        self.note("summary", values=values)

    def Image(self, pixels: np.ndarray) -> list[object]:  # noqa: N802
        return ["image", str(pixels.dtype), *pixels.shape]

    def __enter__(self) -> "StandIn":
        return self

    def __exit__(self, *error: object) -> None:
        self.note("finish")


def stand_in(journal: Path) -> None:
    """For ``prepare``: wandb is the stand-in."""
    sys.modules["wandb"] = StandIn(journal)


def calls(journal: Path) -> list[tuple[str, dict]]:
    return [tuple(json.loads(line)) for line in journal.read_text().splitlines()]


@pytest.fixture(scope="module")
def logged(tiny_teacher, tmp_path_factory) -> Path:
    """The folder around a run of two epochs that showed itself in both places."""
    folder = tmp_path_factory.mktemp("logged")
    words = ["--teacher", f"local-dir:{tiny_teacher}", "--losses.whole", "4", "--losses.soft", "1"]
    ended = run(
        "distill", *TINY_STUDENT, *words, "--epochs", "2", "--out", str(folder / "run"),
        "--log", "tensorboard", "wandb", said=folder / "said", prepare=partial(stand_in, folder / "journal"),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture(scope="module")
def events(logged) -> EventAccumulator:
    found = EventAccumulator(str(logged / "run" / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    return found.Reload()


def test_tensorboard_has_every_epochs_scalars(logged, events):
    rows = [json.loads(line) for line in (logged / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for key in rows[0]:
        points = [(point.step, point.value) for point in events.Scalars(key)]
        assert points == [(row["step"], pytest.approx(row[key], rel=1e-6)) for row in rows]
    assert "seconds/backward" in events.Tags()["scalars"]


def test_tensorboard_has_the_reports_figures_at_the_end(logged, events):
    figures = logged_figures(read_record(logged / "run"))
    assert {"student/top1", "teacher/top1", "gap after/block 2 ◄ 2"} <= figures.keys()
    for name, value in figures.items():
        (point,) = events.Scalars(name)
        assert (point.step, point.value) == (12, pytest.approx(value, rel=1e-6))


def test_tensorboard_has_the_reports_pictures(logged, events):
    pictures = logged_pictures(read_record(logged / "run"))
    assert set(pictures) == {
        "relations/block 1 ◄ 1", "relations/block 2 ◄ 2", "CKA/before training", "CKA/after training",
    }  # fmt: skip
    assert set(events.Tags()["images"]) == set(pictures)
    for name, picture in pictures.items():
        (image,) = events.Images(name)
        assert (image.height, image.width, image.step) == (*picture.shape[:2], 12)


def test_wandb_gets_the_same(logged):
    told = calls(logged / "journal")
    assert [call for call, _ in told] == ["init", "log", "log", "finish", "init", "summary", "log", "finish"]
    rows = [json.loads(line) for line in (logged / "run" / "metrics.jsonl").read_text().splitlines()]
    for (_, call), row in zip(told[1:3], rows, strict=True):
        assert call["step"] == row["step"]
        assert row.items() <= call["values"].items()
    data = read_record(logged / "run")
    assert told[5][1]["values"] == logged_figures(data)
    pictures = {name: ["image", "uint8", *picture.shape] for name, picture in logged_pictures(data).items()}
    assert told[6][1] == {"values": pictures, "step": None}


def test_wandb_goes_on_with_the_same_run(logged):
    (_, first), (_, second) = (told for told in calls(logged / "journal") if told[0] == "init")
    assert first == second
    assert first["resume"] == "allow"
    assert first["id"] == (logged / "run" / "wandb-id").read_text()
    assert (first["project"], first["name"]) == ("isometry", "run")
    assert first["config"]["epochs"] == 2


def test_names_are_text_in_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", StandIn(tmp_path / "journal"))
    out = tmp_path / "run \x1b[2J"
    out.mkdir()
    config = config_of(*TINY_STUDENT, "--log", "wandb", "--out", str(out))
    with open_loggers(config, 0) as (logger,):
        logger.row({"step": 1, "train/\u202eexe": 2.0})
        logger.end({"gap/a\nb": 3.0}, {"maps/\x9b": np.zeros((2, 2, 3), np.uint8)}, 1)
    (_, init), (_, row), (_, figures), (_, pictures), _ = calls(tmp_path / "journal")
    assert init["name"] == "run \\x1b[2J"
    assert row["values"] == {"step": 1, "train/\\u202eexe": 2.0}
    assert figures["values"] == {"gap/a\\nb": 3.0}
    assert [*pictures["values"]] == ["maps/\\x9b"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_library_that_is_not_installed_is_named(tmp_path, monkeypatch, name):
    for module in ("wandb", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    config = config_of("--log", name, "--out", str(tmp_path))
    message = rf"--log {name}: not installed; pip install 'isometry\[{name}\]'"
    with pytest.raises(UserError, match=message), open_loggers(config, 0):
        pass


def test_a_run_without_the_option_logs_nothing(tmp_path):
    with open_loggers(config_of("--out", str(tmp_path)), 0) as loggers:
        assert loggers == []
    assert list(tmp_path.iterdir()) == []


def test_only_the_main_process_logs(tmp_path):
    config = config_of("--out", str(tmp_path), "--log", "tensorboard")
    with open_loggers(config, 0, main=False) as loggers:
        assert loggers == []


def test_steps_that_a_killed_run_repeats_are_logged_once(tmp_path):
    config = config_of("--out", str(tmp_path), "--log", "tensorboard")
    for behind, steps in ((0, (6, 12, 18)), (6, (12, 18, 24))):
        with open_loggers(config, behind) as (logger,):
            for step in steps:
                logger.row({"step": step, "loss": 1 / step})
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [point.step for point in found.Scalars("loss")] == [6, 12, 18, 24]


def test_an_unknown_logger_is_refused():
    with pytest.raises(UserError, match=r"--log paper: .*tensorboard.*wandb"):
        config_of("--log", "paper")
