"""Rows of times.jsonl."""

from typing import Any

PHASES = {
    "data": 1.0,
    "teacher": 8.0,
    "student": 3.0,
    "terms": 2.0,
    "backward": 5.0,
    "optimizer": 0.5,
    "rest": 0.5,
}
"""Twenty seconds."""


def epoch(number: int, steps: int = 10, **seconds: float) -> dict[str, Any]:
    """A row: its steps and the seconds of its phases."""
    return {"epoch": number, "steps": steps, **(seconds or PHASES)}


ROWS = [epoch(1), epoch(2)]
