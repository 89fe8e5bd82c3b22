"""What the benchmarks share: the environment of a measurement, rounding, and the files in results/."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from isometry.distributed import World
from isometry.evaluation.environment import environment, processor

RESULTS = Path(__file__).parent / "results"
ONE_PROCESS = World(0, 1, torch.device("cpu"))


def measured_on(device: torch.device = ONE_PROCESS.device) -> dict[str, Any]:
    """Processor, device, threads and library versions."""
    return {"processor": processor(), **environment(device)}


def caption(setting: Mapping[str, object]) -> str:
    """The settings of a measurement in one line, for under a table."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def rounded(figures: Any, digits: int = 3) -> Any:
    """A JSON value whose floats have so many significant digits."""
    return json.loads(json.dumps(figures), parse_float=lambda text: float(f"{float(text):.{digits}g}"))


def save(name: str, result: Mapping[str, Any]) -> None:
    """Writes ``results/NAME.json``."""
    text = json.dumps(result, indent=2, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
