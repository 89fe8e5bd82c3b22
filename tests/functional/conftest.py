"""All arithmetics of the gap."""

import pytest

from isometry.functional import relations


@pytest.fixture(params=["float32", "as it comes", "as on a GPU"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With float32 forced where float64 would be taken because the problem is small; and with a GPU's operations."""
    if request.param == "float32":
        monkeypatch.setattr(relations, "_SMALL", 0)
    if request.param == "as on a GPU":
        monkeypatch.setattr(relations, "launches_dominate", lambda device: True)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's operations, also where the problem is small."""
    monkeypatch.setattr(relations, "launches_dominate", lambda device: True)
    monkeypatch.setattr(relations, "_SMALL", 0)
