"""`isometry list`: everything that there is has a line of its own, and the columns are true."""

from typing import get_args, get_type_hints

import pytest
import timm

from isometry.cli import list as module
from isometry.cli.list import KINDS, first_line, listing, loss_options, opening
from isometry.cli.main import main
from isometry.config import PruneConfig
from isometry.errors import UserError
from isometry.grow.operators import Operator
from isometry.grow.operators import available as operators
from isometry.losses import available, build_loss
from isometry.recipes import shipped_recipes


def rows(*named: str) -> dict[str, list[str]]:
    """The cells of each line by its first."""
    lines = [[cell for cell in line.split("  ") if cell] for line in listing(named)]
    return {cells[0]: [cell.strip() for cell in cells[1:]] for cells in lines}


def test_every_recipe_has_a_line():
    listed = rows("recipes")
    assert list(listed) == list(shipped_recipes())
    assert all(len(cells) == 1 and 20 < len(cells[0]) <= 110 for cells in listed.values())
    assert all(cells == [opening(shipped_recipes()[name])] for name, cells in listed.items())


def test_an_opening_is_a_sentence(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("# By eq. 9 of\n# a paper. And more.\n#\n# command: x\n")
    assert opening(recipe) == "By eq. 9 of a paper"
    recipe.write_text("epochs: 1\n# late\n")
    assert opening(recipe) == ""
    recipe.write_text("# " + "word " * 60)
    assert len(opening(recipe)) <= 110
    assert opening(recipe).endswith("word …")


def test_every_loss_has_a_line_with_its_options():
    listed = rows("losses")
    listed.pop("name")
    assert set(listed) == set(available())
    assert listed["soft"][0] == "temperature"
    assert all(len(cells) == 2 and len(cells[1]) > 20 for cells in listed.values())


@pytest.mark.parametrize("name", available())
def test_the_options_of_a_loss_are_taken(name):
    context = {"student_width": 4, "teacher_width": 4}
    defaults = build_loss(name, {}, **context)
    for option in loss_options(available()[name]):
        build_loss(name, {option: getattr(defaults, option)}, **context)
    with pytest.raises(UserError, match="option"):
        build_loss(name, {"nothing": 1}, **context)


def test_every_operator_has_a_line():
    listed = rows("operators")
    listed.pop("name")
    assert set(listed) == {*operators(Operator), *get_args(get_type_hints(PruneConfig)["method"])}
    assert {name for name, cells in listed.items() if cells[1] == "yes"} == {"identity", "duplicate", "gates"}
    assert all(len(cells) == 3 and len(cells[2]) > 20 for cells in listed.values())


def test_models_that_a_pattern_fits():
    listed = rows("models", "resnet1*t")
    assert listed.pop("name") == ["parameters", "weights", "grows", "prunes"]
    assert list(listed) == timm.list_models("resnet1*t")
    model = timm.create_model("resnet14t")
    assert listed["resnet14t"][0] == f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M"
    assert listed["resnet14t"][1:] == ["yes", "yes", "yes"]
    assert rows("models", "cait_xxs24_2*")["cait_xxs24_224"][1:] == ["yes", "yes", "no"]
    assert rows("models", "mobilenetv4_conv_small")["mobilenetv4_conv_small"][2:] == ["no", "no"]


def test_our_own_networks_are_among_them():
    assert rows("models", "cifar*")["cifar_resnet20"][1:] == ["no", "yes", "yes"]


def test_a_broken_architecture_file_is_an_error_not_a_model_that_does_not_grow(monkeypatch):
    def broken(base: type, module: str) -> type:
        raise UserError("grow/architectures/mine.py, line 1: NameError: name 'x' is not defined")

    monkeypatch.setattr("isometry.discovery._only_class", broken)
    with pytest.raises(UserError, match=r"^grow/architectures/mine\.py, line 1"):
        rows("models", "resnet14t")


def test_many_models_are_not_built(monkeypatch):
    monkeypatch.setattr(timm, "create_model", None)
    *lines, last = listing(["models"])
    assert [line.split()[0] for line in lines[1:]] == timm.list_models()
    assert "'deit*'" in last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "list: expected recipes|losses|operators|models [PATTERN] first"),
        (["models", "vit*", "cait*"], "list: expected recipes|losses"),
        (["loses"], "list loses: no such list; did you mean losses?"),
        (["xyz"], "list xyz: no such list; there are recipes"),
        (["losses", "sof"], "list losses sof: no such name; did you mean soft?"),
        (["losses", "xyz*"], "list losses xyz*: no such name; isometry list losses shows all"),
        (["losses", "--epochs", "3"], "--epochs: no such option"),
    ],
)
def test_what_is_not_there(words, message, capsys):
    assert main(["list", *words]) == 2
    output = capsys.readouterr().err
    assert output.startswith(f"isometry: {message}")
    assert output.count("\n") == 1


def test_lines_go_to_the_console_whole(capsys):
    assert main(["list", "losses", "s*"]) == 0
    assert capsys.readouterr().out.splitlines() == list(listing(["losses", "s*"]))


def test_first_lines():
    assert first_line("What ``x`` is.\n\nMore.") == "What `x` is"
    assert first_line(None) == ""


def test_a_network_that_never_grew_is_said_to(monkeypatch):
    """The columns ask the code that a run asks."""
    monkeypatch.setattr(module, "find_architecture", lambda *_: (_ for _ in ()).throw(UserError("no")))
    assert rows("models", "resnet14t")["resnet14t"][2:] == ["no", "yes"]


def test_kinds_are_those_that_help_names(capsys):
    assert main(["list", "--help"]) == 0
    assert f"isometry list {'|'.join(KINDS)} [PATTERN]" in capsys.readouterr().out
