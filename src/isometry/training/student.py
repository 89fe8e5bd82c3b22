"""The network that trains: how it is built at each size that it has in the run."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from isometry.config import GrowConfig, PruneConfig
from isometry.errors import UserError
from isometry.grow.architectures import Size, find_architecture
from isometry.grow.dry_run import check_surgery
from isometry.grow.schedule import Schedule, Stage, make_schedule, one_stage
from isometry.grow.surgery import Surgery, plan_surgery
from isometry.models.build import build_model
from isometry.models.cost import macs, parameter_count
from isometry.models.spec import ModelSpec, image_spec
from isometry.models.weights import WeightSource
from isometry.prune.options import pruned
from isometry.seeding import derive_seed, seed_global_generators


@dataclass(frozen=True)
class StudentPlan:
    """All that it takes to build the network that trains, before any step; :func:`plan_student` makes one.

    Attributes:
        spec: the network at full size.
        prune, grow: how it is pruned, and how it grows.
        schedule: its sizes, by epochs.
        seed: of the run; the same plan builds the same bits.
    """

    spec: ModelSpec
    prune: PruneConfig
    grow: GrowConfig
    schedule: Schedule
    seed: int

    def build(self, stage: Stage | None = None) -> tuple[nn.Module, WeightSource]:
        """The network at a stage's size, or at full size, and where its weights come from."""
        # Each stage has its own seed, so that new blocks don't start as others did.
        number = [stage.number] if stage is not None and stage.number else []
        seed_global_generators(derive_seed(self.seed, "model", *number))
        network, source = build_model(self._spec({} if stage is None else stage.arguments), flag="--model")
        return pruned(network, self.spec.name, self.prune), source

    def surgeries(self) -> list[Surgery]:
        """The growths of the schedule, in order."""
        target = self.schedule.target
        if target is None:
            return []
        architecture = find_architecture(target, self.spec.name)

        def build(seed: int, size: Size) -> nn.Module:
            seed_global_generators(derive_seed(seed, "between"))
            return build_model(self._spec(architecture.arguments(target, size)), flag="--model")[0]

        planned = []
        for number, (before, after) in enumerate(pairwise(self.schedule.sizes), start=1):
            seed = derive_seed(self.seed, "grow", number)
            planned.append(plan_surgery(self.grow, architecture, before, after, seed, partial(build, seed)))
        return planned

    def check_growth(self, averages: bool) -> list[str]:
        """Checks every growth of the schedule; returns notes. ``averages``: whether the run keeps an EMA.

        Raises:
            UserError: an operator can't grow this architecture by that much, or does not preserve the function.
        """
        planned, notes = self.surgeries(), []
        for surgery in planned:
            assert self.schedule.target is not None
            check_surgery(surgery, image_spec(self.schedule.target, self.spec.img_size).input_size)
        if changing := dict.fromkeys(surgery.label for surgery in planned if not surgery.preserves):
            notes.append(
                f"growth by {', '.join(changing)} changes the network's outputs: it does not preserve the function"
            )
        if any(surgery.copies_average for surgery in planned) and not averages:
            notes.append(
                f"without --model-ema, {self.grow.depth_operator} copies the current weights of blocks; with it, it "
                "copies their moving average"
            )
        return notes

    def costs(self, input_size: tuple[int, int, int]) -> list[dict[str, Any]]:
        """A row for each stage: ``model`` and ``by`` (its size and the operators, as text), ``params``, ``macs``."""
        made = ["", *(surgery.label for surgery in self.surgeries())]
        # Real networks, because some architectures can't be counted on the meta device.
        networks = (
            (stage, by, self.build(stage)[0]) for stage, by in zip(self.schedule.stages, made, strict=True)
        )
        return [
            {
                "model": stage.label,
                "by": by,
                "params": parameter_count(network),
                "macs": macs(network, input_size),
            }
            for stage, by, network in networks
        ]

    def _spec(self, arguments: dict[str, Any]) -> ModelSpec:
        return replace(self.spec, kwargs=self.spec.kwargs | arguments)


def plan_student(
    spec: ModelSpec, prune: PruneConfig, grow: GrowConfig, epochs: int, seed: int
) -> StudentPlan:
    """The plan of a run of so many epochs; raises UserError for a schedule of growth that is not possible."""
    return StudentPlan(spec, prune, grow, _schedule(spec, grow, epochs), seed)


def _schedule(spec: ModelSpec, grow: GrowConfig, epochs: int) -> Schedule:
    if not grow.wanted:
        return one_stage(grow, epochs)
    if spec.weights != "none":
        raise UserError(
            "--grow: starts from new weights of a smaller network, and pretrained ones are of full size; "
            "leave out --grow, or --pretrained, --initial-checkpoint and local-dir:"
        )
    with torch.device("meta"):
        target, _ = build_model(spec, flag="--model")
    return make_schedule(grow, epochs, target, spec.name)
