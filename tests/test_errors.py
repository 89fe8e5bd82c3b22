"""Errors as one line of text."""

import pytest

from isometry.errors import UserError, first_line, reason

LOADING = "Error(s) in loading state_dict for Net:\n\tMissing key(s): a.\n\tUnexpected key(s): b."


@pytest.mark.parametrize(
    ("error", "line", "cause"),
    [
        (ValueError("\n  one\ntwo"), "one", "one"),
        (KeyError("x"), "'x'", "KeyError: 'x'"),
        (RuntimeError(LOADING), "Missing key(s): a.", "RuntimeError: Missing key(s): a."),
        (RuntimeError(), "RuntimeError", "RuntimeError"),
        (RuntimeError("x" * 1000), "x" * 160, "RuntimeError: " + "x" * 160),
        (UserError("--lr: no"), "--lr: no", "--lr: no"),
        (OSError(28, "No space left on device", "/x"), None, "no space left on device"),
    ],
)
def test_an_error_in_one_line(error: Exception, line: str | None, cause: str):
    assert line is None or first_line(error) == line
    assert reason(error) == cause
