"""The training of a detector or a segmentation network: steps, epochs, validation, saves."""

import signal
import time
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from isometry.data import Preprocess
from isometry.data.dense.batches import DenseBatch, dense_loaders
from isometry.data.dense.inventory import dense_inventory
from isometry.distributed import World
from isometry.evaluation.dense.answers import answers_to
from isometry.models.dense.network import DenseNetwork
from isometry.models.finite import all_finite
from isometry.seeding import derive_seed, seed_global_generators
from isometry.training.checkpoint.files import (
    has_checkpoint,
    load_checkpoint,
    restore_previous,
    save_checkpoint,
    snapshot,
    tidy_checkpoint,
)
from isometry.training.checkpoint.optimizer_state import join_optimizer_state, split_optimizer_state
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.checkpoint.run_state import LoopState, fitting
from isometry.training.data_changes import write_record
from isometry.training.loggers import open_loggers
from isometry.training.loss_meter import LossMeter, NotFiniteError, check_weights, not_finite, record_path
from isometry.training.memory_layout import lay_out
from isometry.training.optim import build_optimizer, build_schedule, take_step
from isometry.training.progress import add_notes, reporter
from isometry.training.signals import Interrupted, StopRequest
from isometry.training.transfer.assemble import DenseRun
from isometry.training.transfer.changes import data_text, note_changes, saved_state, validation_fingerprint

VALIDATIONS = 10
"""Most validations of a run: average precision takes as long as a part of an epoch."""

TERMS: dict[str, dict[str, str]] = {
    "detect": {"classification": "focal", "bbox_regression": "GIoU", "bbox_ctrness": "centre-ness"},
    "segment": {},
}
"""Losses of each task that are summed, and what they are called."""
SCORES = {"detect": ("ap", "ap50"), "segment": ("miou",)}
"""What a row of metrics has of a validation; the first decides which epoch is best."""


class Trained:
    """The parts of a network as :mod:`isometry.training.optim` asks for them."""

    def __init__(self, network: DenseNetwork) -> None:
        self.trainable_module: nn.Module = network
        self.student: nn.Module = network.backbone

    def get_clip_parameters(self) -> list[Tensor]:
        """All that gets a gradient."""
        return [each for each in self.trainable_module.parameters() if each.requires_grad]


class DenseTrainer:
    """Trains ``run.network`` into ``folder``; call :meth:`fit`.

    All random numbers of step k come from generators seeded by (seed, k), so that a resumed run repeats the steps of an
    uninterrupted one without saved generator states.
    """

    def __init__(
        self, run: DenseRun, folder: RunFolder, world: World, console: Console | None, label: str
    ) -> None:
        config = self.config = run.config
        self.run, self.folder, self.world, self.console, self.label = run, folder, world, console, label
        self.network = run.network.to(world.device)
        if config.channels_last:
            lay_out(self.network, torch.channels_last)
        self.loaders = dense_loaders(run.sources, config, run.spec, config.seed, epochs=config.epochs)
        self.preprocess = Preprocess(config, run.spec, None, world.device)
        self.inventory = dense_inventory(run.sources, config.data_dir)
        self.steps_per_epoch = len(self.loaders.train)
        self.total_steps = self.steps_per_epoch * config.epochs
        self.trained = Trained(self.network)
        self.optimizer = build_optimizer(config, self.trained)
        self.scheduler = build_schedule(config, self.optimizer, self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=False)
        self.names = ["loss", *TERMS[self.network.task]]
        self.meter = LossMeter(self.names, world)
        self.state, self.stop = LoopState(), StopRequest()
        self.reporter = reporter(None, label, 0, 0, 0)
        self._started = time.monotonic()

    def fit(self) -> None:
        """Trains to the end, from the folder's last checkpoint.

        Raises:
            Interrupted: after a save, on SIGTERM or Ctrl-C.
            UserError: after a save, if a loss is not finite; or if a save is impossible.
        """
        self.restore()
        self.reporter = reporter(
            self.console, self.label, self.total_steps, self.config.epochs, self.state.step
        )
        self._started = time.monotonic() - self.state.seconds
        with open_loggers(self.config, self.state.step) as loggers, self.stop.listening(), self.reporter:
            while self.state.epoch < self.config.epochs:
                self.train_epoch()
                row = self.end_epoch()
                self.reporter.epoch(row)
                for logger in loggers:
                    logger.row({key: value for key, value in row.items() if value is not None})
                if self.stop.received:
                    self._interrupt()

    def train_epoch(self) -> None:
        """Takes the steps of the epoch that are left."""
        self.network.train()
        for batch in self.loaders.train.epoch(self.state.epoch, self.state.seen):
            self.train_step(batch)
            self.reporter.step(self.state.step, self.state.epoch)
            if self.stop.received:
                self._read_losses()
                self.save()
                self._interrupt()
        self._read_losses()
        check_weights(self.network, self.state.step)

    def train_step(self, batch: DenseBatch) -> None:
        """One optimizer step on a batch.

        Raises:
            UserError: the loss is not finite, after a save.
        """
        state = self.state
        self.scheduler.step_update(state.step)
        seed_global_generators(derive_seed(self.config.seed, "step", state.step))
        losses = self._losses(batch)
        losses["loss"].backward()
        self.add_unreadable(batch.unreadable)
        self.meter.add(state.step, self.meter.mean([losses]), batch.indices.tolist())
        if self.world.device.type == "cpu" or (state.step + 1) % self.config.log_interval == 0:
            # On a CPU there is no device to wait for: losses are checked while the weights are still good.
            self._read_losses()
        take_step(self.trained, self.optimizer, self.scaler, self.config.clip_grad)
        state.step += 1
        state.seen += len(batch)

    def _losses(self, batch: DenseBatch) -> dict[str, Tensor]:
        images, masks = self.preprocess.normalise(batch)
        device = self.world.device
        truth: Any = masks.long()
        if self.network.task == "detect":
            found: Any = batch.annotations
            truth = [{name: each.to(device) for name, each in one.items()} for one in found]
        # Answers are float32 again where losses are computed, and in every evaluation.
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.amp):
            losses = self.network(images, truth)
        return losses if "loss" in losses else {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _read_losses(self) -> None:
        try:
            values, _ = self.meter.read()
        except NotFiniteError as error:
            kept = "the weights are not finite either, and the previous save is kept"
            if all_finite(self.network):
                self.save()
                kept = f"saved at step {self.state.step}"
            raise not_finite(error, self.state, self.config.out, True, kept) from error
        if values:
            self.reporter.losses(values)

    def end_epoch(self) -> dict[str, Any]:
        """Validates, writes the epoch's row of metrics, and saves; returns the row."""
        state = self.state
        row: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "step": state.step,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            **self.meter.means(state.seen),
        }
        due = self._validation_is_due()
        if self.loaders.val is not None:
            if due:
                # A validation may be long, and can be stopped.
                self.save()
                state.scores = self.validate()
            names = [f"val/{name}" for name in SCORES[self.network.task]]
            row |= {name: state.scores.get(name) if due else None for name in names}
        state.epoch, state.seen = state.epoch + 1, 0
        self.meter = LossMeter(self.names, self.world)
        self.folder.metrics.append(row)
        best = due and state.keep_best(self._score(row), False)
        self.save(best)
        return row

    def _validation_is_due(self) -> bool:
        every = -(-self.config.epochs // VALIDATIONS)
        done = self.state.epoch + 1
        return self.loaders.val is None or done % every == 0 or done == self.config.epochs

    def _score(self, row: dict[str, Any]) -> float:
        """Larger is better; the epoch, if nothing is validated. Without any object or pixel there is no score."""
        key = f"val/{SCORES[self.network.task][0]}"
        found = row.get(key, float(row["epoch"]))
        return -1.0 if found is None else float(found)

    def validate(self) -> dict[str, float]:
        """The scores of the validation part, by key of a row of metrics."""
        assert self.loaders.val is not None
        seed_global_generators(derive_seed(self.config.seed, "evaluate", self.state.epoch))
        batches = takewhile(lambda _: not self.stop.received, self.loaders.val)
        answers = answers_to(self.network, batches, self.preprocess)
        if self.stop.received:
            self._interrupt()
        self.add_unreadable(answers.unreadable)
        scores = answers.scores(intervals=False)
        return {f"val/{name}": scores[name] for name in SCORES[self.network.task]}

    def add_unreadable(self, names: list[str]) -> None:
        """Adds images that could not be read to those of the state, each once."""
        self.state.unreadable = [*dict.fromkeys([*self.state.unreadable, *names])]

    def _interrupt(self) -> None:
        message = f"stopped at step {self.state.step} of {self.total_steps}, saved; go on with --resume"
        raise Interrupted(message, self.stop.signal_number or signal.SIGTERM, saved=True)

    # --- saves

    def save(self, best: bool = False) -> None:
        """Writes ``last/``: all that the next step depends on; and before it, for the best epoch, ``best/``."""
        state = self.state
        state.seconds, state.sums = time.monotonic() - self._started, self.meter.sums
        moments, rest = split_optimizer_state(self.optimizer)
        parts = snapshot({"model": self.network.state_dict(), "optimizer": moments})
        if best:
            figures = {"epoch": state.epoch, "step": state.step, "score": state.best}
            save_checkpoint(self.folder.best, {"model": parts["model"]}, figures, f"epoch{state.epoch}")
        record = {
            "data": data_text(self.run.sources),
            "loop": asdict(state) | {"validation": validation_fingerprint(self.inventory)},
            "metrics": self.folder.metrics.sizes(),
            "optimizer": rest,
        }
        save_checkpoint(self.folder.last, parts, record, f"step{state.step}")

    def restore(self) -> None:
        """Restores the folder's last checkpoint, if there is one.

        Raises:
            UserError: it can't be read, does not fit the run, or is of other data.
        """
        last: Path = self.folder.last
        if not (self.config.resume and has_checkpoint(last)):
            self.folder.metrics.rewind({})
            write_record(self.config.out, {"inventory": self.inventory, "notes": []})
            return
        found = load_checkpoint(last)
        if found.note:
            add_notes(self.run.notes, [found.note], self.console)
        with fitting(last):
            state = saved_state(found, self.run.sources, self.folder.path)
            self.network.load_state_dict(found.parts["model"])
            join_optimizer_state(self.optimizer, found.parts.get("optimizer", {}), state["optimizer"])
            if found.note:
                restore_previous(last)
            self.folder.metrics.rewind(state["metrics"])
            tidy_checkpoint(last)
        self.state = state["loop"]
        add_notes(self.run.notes, note_changes(self.config, self.inventory, self.state), self.console)
        self.meter.sums = self.state.sums or self.meter.sums
        record_path(self.config.out).unlink(missing_ok=True)
