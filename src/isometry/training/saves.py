"""What a run keeps of itself: ``last/`` to go on from, ``best/`` to use; and the way back from ``last/``."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from isometry.assemble import Run
from isometry.distributed import World
from isometry.errors import UserError
from isometry.grow.schedule import Stage
from isometry.prune.statistics import GateStatistics
from isometry.training.checkpoint import (
    Tensors,
    has_checkpoint,
    join_optimizer_state,
    load_checkpoint,
    reason,
    save_checkpoint,
    split_optimizer_state,
    tidy_checkpoint,
)
from isometry.training.runfolder import RunFolder, last_checkpoint


@dataclass
class LoopState:
    """Where the loop stands; all that a checkpoint needs besides tensors.

    ``step`` counts optimizer steps, ``batch`` the epoch's batches; ``sums`` are the epoch's losses so far,
    ``seconds`` the time in the loop, ``unreadable`` the images that were replaced. ``scores`` are the last
    epoch's on the validation part; ``growths`` say of each stage after the first what it began with.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0
    unreadable: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    growths: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Saved:
    """What was found in ``last/``."""

    parts: dict[str, Tensors]
    told: dict[str, Any]
    stage: int


class Saves:
    """Saves and restores what trains; ``folder`` is None in processes that write nothing."""

    def __init__(
        self,
        run: Run,
        folder: RunFolder | None,
        world: World,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        statistics: GateStatistics,
    ) -> None:
        self.run, self.config, self.objective = run, run.config, run.objective
        self.folder, self.world, self.optimizer, self.scaler = folder, world, optimizer, scaler
        self.statistics = statistics

    def save_last(self, state: LoopState) -> None:
        """Writes ``last/``: everything that the next step depends on."""
        if self.folder is None:
            return
        moments, rest = split_optimizer_state(self.optimizer)
        kept = self.objective.get_checkpoint_state()
        parts = {"model": kept["state_dict"], "optimizer": moments, "terms": kept.get("task_state", {})}
        parts["gates"] = self.statistics.state_dict()
        if self.objective.has_ema():
            parts["ema"] = self.objective.get_checkpoint_state(ema=True)["state_dict_ema"]
        told = {
            "spec": self._spec(),
            "processes": self.world.size,
            "loop": asdict(state),
            "metrics": self.folder.metrics.sizes(),
            "optimizer": rest,
            "scaler": self.scaler.state_dict(),
        }
        save_checkpoint(self.folder.last, parts, told, f"step{state.step}")

    def save_best(self, state: LoopState) -> None:
        """Writes ``best/``: the student's weights, or their moving average where there is one."""
        if self.folder is None:
            return
        ema = self.objective.has_ema()
        weights = self.objective.get_checkpoint_state(ema=ema)["state_dict_ema" if ema else "state_dict"]
        told = {"spec": self._spec(), "epoch": state.epoch, "step": state.step, "score": state.best}
        save_checkpoint(self.folder.best, {"model": weights}, told, f"epoch{state.epoch}")

    def find(self) -> Saved | None:
        """What ``last/`` holds; None where nothing was saved yet.

        Raises:
            UserError: it can't be read, or is of another run.
        """
        # The other processes wait until the main one has found the folder good.
        self.world.barrier()
        last = last_checkpoint(self.config.out)
        if not self.config.resume:
            return None
        if not has_checkpoint(last):
            if self.folder is not None:
                self.folder.metrics.rewind({})
            return None
        parts, told = load_checkpoint(last)
        with _fitting(last):
            if told["processes"] != self.world.size:
                raise ValueError(
                    f"{told['processes']} processes saved it, and there are {self.world.size} now"
                )
            stage = self.run.schedule.stages[told["spec"]["stage"] - 1]
            if told["spec"] != self._spec(stage):
                raise ValueError(f"it holds a {told['spec']['model']}, not the {self.config.model} asked for")
            return Saved(parts, told, stage.number)

    def take_over(self, saved: Saved) -> LoopState:
        """Loads all tensors that were saved at this stage; returns the loop's state.

        Raises:
            UserError: they don't fit this run.
        """
        last = last_checkpoint(self.config.out)
        with _fitting(last):
            self.objective.load_checkpoint_state(saved.parts["model"], saved.parts.get("terms", {}))
            if self.objective.has_ema():
                self.objective.load_checkpoint_state(saved.parts["ema"], ema=True)
            join_optimizer_state(self.optimizer, saved.parts.get("optimizer", {}), saved.told["optimizer"])
            self.statistics.load_state_dict(saved.parts.get("gates", {}))
            self.scaler.load_state_dict(saved.told["scaler"])
            state = LoopState(**saved.told["loop"])
            if self.folder is not None:
                self.folder.metrics.rewind(saved.told["metrics"])
                tidy_checkpoint(last)
        return state

    def _spec(self, stage: Stage | None = None) -> dict[str, Any]:
        """The network that is saved, with the stage of its growth: what JSON makes of it."""
        config, stage = self.config, stage or self.run.stage
        spec = {
            "model": config.model,
            "model_kwargs": config.model_kwargs | stage.arguments,
            "num_classes": config.num_classes,
            "in_chans": config.in_chans,
            "img_size": config.img_size,
            "stage": stage.number + 1,
            "stages": len(self.run.schedule.stages),
        }
        told: dict[str, Any] = json.loads(json.dumps(spec))
        return told


@contextmanager
def _fitting(last: Path) -> Iterator[None]:
    """Whatever does not fit inside becomes a UserError of one line."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{last}: the checkpoint does not fit this run ({reason(error)})") from error
