"""Both arithmetics of the gap."""

import pytest

from isometry.functional import relations


@pytest.fixture(params=["float32", "as it comes"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with float32 forced where float64 would be taken because the problem is small."""
    if request.param == "float32":
        monkeypatch.setattr(relations, "_SMALL", 0)
