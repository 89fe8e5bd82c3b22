"""The loop: steps, epochs, saves, and nothing else. It trains an Objective and leaves a run folder."""

import signal
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from rich.console import Console

from isometry.data import Batch, Preprocess, make_loaders
from isometry.distributed import World
from isometry.errors import UserError
from isometry.grow.schedule import Stage
from isometry.report.records.data import REST
from isometry.seeding import derive_seed, seed_global_generators
from isometry.training.assemble import Run, enter_stage
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.checkpoint.run_state import LoopState, RunState
from isometry.training.gate_thresholds import GateThresholds
from isometry.training.growth import build_stage_optimizer, grow
from isometry.training.loggers import open_loggers
from isometry.training.loss_meter import (
    CALMER,
    LossMeter,
    NotFiniteError,
    all_finite,
    explain,
    record,
    record_path,
)
from isometry.training.microbatches import MicroBatches
from isometry.training.optim import at_stage, build_schedule, take_step
from isometry.training.parallelize import prepare
from isometry.training.phase_timer import PHASES, PhaseTimer
from isometry.training.progress import reporter
from isometry.training.signals import Interrupted, StopRequest
from isometry.training.teacher_cache.source import Teaching
from isometry.training.validation import score_of, validate


class Trainer:
    """Trains ``run.objective`` into ``folder`` (None: this process writes nothing); call :meth:`fit`.

    Everything random in step k is drawn from generators seeded by (seed, k), so that a resumed run repeats
    the steps of one that was never stopped without having stored any generator.
    """

    def __init__(
        self, run: Run, folder: RunFolder | None, world: World, console: Console | None, label: str
    ) -> None:
        self.run, self.config, self.world, self.folder = run, run.config, world, folder
        self.console, self.label = console, label
        self.loaders = make_loaders(
            run.sources, self.config, run.spec, seed=self.config.seed, rank=world.rank, world_size=world.size
        )
        classes = self.config.num_classes if run.sources.labelled else None
        self.preprocess = Preprocess(self.config, run.spec, classes, world.device)
        self.watch = PhaseTimer(world.device)
        self.feed = MicroBatches(self.loaders.train, self.config.grad_accum_steps, self.watch)
        self.steps_an_epoch = self.feed.steps_an_epoch
        scaled = self.config.amp and self.config.amp_dtype == "float16"
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=scaled)
        self.tally = LossMeter(["loss", *(term.name for term in run.objective.terms)], world)
        self.state = LoopState()
        self.wish = StopRequest()
        self.reporter = reporter(None, label, 0, 0, 0)
        self._started, self._first_step = time.monotonic(), 0
        self._adopt(run, build_stage_optimizer(run, world))
        self.teaching = Teaching(run, world, self.feed, self.autocast, console)

    def _adopt(self, run: Run, optimizer: torch.optim.Optimizer) -> None:
        """Takes a stage's network over, with its optimizer and all that hangs on the two."""
        self.run, self.objective, self.optimizer = run, run.objective, optimizer
        self.objective.watch = self.watch
        config = at_stage(run.config, run.schedule, run.stage)
        self.scheduler = build_schedule(config, optimizer, self.steps_an_epoch)
        begun = run.stage.first_epoch * self.steps_an_epoch
        self._schedule_start = begun if self.config.grow.lr == "restart" else 0
        self._ema_start = begun if self.config.grow.ema == "restart" else 0
        if self.config.model_ema:
            self.objective.setup_ema(self.config.model_ema_decay, use_warmup=self.config.model_ema_warmup)
        self.gates = GateThresholds(run, self.world)
        self.saves = RunState(run, self.folder, self.world, optimizer, self.scaler, self.gates.statistics)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_an_epoch * self.config.epochs

    @property
    def place(self) -> int:
        """How many of them are behind the run: those it took, unless the number of processes changed on the way."""
        return self.state.epoch * self.steps_an_epoch + self.feed.steps_before(self.state.seen)

    def fit(self) -> None:
        """Trains to the end, from wherever the folder's last checkpoint stands.

        Raises:
            Interrupted: after a save, on SIGTERM or Ctrl-C.
            UserError: after a save, when a loss is not finite; or when a save is impossible.
        """
        self.restore()
        prepare(self.objective, self.config, self.world, self.run.spec.input_size)
        console = self.console if self.world.main else None
        self.reporter = reporter(console, self.label, self.total_steps, self.config.epochs, self.place)
        self._started = time.monotonic() - self.state.seconds
        loggers = open_loggers(self.config, self.state.step)
        with loggers if self.world.main else nullcontext(lambda row: None) as log, self.wish, self.reporter:
            self.reporter.stage(self.run.schedule.describe(self.run.stage))
            while self.state.epoch < self.config.epochs:
                stage = self.run.schedule.at(self.state.epoch)
                if stage.number > self.run.stage.number:
                    self.grow(stage)
                self.train_epoch()
                row = self.end_epoch()
                self.save()
                self.reporter.epoch(row)
                log(row)
                if self.world.any(self.wish.signal_number is not None):
                    self._leave()

    def restore(self) -> None:
        """Goes to where the folder's last checkpoint stands, if there is one, in its stage of growth."""
        saved = self.saves.find(self.console)
        if saved is None:
            return
        if saved.stage:
            run = enter_stage(self.run, self.run.schedule.stages[saved.stage])
            self._adopt(run, build_stage_optimizer(run, self.world))
        self.state = self.saves.take_over(saved)
        self.tally.sums = self.state.sums or self.tally.sums
        self.feed.unreadable = list(self.state.unreadable)
        if self.world.main:
            record_path(self.config.out).unlink(missing_ok=True)

    def grow(self, stage: Stage) -> None:
        """Goes on with the next stage's network, which carries on from this one's.

        The scores just before are the last epoch's; a best epoch of a smaller network counts no more.
        """
        begun = time.monotonic() - self._started
        run, optimizer, average = grow(self.run, stage, self.optimizer, self.world)
        self._adopt(run, optimizer)
        if average is not None and self.config.grow.ema == "grow":
            self.objective.trainable_module_ema.module.load_state_dict(average)
        prepare(self.objective, self.config, self.world, run.spec.input_size)
        scores = {"before": self.state.scores, "after": self.evaluate()}
        self.state.growths.append({"stage": stage.number + 1, "seconds": begun, **scores})
        self.state.best = self.state.best_epoch = None
        self.reporter.stage(self.run.schedule.describe(self.run.stage))

    def train_epoch(self) -> None:
        """The epoch's steps, from the batch where the state stands."""
        self.objective.train()
        self.watch.read()  # what was timed before, in evaluation
        self._first_step = self.state.step
        with self.watch(REST):
            for batches in self.feed.groups(self.state.epoch, self.state.seen):
                asked = self.train_step(batches)
                self.reporter.step(self.place, self.state.epoch)
                every = self.config.recovery_interval
                if asked or (every and self.state.step % every == 0):
                    self.settle()
                    self.save()
                if asked:
                    self._leave()
            self.settle()

    def train_step(self, batches: list[Batch]) -> bool:
        """One optimizer step on the mean gradient of some batches; returns whether the run should stop."""
        state = self.state
        self.scheduler.step_update(self.place - self._schedule_start)
        results = []
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            # Anew for each: what is erased and mixed must not depend on what the student drew before.
            self._seed(f"step/{number}" if number else "step", state.step)
            with self.watch("data"):
                input, target = self.preprocess(batch)
            with nullcontext() if last else self.objective.no_sync():
                with self.autocast():
                    before = state.seen + number * self.loaders.train.global_batch_size
                    taught = self.teaching.taught(self.objective, input, state.epoch, before)
                    result = self.objective(input, target, taught)
                with self.watch("backward"):
                    self.scaler.scale(result["loss"] / len(batches)).backward()
            results.append(result)
        rows = [torch.stack([found[name].detach().float() for name in self.tally.names]) for found in results]
        terms = torch.stack(rows).div(len(batches)).sum(0)
        images = [int(index) for batch in batches for index in batch.indices]
        self.tally.add(state.step, terms, images)
        # Without a device to wait for, look before the step is taken: what is saved is then still good.
        on_host = self.world.device.type == "cpu"
        asked = on_host and self.read_losses()
        self.gates.see(results)
        with self.watch("optimizer"):
            self._update()
        state.step += 1
        state.seen += len(images) * self.world.size
        if not on_host and state.step % self.config.log_interval == 0:
            asked = self.read_losses()
        # Several processes must leave at the same step: after a reading, which tells all of them.
        return asked or (self.world.size == 1 and self.wish.signal_number is not None)

    def _update(self) -> None:
        take_step(self.objective, self.optimizer, self.scaler, self.config.clip_grad)
        self.objective.update_ema(self.place - self._ema_start)

    def read_losses(self) -> bool:
        """Reads the losses since the last reading: the one place that waits for the device between saves.

        Returns:
            Whether a process was asked to stop.

        Raises:
            UserError: one is not finite: the step, the term and the images; after a save.
        """
        try:
            values, asked = self.tally.read(self.wish.signal_number is not None)
        except NotFiniteError as error:
            kept = "the weights no longer are either, and the save before is kept"
            if not self.world.any(not all_finite(self.objective.get_trainable_module())):
                self.save()
                kept = f"saved at step {self.state.step}"
            record(error, self.folder, self.state)
            raise explain(error, self.config.out, self.state, kept) from error
        if values:
            self.reporter.losses(values)
        return asked

    def settle(self) -> None:
        """Before a save or an evaluation: all losses are read, all weights finite, and in all processes the same.

        Raises:
            UserError: they are not finite: a step with finite losses had gradients that were not.
        """
        self.read_losses()
        # Norms' statistics are each process's own till then.
        self.world.share(self.objective.buffers())
        if not all_finite(self.objective.get_trainable_module()):
            raise UserError(
                f"step {self.state.step}: the weights are not finite, though the losses were; "
                f"the save before is kept; {CALMER}"
            )

    def _leave(self) -> None:
        done = f"stopped at step {self.place} of {self.total_steps}, saved; go on with --resume"
        raise Interrupted(done, self.wish.signal_number or signal.SIGTERM, saved=True)

    def end_epoch(self) -> dict[str, Any]:
        """Evaluates, writes the epoch's row of metrics, keeps the best; returns the row."""
        state, taken = self.state, self.watch.read()
        row: dict[str, Any] = {"epoch": state.epoch + 1, "step": state.step}
        times = {phase: taken.get(phase, 0.0) for phase in (*PHASES, REST)}
        row["lr"] = max(group["lr"] for group in self.optimizer.param_groups)
        if self.run.schedule.grows:
            row["stage"] = self.run.stage.number + 1
        for name, total in zip(self.tally.names, self.tally.sums, strict=True):
            row[f"train/{name}"] = total / state.seen
        if self.gates.layers:
            row["keep_rate"] = self.gates.set_thresholds(state.epoch)
            state.best = state.best_epoch = None  # epochs that kept more would win for ever
        state.scores = self.evaluate()
        row |= state.scores
        state.epoch, state.seen = state.epoch + 1, 0
        self.tally = LossMeter(self.tally.names, self.world)
        self.teaching.say()
        self._keep_best(row)
        if self.folder is not None:
            self.folder.metrics.append(row)
            self.folder.times.append({"epoch": state.epoch, "steps": state.step - self._first_step, **times})
        return row | {f"seconds/{phase}": seconds for phase, seconds in times.items()}

    def evaluate(self) -> dict[str, float]:
        """Figures on the validation part, if there is one, of the model and of its moving average."""
        if self.loaders.val is None:
            return {}
        self._seed("evaluate", self.state.epoch)
        batches = partial(self.feed.noting_unreadable, self.loaders.val)
        labelled = self.run.sources.labelled
        return validate(self.objective, batches, labelled, self.preprocess, self.world, self.autocast)

    def _keep_best(self, row: Mapping[str, float]) -> None:
        score = score_of(row)
        if self.state.best is None or score > self.state.best:
            self.state.best, self.state.best_epoch = score, self.state.epoch
            self.saves.save_best(self.state)

    def save(self) -> None:
        """Writes ``last/``."""
        self.gates.statistics.settle()
        self.state.seconds, self.state.sums = time.monotonic() - self._started, self.tally.sums
        self.state.unreadable = self.feed.unreadable
        self.saves.save_last(self.state)

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision, if it was asked for."""
        dtype = getattr(torch, self.config.amp_dtype)
        return torch.autocast(self.world.device.type, dtype=dtype, enabled=self.config.amp)

    def _seed(self, purpose: str, number: int) -> None:
        """Seeds everything that the loop draws from, as a function of where it stands."""
        place = (number, self.world.rank)
        seed_global_generators(derive_seed(self.config.seed, purpose, *place))
        self.run.generator.manual_seed(derive_seed(self.config.seed, "terms", purpose, *place))
