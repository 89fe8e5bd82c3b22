"""The state of a run on disk: ``last/`` to resume from, ``best/`` to use; and how ``last/`` is restored."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeInt
from rich.console import Console
from typing_extensions import TypedDict

from isometry.data.inventory import fingerprint
from isometry.data.splits import StreamPart
from isometry.distributed import World
from isometry.errors import UserError, reason
from isometry.grow.schedule import Stage
from isometry.parsing import closed, validate
from isometry.prune.gate_statistics import GateStatistics
from isometry.training.assemble import Run
from isometry.training.checkpoint.files import (
    Checkpoint,
    has_checkpoint,
    load_checkpoint,
    restore_previous,
    save_checkpoint,
    snapshot,
    tidy_checkpoint,
)
from isometry.training.checkpoint.optimizer_state import join_optimizer_state, split_optimizer_state
from isometry.training.checkpoint.run_folder import RunFolder, last_checkpoint
from isometry.training.checkpoint.writer import Writer
from isometry.training.data_changes import check_images, write_record
from isometry.training.progress import add_notes


@closed
@dataclass
class LoopState:
    """Position of the training loop; all that a checkpoint needs besides tensors.

    ``step`` counts optimizer steps, ``seen`` the epoch's images so far, over all processes; ``sums`` are their losses,
    ``seconds`` the time in the loop, ``unreadable`` the images that were replaced or left out. ``scores`` are the last
    epoch's validation scores; ``best`` is the best score, of the weights or of their moving average. ``growths`` has an
    entry for each stage after the first, ``validation`` the fingerprint of the images that scores are of.
    """

    step: int = 0
    epoch: int = 0
    seen: int = 0
    sums: list[float] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    best_is_average: bool | None = None
    seconds: float = 0.0
    unreadable: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    growths: list[dict[str, Any]] = field(default_factory=list)
    validation: int = 0

    def keep_best(self, score: float, is_average: bool) -> bool:
        """Whether the epoch that has ended is the best so far, which the state says from then on."""
        best = self.best is None or score > self.best
        if best:
            self.best, self.best_epoch, self.best_is_average = score, self.epoch, is_average
        return best


class SavedState(TypedDict):
    """The state in ``last/checkpoint.json``."""

    spec: dict[str, Any]
    processes: int
    loop: LoopState
    metrics: dict[str, NonNegativeInt]
    optimizer: dict[str, dict[str, dict[str, Any]]]
    scaler: dict[str, Any]


@dataclass(frozen=True)
class Saved:
    """What was found in ``last/``, with the stage of growth that it was saved at."""

    checkpoint: Checkpoint
    state: SavedState
    stage: int


def load_with_note(folder: Path, run: Run, console: Console | None) -> Checkpoint:
    """Loads a folder's checkpoint; if it is damaged, the previous one, with a note on the console and in the report.

    Raises:
        UserError: both are damaged.
    """
    found = load_checkpoint(folder)
    if found.note:
        add_notes(run.notes, [found.note], console)
    return found


class RunState:
    """Saves and restores a run; ``folder`` is None in processes that write nothing.

    Saves are written behind the next steps by ``writer``, from a copy of the state in the CPU's memory.
    """

    def __init__(
        self,
        run: Run,
        folder: RunFolder | None,
        writer: Writer,
        world: World,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        statistics: GateStatistics,
    ) -> None:
        self.run, self.config, self.objective = run, run.config, run.objective
        self.folder, self.writer, self.world = folder, writer, world
        self.optimizer, self.scaler, self.statistics = optimizer, scaler, statistics

    def save_last(self, state: LoopState, best: bool = False) -> None:
        """Begins to write ``last/``: everything that the next step depends on.

        If this epoch is the ``best``, it writes ``best/`` first: the student's weights or their moving average,
        whichever scored better.

        Raises:
            UserError: the save before this one was impossible.
        """
        if (folder := self.folder) is None:
            return
        # First, so that there is never more than one copy of the state.
        self.writer.wait()
        moments, rest = split_optimizer_state(self.optimizer)
        kept = self.objective.get_checkpoint_state()
        parts = {"model": kept["state_dict"], "optimizer": moments, "terms": kept.get("task_state", {})}
        parts["gates"] = self.statistics.state_dict()
        if self.objective.has_ema():
            parts["ema"] = self.objective.get_checkpoint_state(ema=True)["state_dict_ema"]
        copies = snapshot(parts)
        record = {
            "spec": self._spec(),
            "processes": self.world.size,
            "loop": asdict(state) | {"validation": self._validation},
            "metrics": folder.metrics.sizes(),
            # Some optimizers change lists in place.
            "optimizer": deepcopy(rest),
            "scaler": self.scaler.state_dict(),
        }
        delivered = "ema" if state.best_is_average else "model"
        figures = {"spec": self._spec(), "epoch": state.epoch, "step": state.step, "score": state.best}

        def write() -> None:
            if best:
                save_checkpoint(
                    folder.best, {"model": copies[delivered]}, figures, f"epoch{figures['epoch']}"
                )
            save_checkpoint(folder.last, copies, record, f"step{figures['step']}")

        self.writer.begin(write)

    def find(self, console: Console | None) -> Saved | None:
        """Reads ``last/``; None if nothing was saved yet. Damage is reported on the console.

        Raises:
            UserError: it can't be read, or belongs to another run.
        """
        # The other processes wait until the main one has checked the folder.
        self.world.barrier()
        self._check_same_data()
        last = last_checkpoint(self.config.out)
        if not (self.config.resume and has_checkpoint(last)):
            if self.folder is not None and self.run.inventory is not None:
                write_record(self.config.out, {"inventory": self.run.inventory, "notes": []})
            if self.folder is not None and self.config.resume:
                self.folder.metrics.rewind({})
                self.folder.times.keep(0)
                add_notes(self.run.notes, self.folder.keep_options(self.config), console)
            return None
        checkpoint = load_with_note(last, self.run, console)
        with fitting(last):
            state: SavedState = validate(checkpoint.state, SavedState)
            loop, spec = state["loop"], state["spec"]
            inside = loop.seen > 0 and isinstance(self.run.sources.train, StreamPart)
            if inside and state["processes"] != self.world.size:
                raise ValueError(
                    f"it was saved inside an epoch of a stream, which needs the same {state['processes']} processes"
                )
            stage = self.run.schedule.stages[spec["stage"] - 1]
            if _without_place(spec) != _without_place(self._spec(stage)):
                raise ValueError(f"it holds a {spec['model']}, not the {self.config.model} asked for")
            # Also keeps each process from going on, and tidying up, while another still reads.
            places = self.world.gather([loop.epoch, loop.step])
            if any(place != places[0] for place in places):
                raise ValueError("processes read different saves; all of them must see the same folder")
        self._check_images(loop, console)
        if self.folder is not None:
            add_notes(self.run.notes, self.folder.keep_options(self.config), console)
        return Saved(checkpoint, state, stage.number)

    @cached_property
    def _validation(self) -> int:
        """Fingerprint of the validation images, which scores are compared on; 0 if not known."""
        return fingerprint(self.run.inventory["images"].get("validation")) if self.run.inventory else 0

    def _check_same_data(self) -> None:
        """Raises UserError if another process has other classes or images, e.g. on another machine."""
        if self.run.inventory is not None:
            prints = self.world.gather([fingerprint(self.run.inventory)])
            if other := [rank for rank, found in enumerate(prints) if found != prints[0]]:
                raise UserError(
                    f"process {other[0]} of {len(prints)} has other images or classes than process 0; "
                    "give all of them the same files"
                )

    def _check_images(self, loop: LoopState, console: Console | None) -> None:
        """Compares the images with those of the run; all processes do, so that all refuse alike."""
        if (now := self.run.inventory) is None:
            return
        out, begun = self.config.out, loop.seen > 0
        ended = loop.epoch >= self.config.epochs
        record, notes = check_images(out, now, begun=begun, ended=ended, allowed=self.config.data_changed)
        if loop.validation not in (0, self._validation) and not ended:
            loop.best = loop.best_epoch = None
        add_notes(self.run.notes, notes, console)
        # Not while another process still reads the record.
        self.world.barrier()
        if self.folder is not None:
            write_record(out, record)

    def take_over(self, saved: Saved) -> LoopState:
        """Loads all tensors that were saved at this stage; returns the loop's state.

        Raises:
            UserError: they don't fit this run.
        """
        last = last_checkpoint(self.config.out)
        parts, state = saved.checkpoint.parts, saved.state
        with fitting(last):
            self.objective.load_checkpoint_state(parts["model"], parts.get("terms", {}))
            if self.objective.has_ema():
                self.objective.load_checkpoint_state(parts["ema"], ema=True)
            join_optimizer_state(self.optimizer, parts.get("optimizer", {}), state["optimizer"])
            self.statistics.load_state_dict(parts.get("gates", {}))
            self.scaler.load_state_dict(state["scaler"])
            if self.folder is not None:
                if saved.checkpoint.note:
                    restore_previous(last)
                self.folder.metrics.rewind(state["metrics"])
                self.folder.times.keep(state["loop"].epoch)
                tidy_checkpoint(last)
        return state["loop"]

    def _spec(self, stage: Stage | None = None) -> dict[str, Any]:
        """The network that is saved, with its stage of growth, as it comes back from JSON."""
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
        saved: dict[str, Any] = json.loads(json.dumps(spec))
        return saved


def _without_place(spec: dict[str, Any]) -> dict[str, Any]:
    """A network's spec without the folder that it came from, which may have moved."""
    return spec | {"model": "local-dir:"} if spec["model"].startswith("local-dir:") else spec


@contextmanager
def fitting(last: Path) -> Iterator[None]:
    """Turns errors inside the block into a UserError: the checkpoint does not fit the run."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{last}: the checkpoint does not fit this run ({reason(error)})") from error
