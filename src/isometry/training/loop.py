"""The training loop: steps, epochs, checkpoints. It trains an Objective into a run folder."""

import signal
import time
from contextlib import AbstractContextManager, nullcontext
from itertools import takewhile
from typing import Any

import torch
from rich.console import Console

from isometry.data import Batch, Preprocess, make_loaders
from isometry.distributed import World
from isometry.grow.schedule import Stage
from isometry.models.finite import all_finite
from isometry.models.teacher import BatchPosition
from isometry.report.records.data import REST
from isometry.seeding import derive_seed, seed_global_generators
from isometry.training.assemble import Run, enter_stage
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.checkpoint.run_state import LoopState, RunState
from isometry.training.checkpoint.writer import Writer
from isometry.training.gate_thresholds import GateThresholds
from isometry.training.growth import build_stage_optimizer, grow
from isometry.training.loggers import open_loggers
from isometry.training.loss_meter import LossMeter, NotFiniteError, check_weights, not_finite, record_path
from isometry.training.microbatches import MicroBatches
from isometry.training.moving_average import can_have_moved
from isometry.training.optim import at_stage, build_schedule, take_step
from isometry.training.parallelize import prepare, uncompiled
from isometry.training.phase_timer import PHASES, PhaseTimer
from isometry.training.progress import add_notes, reporter
from isometry.training.signals import Interrupted, StopRequest
from isometry.training.teacher_cache.source import CachedTeacher, open_cache
from isometry.training.validation import score_of, validate


class Trainer:
    """Trains ``run.objective`` into ``folder`` (None: this process writes nothing); call :meth:`fit`.

    All random numbers of step k come from generators seeded by (seed, k), so that a resumed run repeats the steps of an
    uninterrupted one without saved generator states.
    """

    def __init__(
        self, run: Run, folder: RunFolder | None, world: World, console: Console | None, label: str
    ) -> None:
        config = self.config = run.config
        self.world, self.folder, self.console, self.label = world, folder, console, label
        place = {"rank": world.rank, "world_size": world.size, "epochs": config.epochs}
        training = run.objective.view.images if run.objective.view else None
        self.loaders = make_loaders(run.sources, config, run.spec, training, seed=config.seed, **place)
        classes = config.num_classes if run.sources.labelled else None
        self.preprocess = Preprocess(config, run.spec, classes, world.device)
        self.timer = PhaseTimer(world.device)
        self.batches = MicroBatches(self.loaders.train, config.grad_accum_steps, self.timer, world.device)
        self.steps_per_epoch = self.batches.steps_per_epoch
        self.total_steps = self.steps_per_epoch * config.epochs
        scaled = config.amp and config.amp_dtype == "float16"
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=scaled)
        self.meter = LossMeter(["loss", *(term.name for term in run.terms)], world)
        self.state, self.stop, self.writer = LoopState(), StopRequest(), Writer(world.device)
        self.reporter = reporter(None, label, 0, 0, 0)
        self._started, self._first_step, self._saved_step = time.monotonic(), 0, -1
        optimizer = build_stage_optimizer(run, world)
        self.cache = open_cache(run, world, len(self.loaders.train), self.autocast)
        self._enter(run, optimizer)

    def _enter(self, run: Run, optimizer: torch.optim.Optimizer) -> None:
        """Switches to a stage's network and optimizer, and all that depends on them."""
        self.run, self.objective, self.optimizer = run, run.objective, optimizer
        self.objective.timer = self.timer
        if self.cache is not None and self.objective.teacher is not None:
            self.objective.teacher_source = CachedTeacher(self.objective.teacher, self.cache)
        options = at_stage(self.config, self.config.grow, run.schedule, run.stage)
        self.scheduler = build_schedule(options, optimizer, self.steps_per_epoch)
        first_step = run.stage.first_epoch * self.steps_per_epoch
        self._schedule_start = first_step if self.config.grow.lr == "restart" else 0
        self._ema_start = first_step if self.config.grow.ema == "restart" else 0
        if self.config.model_ema:
            self.objective.setup_ema(self.config.model_ema_decay, use_warmup=self.config.model_ema_warmup)
        self.thresholds = GateThresholds(run, self.world)
        self.checkpoints = RunState(
            run, self.folder, self.writer, self.world, optimizer, self.scaler, self.thresholds.statistics
        )

    @property
    def position(self) -> int:
        """Steps that are done; not ``state.step`` if the number of processes has changed."""
        return self.state.epoch * self.steps_per_epoch + self.batches.steps_before(self.state.seen)

    def fit(self) -> None:
        """Trains to the end, from the folder's last checkpoint.

        Raises:
            Interrupted: after a save, on SIGTERM or Ctrl-C.
            UserError: after a save, if a loss is not finite; or if a save is impossible.
        """
        self.restore()
        prepare(self.objective, self.config, self.world, self.run.spec.input_size)
        self.reporter = reporter(
            self.console, self.label, self.total_steps, self.config.epochs, self.position
        )
        self._started = time.monotonic() - self.state.seconds
        logs = open_loggers(self.config, self.state.step, self.world.main)
        with logs as loggers, self.stop.listening(), self.reporter, self.writer:
            self.reporter.stage(self.run.schedule.describe(self.run.stage), compiles=self.config.compile)
            while self.state.epoch < self.config.epochs:
                stage = self.run.schedule.at(self.state.epoch)
                if stage.number > self.run.stage.number:
                    self.grow(stage)
                self.train_epoch()
                row = self.end_epoch()
                average_follows = can_have_moved(self.config, self.position - self._ema_start)
                self.save(best=self.state.keep_best(*score_of(row, average_follows)))
                self.reporter.epoch(row)
                for logger in loggers:
                    logger.row(row)
                if self.world.any(self.stop.received):
                    self._interrupt()

    def restore(self) -> None:
        """Restores the folder's last checkpoint, if there is one, at its stage of growth."""
        saved = self.checkpoints.find(self.console)
        if saved is None:
            return
        if saved.stage:
            run = enter_stage(self.run, self.run.schedule.stages[saved.stage])
            self._enter(run, build_stage_optimizer(run, self.world))
        self.state = self.checkpoints.take_over(saved)
        self.meter.sums = self.state.sums or self.meter.sums
        self.batches.unreadable = list(self.state.unreadable)
        if self.world.main:
            record_path(self.config.out).unlink(missing_ok=True)

    def grow(self, stage: Stage) -> None:
        """Replaces the network by that of the next stage, with weights carried over; the best epoch starts anew."""
        seconds = time.monotonic() - self._started
        run, optimizer, average = grow(self.run, stage, self.optimizer, self.world)
        self._enter(run, optimizer)
        if average is not None and self.config.grow.ema == "grow":
            self.objective.trainable_module_ema.module.load_state_dict(average)
        prepare(self.objective, self.config, self.world, run.spec.input_size)
        scores = {"before": self.state.scores, "after": self.evaluate()}
        self.state.growths.append({"stage": stage.number + 1, "seconds": seconds, **scores})
        self.state.best = self.state.best_epoch = None
        self.reporter.stage(self.run.schedule.describe(self.run.stage), compiles=self.config.compile)

    def train_epoch(self) -> None:
        """Takes the steps of the epoch that are left."""
        self.objective.train()
        self.timer.read()  # drops the times of evaluation
        self._first_step = self.state.step
        with self.timer(REST):
            for batches in self.batches.groups(self.state.epoch, self.state.seen):
                self.loaders.prefetch_validation(self.batches.steps_left(self.state.seen))
                stopping = self.train_step(batches)
                self.reporter.step(self.position, self.state.epoch)
                every = self.config.recovery_interval
                if stopping or (every and self.state.step % every == 0):
                    self.synchronize()
                    self.save()
                if stopping:
                    self._interrupt()
            self.synchronize()

    def train_step(self, batches: list[Batch]) -> bool:
        """One optimizer step on the mean gradient of some batches; returns whether the run should stop."""
        state = self.state
        self.scheduler.step_update(self.position - self._schedule_start)
        results = []
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            # For each batch, so that augmentation does not depend on what the student drew before.
            self._seed(f"step/{number}" if number else "step", state.step)
            input, target = self.preprocess(batch)
            before = state.seen + number * self.loaders.train.global_batch_size
            with nullcontext() if last else self.objective.no_sync():
                with self.autocast(), uncompiled(len(batch) < self.loaders.train.batch_size):
                    result = self.objective(input, target, BatchPosition(state.epoch, before))
                with self.timer("backward"):
                    self.scaler.scale(result["loss"] / len(batches)).backward()
            results.append(result)
        images = [index for batch in batches for index in batch.indices.tolist()]
        self.meter.add(state.step, self.meter.mean(results), images)
        # On a CPU there is no device to wait for: losses are checked while the weights are still good.
        on_cpu = self.world.device.type == "cpu"
        stopping = on_cpu and self.read_losses()
        self.thresholds.add(results)
        with self.timer("optimizer"):
            self._update()
        state.step += 1
        state.seen += len(images) * self.world.size
        if not on_cpu and state.step % self.config.log_interval == 0:
            stopping = self.read_losses()
        # Several processes must stop at the same step: after a reading, which all of them share.
        return stopping or (self.world.size == 1 and self.stop.received)

    def _update(self) -> None:
        take_step(self.objective, self.optimizer, self.scaler, self.config.clip_grad)
        self.objective.update_ema(self.position - self._ema_start)

    def read_losses(self) -> bool:
        """Reads the losses since the last reading; between saves nothing else waits for the device.

        Returns:
            Whether a process was asked to stop.

        Raises:
            UserError: a loss is not finite, after a save.
        """
        try:
            values, stopping = self.meter.read(self.stop.received)
        except NotFiniteError as error:
            kept = "the weights are not finite either, and the previous save is kept"
            if not self.world.any(not all_finite(self.objective.get_trainable_module())):
                self.save()
                kept = f"saved at step {self.state.step}"
            raise not_finite(error, self.state, self.config.out, self.folder is not None, kept) from error
        if values:
            self.reporter.losses(values)
        return stopping

    def synchronize(self) -> None:
        """Before a save or an evaluation: reads all losses, shares buffers, and checks that weights are finite.

        Raises:
            UserError: they are not: a step with finite losses had gradients that were not.
        """
        self.read_losses()
        # Each process has its own running statistics of norms.
        self.world.share(self.objective.buffers())
        check_weights(self.objective.get_trainable_module(), self.state.step)

    def _interrupt(self) -> None:
        message = f"stopped at step {self.position} of {self.total_steps}, saved; go on with --resume"
        raise Interrupted(message, self.stop.signal_number or signal.SIGTERM, saved=True)

    def end_epoch(self) -> dict[str, Any]:
        """Evaluates, writes the epoch's row of metrics; returns the row."""
        state, seconds = self.state, self.timer.read()
        # A validation may be long, and can be stopped.
        if self.loaders.val is not None and self._saved_step != state.step:
            self.save()
        times = {phase: seconds.get(phase, 0.0) for phase in (*PHASES, REST)}
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        row: dict[str, Any] = {"epoch": state.epoch + 1, "step": state.step, "lr": rate}
        if self.run.schedule.grows:
            row["stage"] = self.run.stage.number + 1
        row |= self.meter.means(state.seen)
        if self.thresholds.layers:
            row["keep_rate"] = self.thresholds.set_thresholds(state.epoch)
            # Earlier epochs kept more channels, so their scores are not comparable.
            state.best = state.best_epoch = None
        state.scores = self.evaluate()
        row |= state.scores
        state.epoch, state.seen = state.epoch + 1, 0
        self.meter = LossMeter(self.meter.names, self.world)
        if self.cache is not None:
            add_notes(self.run.notes, self.cache.take_notes(), self.console)
        if self.folder is not None:
            self.folder.metrics.append(row)
            self.folder.times.append({"epoch": state.epoch, "steps": state.step - self._first_step, **times})
        return row | {f"seconds/{phase}": taken for phase, taken in times.items()}

    def evaluate(self) -> dict[str, float]:
        """Validation metrics, if there is a validation split, of the model and of its moving average."""
        if self.loaders.val is None:
            return {}
        self._seed("evaluate", self.state.epoch)
        batches = takewhile(lambda _: not self.stop.received, self.batches.read(self.loaders.val))
        labelled = self.run.sources.labelled
        figures = validate(self.objective, batches, labelled, self.preprocess, self.world, self.autocast)
        if self.world.any(self.stop.received):
            self._interrupt()
        return figures

    def save(self, best: bool = False) -> None:
        """Begins to write ``last/``, and ``best/`` if this epoch is the best; see ``writer``."""
        self._saved_step = self.state.step
        self.thresholds.statistics.settle()
        self.state.seconds, self.state.sums = time.monotonic() - self._started, self.meter.sums
        self.state.unreadable = self.batches.unreadable
        self.checkpoints.save_last(self.state, best)

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision, if the config says so."""
        dtype = getattr(torch, self.config.amp_dtype)
        return torch.autocast(self.world.device.type, dtype=dtype, enabled=self.config.amp)

    def _seed(self, purpose: str, number: int) -> None:
        """Seeds all generators that the loop draws from, as a function of its position."""
        place = (number, self.world.rank)
        seed_global_generators(derive_seed(self.config.seed, purpose, *place))
        self.run.generator.manual_seed(derive_seed(self.config.seed, "terms", purpose, *place))
