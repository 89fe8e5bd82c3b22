"""What a run keeps of itself: ``last/`` to go on from, ``best/`` to use; and the way back from ``last/``."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import torch
from rich.console import Console

from isometry.data.splits import StreamPart
from isometry.distributed import World
from isometry.errors import UserError, reason
from isometry.grow.schedule import Stage
from isometry.prune.gate_statistics import GateStatistics
from isometry.training.assemble import Run
from isometry.training.checkpoint.files import (
    Checkpoint,
    go_back,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
    tidy_checkpoint,
)
from isometry.training.checkpoint.optimizer_state import join_optimizer_state, split_optimizer_state
from isometry.training.checkpoint.run_folder import RunFolder, last_checkpoint
from isometry.training.progress import tell


@dataclass
class LoopState:
    """Where the loop stands; all that a checkpoint needs besides tensors.

    ``step`` counts optimizer steps, ``seen`` the epoch's images so far, in all processes; ``sums`` are their losses,
    ``seconds`` the time in the loop, ``unreadable`` the images that were replaced. ``scores`` are the last
    epoch's on the validation part; ``growths`` say of each stage after the first what it began with.
    """

    step: int = 0
    epoch: int = 0
    seen: int = 0
    sums: list[float] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0
    unreadable: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    growths: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A checkpoint is a file, and a file can say anything.
        for name, kind in get_type_hints(LoopState).items():
            if not _is(getattr(self, name), kind):
                raise ValueError(f"{name} is no {getattr(kind, '__name__', kind)}")


@dataclass(frozen=True)
class Saved(Checkpoint):
    """What was found in ``last/``, of a stage of growth."""

    stage: int = 0


def load_aloud(folder: Path, run: Run, console: Console | None) -> Checkpoint:
    """A folder's checkpoint; the one before where it is damaged, which the console and the report then say.

    Raises:
        UserError: neither is whole.
    """
    found = load_checkpoint(folder)
    if found.note:
        run.notes.append(found.note)
        if console is not None:
            tell(console, [found.note])
    return found


class RunState:
    """RunState and restores what trains; ``folder`` is None in processes that write nothing."""

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

    def find(self, console: Console | None) -> Saved | None:
        """What ``last/`` holds; None where nothing was saved yet. The console is told what is damaged.

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
                self.folder.times.keep(0)
            return None
        found = load_aloud(last, self.run, console)
        told = found.state
        with _fitting(last):
            inside = told["loop"]["seen"] > 0 and isinstance(self.run.sources.train, StreamPart)
            if inside and told["processes"] != self.world.size:
                raise ValueError(
                    f"{told['processes']} processes saved it inside an epoch, and a stream goes on with as many only"
                )
            stage = self.run.schedule.stages[told["spec"]["stage"] - 1]
            if told["spec"] != self._spec(stage):
                raise ValueError(f"it holds a {told['spec']['model']}, not the {self.config.model} asked for")
            # Also so that none goes on, and tidies up, while another still reads.
            places = self.world.gather([told["loop"]["epoch"], told["loop"]["step"]])
            if any(place != places[0] for place in places):
                raise ValueError("processes read different saves; all of them must see the same folder")
            return Saved(**vars(found), stage=stage.number)

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
            join_optimizer_state(self.optimizer, saved.parts.get("optimizer", {}), saved.state["optimizer"])
            self.statistics.load_state_dict(saved.parts.get("gates", {}))
            self.scaler.load_state_dict(saved.state["scaler"])
            state = LoopState(**saved.state["loop"])
            sizes = saved.state["metrics"]
            if not _is(sizes, dict[str, int]) or min(sizes.values(), default=0) < 0:
                raise ValueError("metrics are no sizes of files")
            if self.folder is not None:
                if saved.note:
                    go_back(last)
                self.folder.metrics.rewind(sizes)
                self.folder.times.keep(state.epoch)
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


def _is(value: Any, kind: Any) -> bool:
    """Whether what JSON gave is of a type such as ``list[float]`` or ``int | None``, all through."""
    inside = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_is(value, one) for one in inside)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is(each, inside[0]) for each in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is(each, inside[1]) for each in value.values())
    return kind is Any or isinstance(value, int | float if kind is float else kind)


@contextmanager
def _fitting(last: Path) -> Iterator[None]:
    """Whatever does not fit inside becomes a UserError of one line."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{last}: the checkpoint does not fit this run ({reason(error)})") from error
