"""The recipe of a comparison: options that it gives itself, and where messages say that others stand."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from isometry.cli.compare_plan import CompareConfig, make_plan
from isometry.cli.compare_runs import check_tasks
from isometry.errors import UserError

BOXES = {"task": "detect", "dataset": "digit-scenes"}
CLASSES = {"task": "classify", "dataset": "digits"}
STEP = {**BOXES, "model": "resnet18"}


def refusal(folder: Path, **recipe: Any) -> str:
    """The message with which a recipe is refused, before anything is trained."""
    (folder / "base.yaml").write_text(yaml.safe_dump({"dataset": "digits", "model": "resnet18"}))
    config = CompareConfig(out="out", base="base.yaml", **{"variants": {"a": {}}, **recipe})
    with pytest.raises(UserError) as caught:
        check_tasks(make_plan(config, str(folder / "r.yaml")))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("model", "resnet18"), ("student", "resnet18"), ("pretrained", True), ("initial_checkpoint", "a")],
        *[("out", "runs"), ("seed", 3), ("resume", True)],
    ],
)
def test_what_the_comparison_gives_a_task_is_refused(tmp_path, key, value):
    message = refusal(tmp_path, tasks={"fine": BOXES, "boxes": {**BOXES, key: value}})
    assert f"r.yaml: tasks.boxes: {key}: compare sets it (" in message
    assert message.endswith("; leave it out")


@pytest.mark.parametrize(
    ("recipe", "where"),
    [
        ({"variants": {"a": {"seed": 1}}}, "r.yaml: variants.a: seed: compare"),
        ({"variants": {"a": {"out": "x"}}}, "r.yaml: variants.a: out: compare"),
        ({"teacher_recipe": [{**STEP, "out": "x"}]}, "r.yaml: teacher_recipe, step 1: out: compare"),
        ({"overrides": {"resume": True}}, "--overrides: resume: compare"),
    ],
)
def test_so_is_what_it_gives_other_runs(tmp_path, recipe, where):
    assert where in refusal(tmp_path, **recipe)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({**BOXES, "losses": {"whole": 4}}, "losses: --task detect has no such option"),
        ({**BOXES, "keep-rate": 0.5}, "prune: --task detect has no such option"),
        ({**BOXES, "epoch": 3}, "epoch: no such key; did you mean epochs"),
        ({**BOXES, "dataset": "digits"}, "--dataset digits has no boxes"),
        ({**BOXES, "dataset": None, "data_dir": "/nowhere"}, "--data-dir /nowhere"),
        ({**CLASSES, "losses": {"whol": 1}}, "losses.whol: "),
        ({**CLASSES, "losses": {"ce": -1}}, "losses.ce: the weight must be"),
        (
            {**CLASSES, "losses": {"soft": 1}},
            "losses.soft needs a teacher; leave it out, or add the key teacher",
        ),
    ],
)
def test_an_option_that_a_task_can_not_have_is_refused_with_the_tasks_name(tmp_path, options, fault):
    given = {key: value for key, value in options.items() if value is not None}
    assert f"tasks.boxes: {fault}" in refusal(tmp_path, tasks={"boxes": given})
