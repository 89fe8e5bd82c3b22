"""The loop: steps, epochs, saves, and nothing else. What it trains is an Objective; what it leaves is a run folder."""

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from isometry.assemble import Run
from isometry.checkpoint import (
    has_checkpoint,
    join_optimizer_state,
    load_checkpoint,
    save_checkpoint,
    split_optimizer_state,
)
from isometry.data import Batch, Preprocess, make_loaders
from isometry.distributed import World
from isometry.errors import UserError
from isometry.evaluate import accuracy, objective_loss
from isometry.loggers import open_loggers
from isometry.optim import build_optimizer, build_schedule
from isometry.progress import reporter
from isometry.runfolder import RunFolder
from isometry.seeding import derive_seed, seed_global_generators
from isometry.signals import Interrupted, StopWish


@dataclass
class LoopState:
    """Where the loop stands; all that a checkpoint needs besides tensors."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0
    unreadable: list[str] = field(default_factory=list)


class Trainer:
    """Trains ``run.objective`` into ``folder``; call :meth:`fit`.

    Everything random in step k is drawn from generators seeded by (seed, k), so that a resumed run repeats the steps of
    one that was never stopped without having stored any generator.
    """

    def __init__(self, run: Run, folder: RunFolder | None, world: World, console: Console | None, label: str) -> None:
        self.run, self.config, self.world, self.folder = run, run.config, world, folder
        self.console, self.label = console, label
        self.objective = run.objective.to(world.device)
        self.loaders = make_loaders(
            run.sources, self.config, run.spec, seed=self.config.seed, rank=world.rank, world_size=world.size
        )
        classes = self.config.num_classes if run.sources.labelled else None
        self.preprocess = Preprocess(self.config, run.spec, classes, world.device)
        self.optimizer = build_optimizer(self.config, self.objective)
        self.steps_an_epoch = math.ceil(len(self.loaders.train) / self.config.grad_accum_steps)
        self.scheduler = build_schedule(self.config, self.optimizer, self.steps_an_epoch)
        scaled = self.config.amp and self.config.amp_dtype == "float16"
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=scaled)
        self.names = ["loss", *(term.name for term in self.objective.terms)]
        self.state = LoopState(sums=[0.0] * len(self.names))
        self.pending: list[tuple[int, Tensor, list[int]]] = []
        if self.config.model_ema:
            self.objective.setup_ema(self.config.model_ema_decay, use_warmup=self.config.model_ema_warmup)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_an_epoch * self.config.epochs

    def fit(self) -> None:
        """Trains to the end, from wherever the folder's last checkpoint stands.

        Raises:
            Interrupted: after a save, on SIGTERM or Ctrl-C.
            UserError: after a save, when a loss is not finite; or when a save is impossible.
        """
        self.restore()
        if self.config.compile:
            self.objective.compile(backend=self.config.compile_backend)
        if self.world.size > 1:
            gpu = [self.world.device.index] if self.world.device.type == "cuda" else None
            self.objective.prepare_distributed(device_ids=gpu)
        console = self.console if self.world.main else None
        bar = reporter(console, self.label, self.total_steps, self.config.epochs, self.state.step)
        loggers = open_loggers(self.config) if self.world.main else []
        with StopWish() as self.wish, bar as self.reporter:
            started = time.monotonic() - self.state.seconds
            while self.state.epoch < self.config.epochs:
                self.train_epoch(started)
                row = self.end_epoch()
                self.state.seconds = time.monotonic() - started
                self.save()
                self.reporter.epoch(row)
                for log in loggers:
                    log(row)
        for log in loggers:
            log(None)

    def train_epoch(self, started: float) -> None:
        """The epoch's steps, from the batch where the state stands."""
        self.objective.train()
        for batches in self._groups():
            self.train_step(batches)
            self.reporter.step(self.state.step, self.state.epoch)
            reads = self.state.step % self.config.log_interval == 0
            if reads:
                self.read_losses()
            every = self.config.recovery_interval
            asked = self._stop_asked(reads)
            if asked or (every and self.state.step % every == 0):
                self.read_losses()
                self.state.seconds = time.monotonic() - started
                self.save()
            if asked:
                raise Interrupted(
                    f"stopped at step {self.state.step} of {self.total_steps}, saved; go on with --resume",
                    self.wish.signal_number or signal.SIGTERM,
                )
        self.read_losses()

    def train_step(self, batches: list[Batch]) -> None:
        """One optimizer step on some batches, whose gradients are averaged."""
        config, step = self.config, self.state.step
        seed_global_generators(derive_seed(config.seed, "step", step, self.world.rank))
        self.run.generator.manual_seed(derive_seed(config.seed, "terms", step, self.world.rank))
        self.scheduler.step_update(step)
        values: Tensor | None = None
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            input, target = self.preprocess(batch)
            with nullcontext() if last else self.objective.no_sync():
                with self.autocast():
                    result = self.objective(input, target)
                self.scaler.scale(result["loss"] / len(batches)).backward()
            terms = torch.stack([result[name].detach().float() for name in self.names]) / len(batches)
            values = terms if values is None else values + terms
            self.state.unreadable += batch.unreadable
        assert values is not None
        self.pending.append((step, values, [int(i) for batch in batches for i in batch.indices]))
        if self.world.device.type == "cpu":
            # No device to wait for: look before the step is taken, so that what is saved is still good.
            self.check_finite()
        self._update()
        self.state.step += 1
        self.state.batch += len(batches)

    def _update(self) -> None:
        if self.config.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.objective.get_clip_parameters(), self.config.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.update_ema(self.state.step)

    def read_losses(self) -> None:
        """Adds the losses since the last reading to the epoch's sums: the one place that waits for the device."""
        if not self.pending:
            return
        rows = self.check_finite()
        for row in rows:
            self.state.sums = [total + value for total, value in zip(self.state.sums, row, strict=True)]
        self.pending.clear()
        self.reporter.losses(dict(zip(self.names, rows[-1], strict=True)))

    def check_finite(self) -> list[list[float]]:
        """The pending losses as numbers.

        Raises:
            UserError: one is not finite; the message names the step, the term and the images.
        """
        rows = torch.stack([values for _, values, _ in self.pending]).tolist()
        bad = [at for at, row in enumerate(rows) if not all(map(math.isfinite, row))]
        if not bad:
            return rows
        step, _, indices = self.pending[bad[0]]
        terms = [name for name, value in zip(self.names, rows[bad[0]], strict=True) if not math.isfinite(value)]
        blamed = [name for name in terms if name != "loss"] or terms
        self.pending.clear()
        where = self._save_if_good()
        raise UserError(
            f"step {step}: losses.{', losses.'.join(blamed)} is not finite, on the training images {indices}; {where}; "
            "try a smaller --lr or --clip-grad 1"
        )

    def _save_if_good(self) -> str:
        good = all(bool(torch.isfinite(p).all()) for p in self.objective.student.parameters())
        if good:
            self.save()
            return f"saved at step {self.state.step}, before it"
        return "the weights are no longer finite, and the last good save is kept"

    def end_epoch(self) -> dict[str, Any]:
        """Evaluates, writes the epoch's row of metrics, keeps the best; returns the row."""
        state = self.state
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        row: dict[str, Any] = {"epoch": state.epoch + 1, "step": state.step, "lr": lr}
        processes = self.world.size * self.steps_an_epoch
        for name, total in zip(self.names, self.world.sum(state.sums), strict=True):
            row[f"train/{name}"] = total / processes
        row |= self.evaluate()
        state.epoch, state.batch, state.sums = state.epoch + 1, 0, [0.0] * len(self.names)
        self._keep_best(row)
        if self.folder is not None:
            self.folder.metrics.append(row)
        return row

    def evaluate(self) -> dict[str, float]:
        """Figures on the validation part, of the model and of its moving average; none without such a part."""
        if self.loaders.val is None:
            return {}
        if not self.run.sources.labelled:
            figures = objective_loss(self.objective, self.loaders.val, self.preprocess, self.world, self.autocast)
            return {f"val/{name}": value for name, value in figures.items()}
        row = {}
        for prefix, ema in (("val", False), ("val_ema", True)):
            if ema and not self.objective.has_ema():
                continue
            model = self.objective.get_eval_model(ema=ema)
            figures = accuracy(model, self.loaders.val, self.preprocess, self.world, self.autocast)
            row |= {f"{prefix}/{name}": value for name, value in figures.items()}
        return row

    def _keep_best(self, row: Mapping[str, float]) -> None:
        score = self._score(row)
        if self.state.best is not None and score <= self.state.best:
            return
        self.state.best, self.state.best_epoch = score, self.state.epoch
        if self.folder is not None:
            ema = self.objective.has_ema()
            weights = self.objective.get_checkpoint_state(ema=ema)["state_dict_ema" if ema else "state_dict"]
            told = {"epoch": self.state.epoch, "step": self.state.step, "score": score, "spec": self._spec()}
            save_checkpoint(self.folder.best, {"model": weights}, told, f"epoch{self.state.epoch}")

    def _score(self, row: Mapping[str, float]) -> float:
        """Larger is better: top-1 (of the moving average, if there is one), else minus the loss, else the latest."""
        for key in ("val_ema/top1", "val/top1"):
            if key in row:
                return row[key]
        return -row["val/loss"] if "val/loss" in row else float(self.state.epoch)

    def save(self) -> None:
        """Writes ``last/``."""
        if self.folder is None:
            return
        objective = self.objective.get_checkpoint_state()
        moments, rest = split_optimizer_state(self.optimizer)
        parts = {"model": objective["state_dict"], "optimizer": moments, "terms": objective.get("task_state", {})}
        if self.objective.has_ema():
            parts["ema"] = self.objective.get_checkpoint_state(ema=True)["state_dict_ema"]
        state = {
            "spec": self._spec(),
            "loop": asdict(self.state),
            "metrics": self.folder.metrics.sizes(),
            "optimizer": rest,
            "scaler": self.scaler.state_dict(),
        }
        save_checkpoint(self.folder.last, parts, state, f"step{self.state.step}")

    def restore(self) -> None:
        """Goes back to ``last/``, or to the start when there is none yet."""
        self.world.barrier()
        last = None if not self.config.out else RunFolder(self.config).last
        if not self.config.resume or last is None:
            return
        if not has_checkpoint(last):
            if self.folder is not None:
                self.folder.metrics.rewind({})
            return
        parts, state = load_checkpoint(last)
        if state["spec"] != self._spec():
            raise UserError(f"{last}: holds a {state['spec']['model']}, not the {self.config.model} asked for")
        self.objective.load_checkpoint_state(parts["model"], parts.get("terms", {}))
        if "ema" in parts:
            self.objective.load_checkpoint_state(parts["ema"], ema=True)
        join_optimizer_state(self.optimizer, parts.get("optimizer", {}), state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.state = LoopState(**state["loop"])
        if self.folder is not None:
            self.folder.metrics.rewind(state["metrics"])

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision, if it was asked for."""
        dtype = getattr(torch, self.config.amp_dtype)
        return torch.autocast(self.world.device.type, dtype=dtype, enabled=self.config.amp)

    def _spec(self) -> dict[str, Any]:
        config = self.config
        return {
            "model": config.model,
            "model_kwargs": config.model_kwargs,
            "num_classes": config.num_classes,
            "in_chans": config.in_chans,
            "img_size": config.img_size,
        }

    def _groups(self) -> Iterator[list[Batch]]:
        """The epoch's batches, as many together as one optimizer step takes."""
        group: list[Batch] = []
        batches = self.loaders.train.epoch(self.state.epoch, start_batch=self.state.batch)
        for batch in batches:
            group.append(batch)
            if len(group) == self.config.grad_accum_steps:
                yield group
                group = []
        if group:
            yield group

    def _stop_asked(self, reads: bool) -> bool:
        if self.world.size == 1:
            return self.wish.signal_number is not None
        # All processes must leave at the same step, and asking costs a synchronisation.
        return reads and self.world.any(self.wish.signal_number is not None)
