"""Interrupted runs and comparisons that an earlier version wrote go on; see ``older_folders/README.md``."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.runs import Ended, run

OLDER = Path(__file__).parent / "older_folders"

COMMANDS = {
    "run": ("distill", "--config", "recipes/run.yaml", "--out", "run", "--resume"),
    "comparison": ("compare", "--config", "recipes/comparison.yaml", "--out", "comparison"),
}
"""What goes on with each folder, from the folder that holds it."""

ADDED_SINCE = ("model_ema_warmup", "grow.ema", "prune")
"""An option, an option of a group, and a whole group."""

Values = dict[str, Any]


def resume(name: str, folder: Path, *options: str) -> Ended:
    """Goes on with ``folder/NAME``, whose paths are relative to ``folder``."""
    return run(*COMMANDS[name], *options, said=folder / "said", prepare=partial(os.chdir, folder))


def saved_configs(folder: Path) -> list[Path]:
    """All files that hold saved options."""
    return sorted([*folder.rglob("config.yaml"), *folder.rglob("plan.yaml")])


def change(path: Path, edit: Callable[[Values], object]) -> None:
    """Edits the options in a config, or those of every variant in a plan."""
    saved = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.name == "plan.yaml":
        for variant in saved.values():
            if isinstance(variant, dict):
                edit(variant)
    else:
        edit(saved)
    path.write_text(yaml.safe_dump(saved, sort_keys=path.name == "plan.yaml"), encoding="utf-8")


def without(option: str, values: Values) -> None:
    """Removes ``option`` or ``group.option``."""
    *group, key = option.split(".")
    del (values[group[0]] if group else values)[key]


def having(option: str, values: Values) -> None:
    """Adds ``option`` or ``group.option``."""
    *group, key = option.split(".")
    (values[group[0]] if group else values)[key] = 1


def spellings(option: str) -> tuple[str, str]:
    """An option as it is written in a recipe and on the command line."""
    return option, option.replace("_", "-")


def metrics(folder: Path) -> list[Values]:
    """A run's rows, an epoch each."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A copy of the older folders."""
    return Path(shutil.copytree(OLDER, tmp_path / "older"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the unchanged folders were resumed."""
    folder = Path(shutil.copytree(OLDER, tmp_path_factory.mktemp("finished") / "older"))
    for name in COMMANDS:
        ended = resume(name, folder)
        assert ended.code == 0, ended.err
    return folder


def test_a_run_resumes_to_its_end(finished):
    before, after = metrics(OLDER / "run"), metrics(finished / "run")
    assert [row["epoch"] for row in after] == [1, 2, 3]
    assert after[: len(before)] == before
    assert (finished / "run" / "student" / "model.safetensors").is_file()


def test_a_comparison_resumes_to_its_end(finished):
    folder = finished / "comparison"
    compared = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in compared["rows"]] == ["alone", "soft", "whole"]
    assert [row["epoch"] for row in metrics(folder / "soft" / "seed-0")] == [1, 2]
    assert metrics(folder / "soft" / "seed-0")[:1] == metrics(OLDER / "comparison" / "soft" / "seed-0")


def test_photographs_are_seen_as_before_there_was_an_option(finished):
    assert "exif" not in (OLDER / "run" / "config.yaml").read_text(encoding="utf-8")
    assert "exif ('ignore')" in (finished / "said.out").read_text(encoding="utf-8")
    report = (finished / "run" / "report.json").read_text(encoding="utf-8")
    assert "\\nexif: ignore\\n" in report
    plan = yaml.safe_load((finished / "comparison" / "plan.yaml").read_text(encoding="utf-8"))
    assert {plan[name]["exif"] for name in ("alone", "soft", "whole")} == {"ignore"}
    # The one that had not begun is compared with the others, so it sees the same images.
    begun = yaml.safe_load((finished / "comparison/whole/seed-0/config.yaml").read_text(encoding="utf-8"))
    assert begun["exif"] == "ignore"


def test_finished_runs_of_a_comparison_are_not_run_again(finished):
    for name in ("teacher", "alone/seed-0"):
        for file in ("summary.json", "times.jsonl", "student/model.safetensors"):
            path = Path("comparison", name, file)
            assert (finished / path).read_bytes() == (OLDER / path).read_bytes()


@pytest.mark.parametrize("name", COMMANDS)
def test_options_added_since_get_their_defaults_and_are_named(name, older, finished):
    for path in saved_configs(older / name):
        for option in ADDED_SINCE:
            change(path, partial(without, option))
    ended = resume(name, older)
    assert ended.code == 0, ended.err
    for option in ADDED_SINCE:
        assert any(spelled in ended.out + ended.err for spelled in spellings(option))
    for path in (finished / name).rglob("metrics.jsonl"):
        assert (older / path.relative_to(finished)).read_bytes() == path.read_bytes()


def test_an_option_added_since_was_at_its_default_and_can_not_change_on_resume(older):
    change(older / "run" / "config.yaml", partial(without, "drop_path"))
    ended = resume("run", older, "--drop-path", "0.2")
    assert ended.code == 2
    assert "--drop-path" in ended.err.splitlines()[-1]


@pytest.mark.parametrize(
    "path", ["run/config.yaml", "comparison/plan.yaml", "comparison/soft/seed-0/config.yaml"]
)
@pytest.mark.parametrize("option", ["no_longer_known", "grow.no_longer_known"])
def test_an_option_that_no_longer_exists_is_refused_by_name(option, path, older):
    change(older / path, partial(having, option))
    ended = resume(path.partition("/")[0], older)
    assert ended.code == 2
    assert any(spelled in ended.err for spelled in spellings(option))
    assert len(ended.err.strip().splitlines()) == 1
