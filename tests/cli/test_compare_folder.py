"""``plan.yaml`` in the folder of a comparison: taken up again, of another one, or damaged."""

from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from isometry.cli.compare_folder import claim
from isometry.cli.compare_plan import CompareConfig, make_plan
from isometry.errors import UserError

VARIANTS = {"alone": {"losses": {"ce": 1}}, "soft": {"losses": {"soft": 1}}}
TASKS = {"boxes": {"task": "detect", "dataset": "digit-scenes"}}


def begin(folder: Path, **changes: object) -> bytes:
    """Claims the folder for a comparison; the plan that is there then."""
    (folder / "base.yaml").write_text(yaml.safe_dump({"dataset": "digits", "model": "resnet18"}))
    out = folder / "out"
    config = CompareConfig(
        out=str(out), base="base.yaml", **{"variants": VARIANTS, "tasks": TASKS, **changes}
    )
    claim(out, make_plan(config, str(folder / "recipe.yaml")), config, Console(file=StringIO()))
    return (out / "plan.yaml").read_bytes()


def test_the_same_comparison_is_taken_up_also_from_a_plan_of_an_older_version_without_an_end(tmp_path):
    plan = begin(tmp_path)
    assert begin(tmp_path) == plan
    (tmp_path / "out/plan.yaml").write_bytes(plan.removesuffix(b"...\n"))
    assert begin(tmp_path) == plan


def test_another_comparison_is_refused(tmp_path):
    plan = begin(tmp_path)
    with pytest.raises(UserError, match="holds a comparison of other variants or options"):
        begin(tmp_path, variants={**VARIANTS, "more": {}})
    assert (tmp_path / "out/plan.yaml").read_bytes() == plan


DAMAGES = {
    "empty": lambda plan: b"",
    "a list": lambda plan: b"- 1\n",
    "no text": lambda plan: b"\xff\x00",
    "in the first variant": lambda plan: plan[: len(plan) // 8],
    "after the first variant": lambda plan: plan[: plan.index(b"\nsoft:") + 1],
    "in the second variant": lambda plan: plan[: plan.index(b"\nsoft:") + 400],
    "in the tasks": lambda plan: plan[: plan.index(b"\ntasks:") + 400],
    "a task": lambda plan: yaml.safe_dump({**yaml.safe_load(plan), "tasks": "none"}).encode(),
    "a variant": lambda plan: yaml.safe_dump({**yaml.safe_load(plan), "soft": "none"}).encode(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_plan_is_named_with_what_to_do_and_stays(tmp_path, damage):
    path = tmp_path / "out/plan.yaml"
    plan = begin(tmp_path)
    path.write_bytes(DAMAGES[damage](plan))
    before = path.read_bytes()
    with pytest.raises(UserError) as caught:
        begin(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "damaged" in message or "cut off" in message
    assert "delete it" in message
    assert "another --out" in message
    assert "\n" not in message
    assert path.read_bytes() == before
    path.unlink()
    assert begin(tmp_path) == plan
