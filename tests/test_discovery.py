"""Classes found by the names of their files: any package can have such an extension point."""

import importlib
import sys
from pathlib import Path

import pytest

from isometry.discovery import choose, discover
from isometry.errors import UserError
from isometry.grow.architectures import Architecture
from isometry.grow.operators import DepthOperator, WidthOperator
from isometry.losses import Loss, available

BASE = "class Shape:\n    pass\n\nclass Round(Shape):\n    pass\n"


@pytest.fixture
def shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """The base class of a package of shapes, in a folder of its own."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "base.py").write_text(BASE)
    (folder / "circle.py").write_text("from shapes.base import Round, Shape\nclass Circle(Round): pass\n")
    (folder / "square.py").write_text("from shapes.base import Shape\nclass Square(Shape): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "shapes"]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module("shapes.base").Shape


def test_every_file_beside_the_base_is_found_by_its_name(shape):
    found = discover(shape)
    assert {name: kind.__name__ for name, kind in found.items()} == {"circle": "Circle", "square": "Square"}
    assert all(issubclass(kind, shape) for kind in found.values())


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("class A(Shape): pass\nclass B(Shape): pass\n", 2), ("A = Shape\n", 0)]
)
def test_a_file_defines_exactly_one_class(shape, tmp_path, text, count):
    (tmp_path / "shapes" / "star.py").write_text(f"from shapes.base import Shape\n{text}")
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=rf"^star\.py: .*one Shape, .* {count}$"):
        discover(shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class A(Shape)\n    pass\n", r"star\.py: SyntaxError: .*\(star\.py, line 2\)"),
        ("x = 1\nimport missing\n", r"star\.py, line 3: ModuleNotFoundError: .*'missing'"),
        ("class A(Shape):\n    x = Round\n", r"star\.py, line 3: NameError: .*'Round'"),
        ("import broken\n", r"star\.py, line 2: SyntaxError: .*\(broken\.py, line 1\)"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_the_line(shape, tmp_path, text, message):
    (tmp_path / "broken.py").write_text("def\n")
    (tmp_path / "shapes" / "star.py").write_text(f"from shapes.base import Shape\n{text}")
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=rf"^{message}") as raised:
        discover(shape)
    assert "\n" not in str(raised.value)


def test_a_class_without_a_method_that_it_must_define_is_named(shape, tmp_path, monkeypatch):
    base = "from abc import ABC, abstractmethod\n\nclass Shape(ABC):\n    @abstractmethod\n    def area(self): ...\n"
    (tmp_path / "shapes" / "base.py").write_text(base)
    (tmp_path / "shapes" / "circle.py").write_text(
        "from shapes.base import Shape\nclass Circle(Shape):\n    def area(self): return 1\n"
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "shapes"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=r"^square\.py: Square must define area$"):
        discover(importlib.import_module("shapes.base").Shape)


@pytest.mark.parametrize(
    ("kind", "methods"),
    [
        (Architecture, {"blocks", "width"}),
        (DepthOperator, {"order"}),
        (WidthOperator, {"stretch", "mean_shares", "shares"}),
    ],
)
def test_kinds_of_growth_say_what_a_file_must_define(kind, methods):
    assert kind.__abstractmethods__ == methods


def test_losses_are_found_so():
    assert discover(Loss) == available()
    assert set(available()) >= {"soft", "whole"}


@pytest.mark.parametrize(("name", "near"), [("sqare", "square"), ("xyz", "circle, square")])
def test_an_unknown_name_is_refused_with_near_ones(name, near):
    with pytest.raises(UserError, match=rf"^--shape {name}: no such shape; .*{near}"):
        choose({"square": 1, "circle": 2}, name, f"--shape {name}", "shape")
    assert choose({"square": 1, "circle": 2}, "circle", "--shape circle", "shape") == 2
