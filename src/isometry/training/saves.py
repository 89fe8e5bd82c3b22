"""What a run keeps of itself: ``last/`` to go on from, ``best/`` to use; and the way back from ``last/``."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from isometry.config import RunConfig
from isometry.distributed import World
from isometry.errors import UserError
from isometry.objective import Objective
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
    ``seconds`` the time in the loop, ``unreadable`` the images that were replaced.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0
    unreadable: list[str] = field(default_factory=list)


class Saves:
    """Saves and restores what trains; ``folder`` is None in processes that write nothing."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder | None,
        world: World,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.config, self.folder, self.world = config, folder, world
        self.objective, self.optimizer, self.scaler = objective, optimizer, scaler

    def save_last(self, state: LoopState) -> None:
        """Writes ``last/``: everything that the next step depends on."""
        if self.folder is None:
            return
        moments, rest = split_optimizer_state(self.optimizer)
        kept = self.objective.get_checkpoint_state()
        parts = {"model": kept["state_dict"], "optimizer": moments, "terms": kept.get("task_state", {})}
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

    def restore(self) -> LoopState:
        """The state in ``last/``, with all tensors taken over from it; a new one where nothing was saved yet.

        Raises:
            UserError: it can't be read, or does not fit this run.
        """
        # The other processes wait until the main one has found the folder good.
        self.world.barrier()
        last = last_checkpoint(self.config.out)
        if not self.config.resume:
            return LoopState()
        if not has_checkpoint(last):
            if self.folder is not None:
                self.folder.metrics.rewind({})
            return LoopState()
        parts, told = load_checkpoint(last)
        try:
            state = self._take_over(parts, told)
            if self.folder is not None:
                self.folder.metrics.rewind(told["metrics"])
                tidy_checkpoint(last)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(f"{last}: the checkpoint does not fit this run ({reason(error)})") from error
        return state

    def _take_over(self, parts: dict[str, Tensors], told: dict[str, Any]) -> LoopState:
        if told["spec"] != self._spec():
            raise ValueError(f"it holds a {told['spec']['model']}, not the {self.config.model} asked for")
        if told["processes"] != self.world.size:
            raise ValueError(f"{told['processes']} processes saved it, and there are {self.world.size} now")
        self.objective.load_checkpoint_state(parts["model"], parts.get("terms", {}))
        if self.objective.has_ema():
            self.objective.load_checkpoint_state(parts["ema"], ema=True)
        join_optimizer_state(self.optimizer, parts.get("optimizer", {}), told["optimizer"])
        self.scaler.load_state_dict(told["scaler"])
        return LoopState(**told["loop"])

    def _spec(self) -> dict[str, Any]:
        config = self.config
        return {
            "model": config.model,
            "model_kwargs": config.model_kwargs,
            "num_classes": config.num_classes,
            "in_chans": config.in_chans,
            "img_size": config.img_size,
        }
